"""The head of an HTTP request as every front door states it, whatever library has read it."""

from __future__ import annotations

from dataclasses import dataclass, field

from multidict import CIMultiDict, CIMultiDictProxy, MultiMapping

Headers = CIMultiDict[str] | CIMultiDictProxy[str]


@dataclass(frozen=True, slots=True)
class Head:
    """`path` as it came over the wire, not decoded; `query` decoded; `peer`: the address at the connection's other end.

    Path and headers hold tokens and cookies, so they stay out of the repr.
    """

    method: str
    path: str = field(repr=False)
    query: MultiMapping[str] = field(repr=False)
    headers: Headers = field(repr=False)
    peer: str

    def header(self, name: str) -> str | None:
        """A header's value, several lines of it joined as RFC 9110 §5.3 says; None where it is absent."""
        values = self.headers.getall(name, [])
        return ", ".join(values) if values else None
