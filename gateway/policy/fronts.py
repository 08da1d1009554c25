"""What each front door can keep, as data: the one table that decisions, settings, docs and `gateway doors` read.

A limit that a door cannot keep is refused there, unless the settings waive it by name. A new limit is kept by the
door of our own alone, until another door's row names it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.policy.limits import LIMITS, Concurrent, Devices, Downloads, Networks, ValidAfterFirst
from gateway.policy.model import Limits


@dataclass(frozen=True, slots=True)
class Front:
    """One front door. `name` is what events call it; `limits` are those it keeps.

    `delivered`: what its closing events count; `hands_over`: somebody else sends the bytes, so nothing is known of
    them: no refund, a resume is free for `repeat_window` only. `cuts`: whether what runs is ended by a revocation.
    `origins`: the kinds of store it can stand in front of. `archives`: whether it gives all files as one ZIP.
    `multipart`: whether it sends several ranges in one answer, and not the whole in place of them.
    """

    name: str
    about: str
    limits: frozenset[str]
    delivered: str
    hands_over: bool
    cuts: bool
    origins: frozenset[str]
    archives: bool
    multipart: bool

    @property
    def unkept(self) -> tuple[str, ...]:
        """The limits that it cannot keep, in the order of LIMITS."""
        return tuple(limit.name for limit in LIMITS if limit.name not in self.limits)


_COUNTED = frozenset({ValidAfterFirst.name, Downloads.name, Networks.name, Devices.name})

HTTP = Front(
    "http",
    "`gateway serve`: clients connect to us, or to a proxy that passes our bytes on",
    limits=frozenset(limit.name for limit in LIMITS),
    delivered="acknowledged by the client",
    hands_over=False,
    cuts=True,
    origins=frozenset({"s3", "file"}),
    archives=True,
    multipart=True,
)
MITM = Front(
    "mitm",
    "`gateway mitm`, or `mitmdump -s`: mitmproxy in front of the bucket",
    limits=_COUNTED | {Concurrent.name},
    delivered="passed on to the client",
    hands_over=False,
    cuts=True,
    origins=frozenset({"s3"}),
    archives=False,
    multipart=False,
)
NGINX = Front(
    "nginx",
    "`gateway serve` behind nginx, which moves the bytes itself (`X-Accel-Redirect`)",
    limits=_COUNTED,
    delivered="not known",
    hands_over=True,
    cuts=False,
    origins=frozenset({"s3", "file"}),
    archives=True,
    multipart=False,
)
AUTH = Front(
    "auth",
    "`/auth`: another proxy asks whether it may answer (nginx `auth_request`, Traefik, Caddy)",
    limits=_COUNTED,
    delivered="not known",
    hands_over=True,
    cuts=False,
    origins=frozenset({"s3", "file"}),
    archives=False,
    multipart=False,
)
FRONTS = {front.name: front for front in (HTTP, MITM, NGINX, AUTH)}

Waived = Mapping[str, frozenset[str]]
"""By a door's name: the limits that it need not keep, because the settings say so."""


@dataclass(frozen=True, slots=True)
class Kept:
    """Of the limits in force: those that the door keeps, and the names of the waived and of those that it cannot."""

    limits: Limits
    waived: tuple[str, ...]
    unkept: tuple[str, ...]


def kept(limits: Limits, front: str, waived: Waived) -> Kept:
    """What this door can make of the limits. Raises KeyError for a name that is no door's."""
    beyond = [name for name, _ in limits.values if name not in FRONTS[front].limits]
    if not beyond:
        return Kept(limits, (), ())
    spared = tuple(name for name in beyond if name in waived.get(front, frozenset()))
    for name in spared:
        limits = limits.without(name)
    return Kept(limits, spared, tuple(name for name in beyond if name not in spared))
