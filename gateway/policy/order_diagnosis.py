"""Why an order's buyer has no files, as far as the order itself says: what was paid, taken back, given and mailed."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from gateway.policy.diagnosis import Finding
from gateway.policy.events import rfc3339
from gateway.policy.orders import Line, Order, Said
from gateway.policy.products import Catalogue


@dataclass(frozen=True, slots=True)
class MailNow:
    """One mail of the order: its state as in the order book, tries so far, and the server's last word."""

    state: str
    attempts: int
    answer: str
    at: int
    """When it was made (Unix ms)."""


def order_findings(
    order: Order,
    mails: Sequence[MailNow],
    catalogue: Catalogue | None,
    *,
    needs_confirmation: bool,
    used: bool,
    now: float,
    guests: Collection[str] = (),
) -> list[Finding]:
    """What the order itself has to say, most important first. `catalogue` is None where it cannot be
    read; `used`: whether any link of it was ever opened or downloaded with; `now` in Unix seconds; `guests`: what the
    plans of its links ask (see Plan.guests).
    """
    if not order.is_paid(needs_confirmation=needs_confirmation):
        return [_unpaid(order)]
    given = [] if catalogue is None else _ungranted(order, catalogue)
    found = [*_taken_back(order), *given, *_lapsed(order, now)]
    if not order.holding(needs_confirmation=needs_confirmation).until and order.entitlements:
        return found  # what was mailed explains nothing where nothing is the buyer's any more
    return [*found, *_of_guests(order, guests), *_mailed(order, mails, used=used)]


def _unpaid(order: Order) -> Finding:
    facts = {"order.id": order.order_id, "reason": "order.unpaid"}
    if order.paid.value:
        said = f"the order is paid since {_at(order.paid)}, and the shop has not confirmed it, so nothing was sent"
        return Finding("buyer", True, said, "confirm the order in the shop: it is sent by itself then", facts)
    known = f"the shop said so at {_at(order.paid)}" if order.paid.at >= 0 else "the shop has not said that it is"
    said = f"the order is not paid ({known}), so nothing was sent"
    return Finding("buyer", True, said, "see the payment in the shop: when it is paid, it is sent by itself", facts)


def _taken_back(order: Order) -> Iterator[Finding]:
    told = {line.line_id for line in order.lines.value}
    removed = [Line(each.line_id, title=each.title) for each in order.entitlements if each.line_id not in told]
    for line in (*order.lines.value, *removed):
        why = order.taken_back(line.line_id)
        if why:
            words = {
                "refunded": "was refunded",
                "cancelled": "was cancelled",
                "removed": "was taken out of the order by the shop",
                "charged_back": "was charged back by the buyer's bank",
                "withdrawn": "was taken back here",
            }
            todo = f"if that was a mistake: `gateway order restore {shlex.quote(order.order_id)}"
            todo += f" --line {shlex.quote(line.line_id)}` makes the same links work again"
            facts = {"order.id": order.order_id, "line.id": line.line_id, "reason": f"order.{why}"}
            yield Finding("rule", True, f"{_named(line)} {words[why]}, so its files are not given", todo, facts)


def _ungranted(order: Order, catalogue: Catalogue) -> Iterator[Finding]:
    granted = {each.line_id for each in order.entitlements}
    open_lines = [line for line in order.lines.value if line.line_id not in granted]
    missing = [line for line in open_lines if not order.taken_back(line.line_id)]
    known = [line for line in missing if catalogue.find(line) is not None]
    if not known and (granted or (order.lines.value and not missing)):
        return  # what else was sold is no download, or was taken back
    names = ", ".join(_named(line) for line in known or missing) or "no line"
    facts = {"order.id": order.order_id, "reason": "order.nothing"}
    again = f"`gateway order grant {shlex.quote(order.order_id)}` then gives and mails them"
    if known:
        said = f"the order is paid, and what it has of these was not in the products file then: {names}"
        yield Finding("rule", True, said, f"they are there now: {again}", facts)
    else:
        said = f"the order is paid, and none of its lines is in the products file ({names})"
        yield Finding("rule", True, said, f"add them to the products file, with these very names; {again}", facts)


def _lapsed(order: Order, now: float) -> Iterator[Finding]:
    for each in order.entitlements:
        ends = order.lapses_at(each)
        if ends is not None and ends <= now and not order.taken_back(each.line_id):
            said = f"{each.title or each.line_id} was the buyer's until {rfc3339(ends * 1000)[:19]}Z"
            facts = {"order.id": order.order_id, "line.id": each.line_id, "reason": "token.expired"}
            yield Finding(
                "rule",
                True,
                said,
                "when the shop says that it was renewed, the links work again or new ones are mailed",
                facts,
            )


def _of_guests(order: Order, guests: Collection[str]) -> Iterator[Finding]:
    """What its links ask of guests and this order cannot give."""
    if "bind_ip" in guests and not order.address.value:
        said = "its plan gives files only in the network that was ordered from, and the shop has not told which that is"
        todo = "take `bind_ip: order` out of the plan, or `gateway link create` makes a link of another plan"
        yield Finding("rule", True, f"{said}, so everybody is refused", todo, {**_id(order), "reason": "token.ip"})
    if "new_device" in guests and not order.email:
        said = "its plan asks a new device for a code, and the order has no e-mail address that one could be sent to"
        todo = f"`gateway order resend {shlex.quote(order.order_id)} --to ADDRESS` gives it one"
        yield Finding("rule", True, said, todo, {**_id(order), "reason": "device.code"})


def _id(order: Order) -> dict[str, str]:
    return {"order.id": order.order_id}


def _mailed(order: Order, mails: Sequence[MailNow], *, used: bool) -> Iterator[Finding]:
    facts = {"order.id": order.order_id}
    resend = f"`gateway order resend {shlex.quote(order.order_id)} --to ADDRESS` sends it to the right one"
    if not order.links:
        return
    if not mails:
        if order.email:
            said = "links were made and not mailed: the settings had no mail server"
            yield Finding("mail", True, said, "set mail, and write " + resend.partition(" --to")[0] + "`", facts)
        else:
            yield Finding("mail", True, "the shop told no e-mail address, so nothing was mailed", resend, facts)
        return
    last = mails[-1]
    when = rfc3339(last.at)[:19] + "Z"
    tries = f"{last.attempts} tr{'y' if last.attempts == 1 else 'ies'}"
    match last.state:
        case "bounced":
            yield Finding("mail", True, f"the mail of {when} came back: {last.answer}", resend, facts)
        case "failed":
            yield Finding("mail", True, f"the mail of {when} was given up after {tries}: {last.answer}", resend, facts)
        case "queued" if last.attempts:
            said = f"the mail of {when} is still to be sent, after {tries}: {last.answer}"
            yield Finding("mail", True, said, "see the mail server; it is tried again by itself", facts)
        case "queued":
            said = f"the mail of {when} waits to be sent"
            yield Finding("mail", True, said, "see that `gateway serve` or `gateway worker` runs", facts)
        case _ if used:
            yield Finding(None, False, f"the mail of {when} was taken by the mail server", "", facts)
        case _:
            said = f"the mail of {when} was taken by the mail server, and its links were never opened"
            yield Finding("mail", True, said, f"ask the buyer to look among the spam; {resend}", facts)


def _named(line: Line) -> str:
    name = line.sku or line.variant_id or line.product_id or line.line_id
    return f"{line.title} ({name})" if line.title else name


def _at(said: Said) -> str:
    return f"{rfc3339(said.since)[:19]}Z" if said.since >= 0 else "an unknown time"
