"""The types of the settings' values: how each is written, and what an error says would be right.

A message never repeats an address that may hold a password.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, PlainValidator, SecretStr

from gateway.policy.model import Network
from gateway.policy.units import parse_duration, parse_size

PORT_MAX = 65_535
REDIS_SCHEMES = ("redis", "rediss", "redis+sentinel", "redis+cluster", "unix", "embedded")

_MAPPED = IPv6Network("::ffff:0:0/96")
_INTERNAL = re.compile(r"/(?:[A-Za-z0-9_-]+/)+")
_DOOR_SECRET = re.compile(r"[A-Za-z0-9_-]{16,128}")
_SPELT = re.compile(r"(?:[A-Za-z0-9._~:/?\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2}|#)+")
"""What an address is written with (RFC 3986 §2)."""
_HOST = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*\.?")


@dataclass(frozen=True, slots=True)
class Listen:
    """A TCP address to listen on; port 0 takes a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("is no text; write one value")
    return value


def _listen(value: object) -> Listen:
    if isinstance(value, Listen):
        return value
    host, colon, port = _text(value).rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not bare or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > PORT_MAX:
        raise ValueError("is no address to listen on; write host:port, like 0.0.0.0:8080 or [::]:8080")
    if ":" in host:
        _check_ipv6(host, bare)
    elif not _HOST.fullmatch(host):
        raise ValueError("has a host that is neither a name nor an address; write host:port, like 0.0.0.0:8080")
    return Listen(bare, int(port))


def _check_ipv6(host: str, bare: str) -> None:
    try:
        valid = host != bare and IPv6Address(bare) is not None
    except ValueError:
        valid = False
    if not valid:
        raise ValueError("is no address to listen on; write an IPv6 address in brackets, like [::]:8080")


def _http_url(value: object) -> str:
    """An http(s) address without its last slash; what it holds is not repeated in errors, it may hold a password."""
    text = _text(value)
    example = "write it like https://dl.example.com"
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018  # parsed only now; ValueError when it is no number
    except ValueError:
        raise ValueError(f"is no address; {example}") from None
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"has no http:// or https:// in front; {example}")
    if not parts.hostname or not text.isprintable() or " " in text:
        raise ValueError(f"has no host name, or a space or control character; {example}")
    if parts.username is not None or parts.query or parts.fragment or "?" in text or "#" in text:
        raise ValueError(f"has a user name, a ? or a # in it; {example}")
    return text.rstrip("/")


def _exact_url(value: object) -> str:
    """An http(s) address just as it is written, its query and last slash too: others compare it, or answer at it."""
    text = _text(value)
    _http_url(text.partition("?")[0])
    if "#" in text or " " in text or not text.isprintable():
        raise ValueError("has a #, a space or a control character in it; write it like https://accounts.example.com/")
    return text


def _internal_path(value: object) -> str:
    """A path that only nginx itself may ask for."""
    text = _text(value)
    if not _INTERNAL.fullmatch(text):
        raise ValueError("is no internal location; write one of letters, digits, - and _, like /_gateway/")
    return text


def _door_secret(value: object) -> SecretStr:
    """A word that goes into a header of every request, as it is written."""
    text = value.get_secret_value() if isinstance(value, SecretStr) else _text(value)
    if not _DOOR_SECRET.fullmatch(text):
        raise ValueError("is no secret of 16 to 128 letters, digits, - and _; make one with: openssl rand -hex 16")
    return SecretStr(text)


def _webhook_url(value: object) -> SecretStr:
    """An address that is told of events. Its query may hold a secret, so nothing of it is repeated."""
    text = value.get_secret_value() if isinstance(value, SecretStr) else _text(value)
    example = "write it like https://shop.example.com/downloads"
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError(f"is no address; {example}") from None
    if parts.scheme not in ("http", "https") or not host or port == 0:
        raise ValueError(f"has no https:// and host name in front; {example}")
    if not _SPELT.fullmatch(text):
        raise ValueError(f"has a character that an address cannot have; write it percent-encoded, and {example}")
    if parts.username is not None or parts.fragment or text.endswith("#"):
        raise ValueError(f"has a user name or a # in it; {example}")
    if parts.scheme == "http" and not is_loopback(host):
        raise ValueError(f"is sent in the clear by http://, which only this machine's own addresses may be; {example}")
    return SecretStr(text)


def is_loopback(host: str) -> bool:
    """Whether the name or address is this machine's own."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


def _redis_url(value: object) -> SecretStr:
    text = value.get_secret_value() if isinstance(value, SecretStr) else _text(value)
    scheme, colon, rest = text.partition("://")
    if not colon or scheme not in REDIS_SCHEMES:
        nearest = difflib.get_close_matches(scheme, REDIS_SCHEMES, 1)
        hint = f"did you mean {nearest[0]}://?" if nearest else "write it like redis://127.0.0.1:6379/0"
        raise ValueError(f"does not start with {':// '.join(REDIS_SCHEMES[:-1])}:// or {REDIS_SCHEMES[-1]}://; {hint}")
    if scheme in ("unix", "embedded"):
        if not rest.startswith("/") or rest == "/":
            raise ValueError(f"has no absolute path; write {scheme}:///path, with three slashes")
    elif not rest.rpartition("@")[2].strip("/") or rest.rpartition("@")[2].startswith(("/", ":")):
        raise ValueError(f"has no host name; write it like {scheme}://127.0.0.1:6379/0")
    return SecretStr(text)


def _network(value: object) -> Network:
    if not isinstance(value, str):
        raise ValueError("is no network; write it like 10.0.0.0/8")
    try:
        network = ip_network(value, strict=False)
    except ValueError:
        raise ValueError("is no network; write an address and a prefix length, like 10.0.0.0/8") from None
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        # Client addresses are unmapped before they are compared, so this one would match nobody.
        mapped = IPv4Network((int(network.network_address) & 0xFFFF_FFFF, network.prefixlen - _MAPPED.prefixlen))
        raise ValueError(f"is an IPv4 network written as IPv6; write {mapped}")
    if network.prefixlen == 0:
        raise ValueError("trusts every client's headers; name only your proxies' networks, like 10.0.0.0/8")
    if ip_address(value.partition("/")[0]) != network.network_address:
        raise ValueError(f"has host bits set; write {network}")
    return network


def _host(value: object) -> str:
    if not isinstance(value, str) or not _HOST.fullmatch(value):
        raise ValueError("is no host name; write only the name, without scheme, port or path, like cdn.example.com")
    return value.lower().rstrip(".")


def _duration(value: object) -> int:
    try:
        return parse_duration(_text(value))
    except ValueError as error:
        raise ValueError(f"is no duration; {error}") from None


def _size(value: object) -> int:
    try:
        return parse_size(_text(value))
    except ValueError as error:
        raise ValueError(f"is no size; {error}") from None


def _path(value: object) -> Path:
    text = str(value) if isinstance(value, Path) else _text(value)
    if "\0" in text:
        raise ValueError("has a NUL character; write a path")
    return Path(text)


def _database_url(value: object) -> SecretStr:
    text = value.get_secret_value() if isinstance(value, SecretStr) else _text(value)
    scheme, colon, rest = text.partition("://")
    if not colon or scheme not in ("sqlite", "postgresql"):
        raise ValueError("is neither sqlite:///path nor postgresql://user:password@host/name; write one of them")
    if scheme == "sqlite" and (not rest.startswith("/") or not rest.strip("/")):
        raise ValueError("has no path; write sqlite:///var/orders.db, or with four slashes from the root on")
    if scheme == "postgresql" and not urlsplit(text).hostname:
        raise ValueError("has no host name; write it like postgresql://user:password@host/name")
    return SecretStr(text)


@dataclass(frozen=True, slots=True)
class Smtp:
    """A mail server; `tls`: from the first byte on (`implicit`), before anything is said (`starttls`), or `none`."""

    host: str
    port: int
    tls: str


_SMTP = {"smtp": ("starttls", 587), "smtps": ("implicit", 465), "smtp+plain": ("none", 25)}


def _mail_server(value: object) -> Smtp | Path:
    if isinstance(value, Smtp | Path):
        return value
    text = _text(value)
    if text.startswith("maildir://"):
        folder = text.removeprefix("maildir://")
        if not folder.startswith("/") or not folder.strip("/"):
            raise ValueError("has no absolute path; write it like maildir:///var/mail/shop, with three slashes")
        return _path(folder)
    return _smtp_url(text)


def _smtp_url(text: str) -> Smtp:
    example = "write it like smtp://mail.example.com:587"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(f"is no address; {example}") from None
    if parts.scheme not in _SMTP or not parts.hostname or parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError(f"is no mail server; {example}, smtps://… or smtp+plain://…")
    if parts.username is not None:
        raise ValueError(f"has a user name in it; set mail.user and mail.password, and {example}")
    tls, usual = _SMTP[parts.scheme]
    return Smtp(parts.hostname, port or usual, tls)


def _mail_address(value: object) -> str:
    text = _text(value)
    if not re.fullmatch(r"[^\s@<>,;\"]{1,64}@[^\s@<>,;\"]{1,255}", text) or not text.isprintable():
        raise ValueError("is no mail address; write only the address, like shop@example.com")
    return text


def _color(value: object) -> str:
    text = _text(value)
    if not re.fullmatch(r"#[0-9A-Fa-f]{6}", text):
        raise ValueError('is no colour; write six hex digits in quotes, like "#1d4ed8"')
    return text.lower()


Seconds = Annotated[int, BeforeValidator(_duration), Field(gt=0)]
Size = Annotated[int, BeforeValidator(_size), Field(gt=0)]
SizeOrZero = Annotated[int, BeforeValidator(_size), Field(ge=0)]
FilePath = Annotated[Path, PlainValidator(_path)]
Secret = Annotated[SecretStr, Field(min_length=1)]
DoorSecret = Annotated[SecretStr, PlainValidator(_door_secret)]
Address = Annotated[Listen, PlainValidator(_listen)]
InternalPath = Annotated[str, PlainValidator(_internal_path)]
HttpUrl = Annotated[str, PlainValidator(_http_url)]
ExactUrl = Annotated[str, PlainValidator(_exact_url)]
WebhookUrl = Annotated[SecretStr, PlainValidator(_webhook_url)]
RedisUrl = Annotated[SecretStr, PlainValidator(_redis_url)]
ProxyNetwork = Annotated[Network, PlainValidator(_network)]
Host = Annotated[str, PlainValidator(_host)]
DatabaseUrl = Annotated[SecretStr, PlainValidator(_database_url)]
MailServer = Annotated[Smtp | Path, PlainValidator(_mail_server)]
MailAddress = Annotated[str, PlainValidator(_mail_address)]
Color = Annotated[str, PlainValidator(_color)]
