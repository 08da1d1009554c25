"""What the buyer of an order may get, without asking anybody, for a link of it that is over.

Law: nothing that is not the buyer's now. What is given is a new token, mailed to the order's own address, so whoever
else has the old one has nothing of it. Expired links keep their counts; used-up ones begin anew as often as plans say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from gateway.policy.granting import LIFE
from gateway.policy.model import Plan
from gateway.policy.orders import Holding, IssuedLink, Order


@dataclass(frozen=True, slots=True)
class Use:
    """A link as it stands: when it ends (Unix s), its `downloads` of each file (None: as many as one likes), those that
    are charged by the file's identity, whether a download of it is under way, and whether its first download is too
    long ago for another.
    """

    expires_at: int
    revoked: bool = False
    downloads: int | None = None
    used: Mapping[str, int] | None = None
    running: bool = False
    too_late: bool = False


@dataclass(frozen=True, slots=True)
class Offer:
    """What there is to have, until then (Unix s): `extend`, the link signed anew, with its counts; `renew`, another
    link in its place, whose counts begin anew, with `left` renewals after that; `mail`, a newer link that is good.
    """

    way: Literal["extend", "renew", "mail"]
    until: int
    left: int = 0


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing is offered: the order or the link is `unknown`, its buyer `unreachable`, the link `revoked`, all of it
    `lost` (refunded, lapsed, unpaid …), its renewals `spent`, a download of it `running`; or it is `good` as it is.
    """

    why: Literal["unknown", "unreachable", "revoked", "lost", "spent", "running", "good"]


def link_of(order: Order, token_id: str) -> IssuedLink | None:
    """The order's link with this id."""
    return next((link for link in order.links if link.token_id == token_id), None)


def stand_in(order: Order, link: IssuedLink) -> IssuedLink:
    """The newest link of the order that gives all that this one gives, or itself."""
    return next(
        (
            other
            for other in reversed(order.links)
            if set(link.files) <= set(other.files)
            and set(link.line_ids) <= set(other.line_ids)
            and (other.plan, other.tier, other.account) == (link.plan, link.tier, link.account)
        ),
        link,
    )


def offer(order: Order, link: IssuedLink, use: Use, *, holding: Holding, plan: Plan, now: int) -> Offer | Refused:
    """What the order's buyer may have for the link. `plan`: the link's; `now` in Unix seconds."""
    if use.revoked:
        return Refused("revoked")
    ends = {file.identity: holding.until.get(file.identity, 0) for file in link.files}
    mine = [name for name, end in ends.items() if end is None or end > now]
    if not mine or link.plan not in (None, plan.name):
        return Refused("lost")
    until = now + (plan.valid_for or LIFE)
    if (latest := [end for name in mine if (end := ends[name]) is not None]) and len(latest) == len(mine):
        until = min(until, max(latest))
    used = use.used or {}
    used_up = [name for name in mine if use.downloads is not None and used.get(name, 0) >= use.downloads]
    if use.expires_at <= now and len(used_up) < len(mine) and not use.too_late:
        return Offer("extend", until)
    if not used_up and not use.too_late:
        return Refused("good")
    if order.renewed >= plan.renewals:
        return Refused("spent")
    return Refused("running") if use.running else Offer("renew", until, plan.renewals - order.renewed - 1)


def extended(order: Order, link: IssuedLink, *, now: int, until: int) -> Order:
    """With the link made anew, from `now` until then (Unix s): its id stays, by which its counts go, and the tokens of
    it that are out end when they ended.
    """
    anew = replace(link, issued_at=now, expires_at=until)
    return replace(order, links=tuple(anew if each == link else each for each in order.links))


def renewed(order: Order, link: IssuedLink, token_id: str, *, now: int, until: int) -> Order:
    """With another link of the same, from `now` until then (Unix s), which stands in for it; a renewal is spent."""
    another = replace(link, token_id=token_id, issued_at=now, expires_at=until)
    return replace(order, links=(*order.links, another), renewed=order.renewed + 1)
