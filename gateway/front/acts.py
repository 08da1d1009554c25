"""What a visitor does at a link beside looking at it: each act is one POST to `/l/{token}`, named by its form.

Law: who does it has a genuine token; all else is for the act to ask.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from gateway.front.head import Head
from gateway.front.plain import Answer
from gateway.policy.model import Claims, Deny, DownloadRequest


@dataclass(frozen=True, slots=True)
class Act:
    """One of them. `form`: its fields, each with its first value."""

    head: Head
    asked: DownloadRequest
    claims: Claims
    form: Mapping[str, str] = field(repr=False)


Doing = Callable[[Act], Awaitable[Answer | Deny]]
"""Does it, and says what the visitor is answered."""

Acts = Mapping[str, Doing]
"""By the form's field `act`."""
