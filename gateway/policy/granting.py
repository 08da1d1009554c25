"""What follows from a paid order: entitlements, links, and what is told of it. Only what is missing is added.

Law: done again, with the same order, it adds nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from gateway.policy.claims import write_claims
from gateway.policy.model import Claims, FileEntry, Plan
from gateway.policy.orders import NEVER, Entitlement, IssuedLink, Line, Order, SoldFile, Told
from gateway.policy.products import Catalogue, Product
from gateway.policy.tokens import TOKEN_MAX

LIFE = 10 * 365 * 86_400
"""Seconds that a link is valid whose plan does not say. What it opens may end before: the order book is asked."""
_TOKEN_OVERHEAD = 512
"""Characters of a token besides its claims: the header, the dots and the longest signature (RSA 2048)."""


def ungranted(order: Order, catalogue: Catalogue, plans: Mapping[str, Plan]) -> list[tuple[Line, Product]]:
    """The lines that stand for a product and have no entitlement yet. What was taken back waits until it is given
    back, and a product whose plan is gone until that is there.
    """
    known = {entitlement.line_id for entitlement in order.entitlements}
    lines = (line for line in order.lines.value if line.line_id not in known and not order.taken_back(line.line_id))
    found = ((line, catalogue.find(line)) for line in lines)
    return [(line, product) for line, product in found if product is not None and product.has_plan(plans)]


def files_of(wanted: Iterable[tuple[Line, Product]]) -> list[FileEntry]:
    """Every file of these products, once."""
    return list(dict.fromkeys(file for _, product in wanted for file in product.files))


def granted(
    order: Order, wanted: Sequence[tuple[Line, Product]], stock: Mapping[FileEntry, SoldFile], now_ms: int
) -> Order:
    """With an entitlement for each of the lines. `stock`: how the files are in the store now."""
    new = tuple(
        Entitlement(
            line_id=line.line_id,
            title=product.title or line.title,
            files=tuple(stock.get(file, SoldFile(file)) for file in product.files),
            granted_at=now_ms,
            plan=product.plan,
            tier=product.tier,
            account=product.account,
            ends_at=None if product.lasts is None else now_ms // 1000 + product.lasts,
        )
        for line, product in wanted
    )
    return replace(order, entitlements=order.entitlements + new)


def linked(
    order: Order,
    plans: Mapping[str, Plan],
    default_plan: str | None,
    *,
    issuer: str,
    now: int,
    new_token_id: Callable[[], str],
    anew: bool = False,
) -> Order:
    """With links for what has none yet (`anew`: for all that is owned), as few as there are plans and tiers.

    `now` in Unix seconds. What would make a token too long is split over several.
    """
    covered = set() if anew else {line_id for link in order.links for line_id in link.line_ids}
    groups: dict[tuple[str | None, str | None, bool], list[Entitlement]] = {}
    for each in order.entitlements:
        if each.line_id not in covered and not order.taken_back(each.line_id):
            groups.setdefault((each.plan, each.tier, each.account), []).append(each)
    links = list(order.links)
    for (plan, tier, account), entitlements in groups.items():
        chosen = plans.get(plan or default_plan or "", Plan(""))
        whole = IssuedLink(
            token_id="",
            line_ids=tuple(each.line_id for each in entitlements),
            files=tuple(dict.fromkeys(sold.file for each in entitlements for sold in each.files)),
            issued_at=now,
            expires_at=now + (chosen.valid_for or LIFE),
            plan=plan,
            tier=tier,
            account=account,
        )
        links += (replace(part, token_id=new_token_id()) for part in _parts(order, whole, issuer))
    return replace(order, links=tuple(links))


def prolonged(order: Order, until: int, at: int) -> Order:
    """With all that is the buyer's lasting until then (Unix s) at least, said at that time (Unix ms)."""
    entitlements = tuple(
        each
        if each.ends_at is None or order.taken_back(each.line_id)
        else replace(each, ends_at=max(each.ends_at, until))
        for each in order.entitlements
    )
    ends_at = order.ends_at
    if ends_at.at != NEVER and ends_at.value < until:
        # The latest word counts, and the shop's clock may run ahead of ours.
        ends_at = Told(until, max(at, ends_at.at))
    links = tuple(replace(link, expires_at=max(link.expires_at, until)) for link in order.links)
    return replace(order, entitlements=entitlements, ends_at=ends_at, links=links)


def is_outlived(before: Order | None, after: Order) -> bool:
    """Whether a renewal of the subscription reaches beyond a link of the order, whose buyer then needs new ones."""
    if before is None or after.ends_at.value <= before.ends_at.value:
        return False
    return any(link.expires_at < after.ends_at.value for link in after.links)


def claims_of(order: Order, link: IssuedLink, issuer: str) -> Claims:
    """The claims of one link of the order. Nothing of the buyer is in them but the shop's own, opaque id."""
    return Claims(
        issuer=issuer,
        token_id=link.token_id,
        expires_at=link.expires_at,
        files=link.files,
        issued_at=link.issued_at,
        customer_id=order.customer_id,
        order_id=order.order_id,
        plan=link.plan,
        tier=link.tier,
        account=link.account,
        limits=link.limits,
    )


def happened(before: Order | None, after: Order) -> Iterator[tuple[str, dict[str, str]]]:
    """The types of the events that lie between two states of an order, each with its own fields."""
    was = before or Order(after.order_id, after.shop, after.shop_order_id)
    if before is None:
        yield "order.received", {}
    for kind, told, then in (("order.paid", after.paid, was.paid), ("order.confirmed", after.confirmed, was.confirmed)):
        if told.value and not then.value:
            yield kind, {}
    if was.paid.value and not after.paid.value:
        yield "order.unpaid", {}
    had = {each.line_id: each for each in was.entitlements}
    new = (each for each in after.entitlements if each.line_id not in had)
    for each in new:
        yield "order.granted", {"line.id": each.line_id, "line.title": each.title, "plan": each.plan or ""}
    yield from _moved(was, after)
    ends = [(had[each.line_id].ends_at, each.ends_at) for each in after.entitlements if each.line_id in had]
    if was.ends_at.at != after.ends_at.at:
        ends.append((was.ends_at.value, after.ends_at.value))
    if was.erased_at != after.erased_at:
        yield "order.erased", {}
    if any(now is None or now > then for then, now in ends if then is not None and now != then):
        yield "order.renewed", {}
    elif any(then != now for then, now in ends):
        yield "order.shortened", {}


def _moved(was: Order, after: Order) -> Iterator[tuple[str, dict[str, str]]]:
    """The lines that were taken back, or given back; of a line that is new nothing was said before."""
    known = {line.line_id: line for line in was.lines.value}
    for name, line in {**known, **{line.line_id: line for line in after.lines.value}}.items():
        before, now = was.taken_back(name) if name in known else "", after.taken_back(name)
        if now and now != before:
            yield f"order.{now}", {"line.id": name, "line.title": line.title}
        elif before and not now:
            yield "order.restored", {"line.id": name, "line.title": line.title}


def _parts(order: Order, link: IssuedLink, issuer: str) -> Iterator[IssuedLink]:
    """The link, or several with some of its files each, so that every token fits."""
    if len(link.files) > 1 and _length(order, link, issuer) > TOKEN_MAX:
        half = len(link.files) // 2
        yield from _parts(order, replace(link, files=link.files[:half]), issuer)
        yield from _parts(order, replace(link, files=link.files[half:]), issuer)
    else:
        yield link


def _length(order: Order, link: IssuedLink, issuer: str) -> int:
    """An upper bound of the token's length in characters, before it has its id."""
    claims = write_claims(claims_of(order, replace(link, token_id="x" * 32), issuer))
    return len(json.dumps(claims)) * 4 // 3 + _TOKEN_OVERHEAD
