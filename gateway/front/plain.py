"""An answer that is complete as it stands: status, headers and the whole body, for any door's library to send."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

NOT_MODIFIED = 304


@dataclass(frozen=True, slots=True)
class Answer:
    """`length`: the Content-Length where there is no body to count; None: then none is sent (304, RFC 9110 §15.4.5)."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""
    length: int | None = None

    @classmethod
    def text(cls, text: str, media_type: str, headers: Mapping[str, str], *, status: int = 200) -> Self:
        """Text in UTF-8."""
        return cls(status, {**headers, "Content-Type": f"{media_type}; charset=utf-8"}, text.encode())
