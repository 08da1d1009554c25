"""Who the client is: the rightmost hop that is no trusted proxy. Anything left of it is the client's own word.

X-Forwarded-For wins over Forwarded (RFC 7239): nearly every proxy rewrites the first and passes the second on,
so a proxy that writes only Forwarded must remove X-Forwarded-For. No other header is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_HOPS_MAX = 32
_PORT = re.compile(r"(?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]+))?")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*+"')
_BALANCED = re.compile(rf'(?:[^"]|{_QUOTED.pattern})*+')
_ESCAPE = re.compile(r"\\(.)")
_ELEMENT = re.compile(rf'(?:[^",]|{_QUOTED.pattern})++')
_PAIR = re.compile(rf'(?:[^";]|{_QUOTED.pattern})++')


def client_address(peer: str, headers: Sequence[tuple[str, str]], trusted: Sequence[Network]) -> Address | None:
    """The client's address, IPv4-mapped ones as IPv4, without scope. Where all hops are trusted, the leftmost.

    None where a trusted proxy names its client by something that is no address (`unknown`, `_hidden`, a broken
    header): refuse the request, for the proxy's own address would open rules that were written for the inside.
    """
    address = parse_address(peer)
    if address is None or not _is_trusted(address, trusted):
        return address
    for hop in _hops(headers):
        address = _node(hop)
        if address is None or not _is_trusted(address, trusted):
            return address
    return address


def is_trusted(peer: str, trusted: Iterable[Network]) -> bool:
    """Whether the peer (an address as text) is one of the trusted proxies; what is no address is not."""
    address = parse_address(peer)
    return address is not None and _is_trusted(address, trusted)


def parse_address(text: str) -> Address | None:
    """The address that the text is, strictly (no port, brackets, blanks, octal or shortened forms), or None."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        return address.ipv4_mapped or IPv6Address(address.packed)
    return address


def _is_trusted(address: Address, trusted: Iterable[Network]) -> bool:
    return any(address in network for network in trusted)


def _hops(headers: Sequence[tuple[str, str]]) -> list[str]:
    """The hops from the nearest to the farthest, several lines joined in their order (RFC 9110 §5.3)."""
    listed = _joined(headers, "x-forwarded-for")
    if listed:
        # Past the bound the rest stays in one piece, which is no address and so ends the walk.
        hops = listed.rsplit(",", _HOPS_MAX)
        return [hop for hop in (hop.strip(" \t") for hop in reversed(hops)) if hop]
    return _forwarded(_joined(headers, "forwarded"))


def _joined(headers: Sequence[tuple[str, str]], name: str) -> str:
    return ",".join(value for key, value in headers if key.lower() == name).strip(" \t,")


def _forwarded(value: str) -> list[str]:
    """The `for` of each element, nearest first (RFC 7239 §4). A header that cannot be read is one unreadable hop."""
    if not _BALANCED.fullmatch(value):
        return [""]
    return [_for(element) for element in reversed(_ELEMENT.findall(value)) if element.strip(" \t")]


def _for(element: str) -> str:
    """The value of the element's one `for`; "", which is no address, where there is none or more than one."""
    pairs = (pair.partition("=") for pair in _PAIR.findall(element))
    values = [value.strip(" \t") for name, _, value in pairs if name.strip(" \t").lower() == "for"]
    if len(values) != 1:
        return ""
    return _ESCAPE.sub(r"\1", values[0][1:-1]) if _QUOTED.fullmatch(values[0]) else values[0]


def _node(hop: str) -> Address | None:
    """The address in `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80` (RFC 7239 §6)."""
    if hop.startswith("["):
        host, bracket, port = hop[1:].partition("]")
        address = parse_address(host)
        return address if bracket and ":" in host and _PORT.fullmatch(port) else None
    host, colon, port = hop.partition(":")
    if "." in host and _PORT.fullmatch(colon + port):
        return parse_address(host)
    return parse_address(hop)
