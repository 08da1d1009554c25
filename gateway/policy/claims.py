"""A token's payload and `Claims`, both ways, side by side so that they cannot drift (RFC 7519 §4).

Every known claim has one strict type. Unknown top-level claims are ignored (RFC 7519 §4: they MUST be); unknown
limits and unknown members of a file are refused, for a limit or a file that is not understood cannot be kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from ipaddress import IPv6Network, ip_network
from typing import TypeGuard, TypeVar
from urllib.parse import unquote

from gateway.policy.limits import BY_NAME, read_limit
from gateway.policy.model import Claims, Deny, FileEntry, Limits, Network
from gateway.policy.reasons import Reason

AUDIENCE = "download-gateway"
TIME_MAX = 253_402_300_799
"""The last second of the year 9999, in Unix seconds: the last one that RFC 3339 can write."""
FILES_MAX = 1000
KEY_BYTES_MAX = 1024
TEXT_MAX = 255
URL_MAX = 2048

# Controls, line and paragraph separators, and lone surrogates (which no UTF-8 can carry).
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
# A token id is typed into commands and put into addresses and Redis keys, so it has one spelling and no hash tag.
_TOKEN_ID = re.compile(r"[!-z|~]{1,128}")
_DOT_SEGMENT = re.compile(r"(?:\A|[/\\])\.{1,2}(?:[/\\]|\Z)")
_URL = re.compile(
    r"https://[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{1,5})?"
    r"(?:[/?#][A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]*)?"
)
_PREFIXED = re.compile(r"[0-9A-Fa-f.:]+/[0-9]{1,3}")

Members = Mapping[str, object]
T = TypeVar("T")


class _Wrong(Exception):
    """A claim that breaks its rule. The text names the claim and the rule, never the value."""


def read_claims(payload: Members, issuer: str) -> Claims | Deny:
    """The claims of a payload whose signature was verified, or `token.claims` with a sentence for ops.

    Nothing here depends on the time: an expired or premature token reads as well as any.
    """
    try:
        _require(payload, "iss", "aud", "exp", "jti", "files")
        if payload["iss"] != issuer:
            raise _Wrong("the claim iss is not the issuer of the settings")
        # One audience only: a token that is good elsewhere too could be taken there and replayed here.
        if payload["aud"] not in (AUDIENCE, [AUDIENCE]):
            raise _Wrong(f"the claim aud is not {AUDIENCE}")
        return Claims(
            issuer=issuer,
            token_id=_token_id(payload["jti"]),
            expires_at=_whole(payload["exp"], "exp", 0, TIME_MAX),
            files=_files(payload["files"]),
            not_before=_optional(payload, "nbf", _time),
            issued_at=_optional(payload, "iat", _time),
            customer_id=_optional(payload, "sub", _text),
            order_id=_optional(payload, "order", _text),
            plan=_optional(payload, "plan", _text),
            tier=_optional(payload, "tier", _text),
            account=_optional(payload, "account", _flag) or False,
            ip=_optional(payload, "ip", _networks) or (),
            limits=_optional(payload, "limits", _limits) or Limits(),
        )
    except _Wrong as wrong:
        return Deny(Reason.TOKEN_CLAIMS, message=str(wrong))


def is_key(text: str) -> bool:
    """Whether a token may name this storage key."""
    try:
        return _key(text) == text
    except _Wrong:
        return False


def write_claims(claims: Claims) -> dict[str, object]:
    """The payload that `read_claims` reads as `claims`: registered claims first, nothing that is not set."""
    payload: dict[str, object | None] = {
        "iss": claims.issuer,
        "aud": AUDIENCE,
        "sub": claims.customer_id,
        "jti": claims.token_id,
        "iat": claims.issued_at,
        "nbf": claims.not_before,
        "exp": claims.expires_at,
        "files": [_write_file(file) for file in claims.files],
        "order": claims.order_id,
        "plan": claims.plan,
        "tier": claims.tier,
        "account": claims.account or None,
        "ip": [str(network) for network in claims.ip] or None,
        "limits": dict(claims.limits.values) or None,
    }
    return _set_only(payload)


def _write_file(file: FileEntry) -> str | dict[str, object]:
    if file.key is not None and file.url is None and file.name is None:
        return file.key
    return _set_only({"key": file.key, "url": file.url, "name": file.name})


def _set_only(members: Mapping[str, object | None]) -> dict[str, object]:
    return {name: value for name, value in members.items() if value is not None}


def _require(payload: Members, *names: str) -> None:
    for name in names:
        if name not in payload:
            raise _Wrong(f"the claim {name} is missing")


def _optional(payload: Members, name: str, read: Callable[[object, str], T]) -> T | None:
    return read(payload[name], name) if name in payload else None


def _is_object(value: object) -> TypeGuard[Members]:
    return isinstance(value, dict)


def _whole(value: object, name: str, least: int, most: int) -> int:
    # type() and not isinstance(): True is an int in Python, not in JSON.
    if type(value) is not int or not least <= value <= most:
        raise _Wrong(f"{name} is not a whole number from {least} to {most}")
    return value


def _time(value: object, name: str) -> int:
    return _whole(value, name, 0, TIME_MAX)


def _flag(value: object, name: str) -> bool:
    if not isinstance(value, bool):
        raise _Wrong(f"the claim {name} is neither true nor false")
    return value


def _token_id(value: object) -> str:
    if not isinstance(value, str) or not _TOKEN_ID.fullmatch(value):
        raise _Wrong("the claim jti is not 1 to 128 visible ASCII characters without braces")
    return value


def _text(value: object, name: str) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= TEXT_MAX or value != value.strip():
        raise _Wrong(f"{name} is not a text of 1 to {TEXT_MAX} characters without spaces around it")
    if _UNPRINTABLE.search(value):
        raise _Wrong(f"{name} has control characters in it")
    return value


def _files(value: object) -> tuple[FileEntry, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= FILES_MAX:
        raise _Wrong(f"the claim files is not a list of 1 to {FILES_MAX} files")
    return tuple(_file(entry) for entry in value)


def _file(entry: object) -> FileEntry:
    if isinstance(entry, str):
        return FileEntry(_key(entry))
    if not _is_object(entry) or set(entry) - {"name"} not in ({"key"}, {"url"}):
        raise _Wrong("a file is neither a key nor an object of either key or url, and a name if wanted")
    name = _optional(entry, "name", _text)
    return FileEntry(_key(entry["key"]), name=name) if "key" in entry else FileEntry(None, _url(entry["url"]), name)


def _key(value: object) -> str:
    if not isinstance(value, str) or _UNPRINTABLE.search(value) or not 1 <= len(value.encode()) <= KEY_BYTES_MAX:
        raise _Wrong(f"a file's key is not a text of 1 to {KEY_BYTES_MAX} bytes without control characters")
    if "" in value.split("/"):
        raise _Wrong("a file's key begins or ends with / or has // in it")
    # Keys may hold % and \ and are never decoded here, but a store or proxy behind us may: no layer may climb.
    layer = value
    while not _DOT_SEGMENT.search(layer):
        decoded = unquote(layer)
        if decoded == layer:
            return value
        layer = decoded
    raise _Wrong("a file's key has a . or .. segment")


def _url(value: object) -> str:
    if not isinstance(value, str) or len(value) > URL_MAX or not _URL.fullmatch(value):
        raise _Wrong("a file's url is not an https address with a host name, without a user name")
    return value


def _networks(value: object, name: str) -> tuple[Network, ...]:
    if not isinstance(value, list) or not value:
        raise _Wrong(f"the claim {name} is not a list of one or more networks")
    return tuple(_network(entry) for entry in value)


def _network(entry: object) -> Network:
    # ip_network also reads netmasks and zone ids, which the pattern keeps out, and refuses host bits.
    if isinstance(entry, str) and _PREFIXED.fullmatch(entry if "/" in entry else entry + "/0"):
        try:
            network = ip_network(entry)
        except ValueError:
            network = None
        # Client addresses are unmapped before they are compared, so a mapped network would never match.
        if network is not None and not (
            isinstance(network, IPv6Network) and network.network_address.ipv4_mapped is not None
        ):
            return network
    raise _Wrong("an entry of ip is not a network such as 203.0.113.0/24 or 2001:db8::/32")


def _limits(value: object, name: str) -> Limits:
    if not _is_object(value) or not value.keys() <= BY_NAME.keys():
        raise _Wrong(f"the claim {name} is not an object of {' '.join(BY_NAME)}")
    read: dict[str, int] = {}
    for limit, given in value.items():
        try:
            read[limit] = read_limit(limit, given)
        except ValueError as error:
            raise _Wrong(f"the limit {limit}: {error}") from None
    return Limits(**read)
