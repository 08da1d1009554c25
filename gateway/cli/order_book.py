"""What the order book says of an order, for `gateway order show` and `why`."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.output import read_settings
from gateway.errors import SettingsError
from gateway.policy.events import rfc3339
from gateway.policy.order_diagnosis import MailNow, order_findings
from gateway.services.order_desk import order_meant

if TYPE_CHECKING:
    from gateway.order_ports import Mail
    from gateway.policy.diagnosis import Finding
    from gateway.policy.orders import Order
    from gateway.policy.products import Catalogue
    from gateway.policy.ruleset import RuleSet
    from gateway.services.shelf import Changed


@dataclass(frozen=True, slots=True)
class Entry:
    """One order of the book, its mails, what the products file says today, and which of its files are others now."""

    order: Order
    mails: Sequence[Mail]
    catalogue: Catalogue | None
    changed: Sequence[Changed]
    needs_confirmation: bool
    guests: Collection[str]

    def findings(self, now: float, *, used: bool) -> list[Finding]:
        """See policy.order_diagnosis. `now` in Unix seconds."""
        mails = [
            MailNow(mail.state, mail.attempts, mail.answer, mail.created_at)
            for mail in self.mails
            if mail.purpose == "links"
        ]
        return order_findings(
            self.order,
            mails,
            self.catalogue,
            needs_confirmation=self.needs_confirmation,
            used=used,
            now=now,
            guests=self.guests,
        )

    def lines(self) -> Iterator[str]:
        """For people: what was ordered, and whether it is the buyer's."""
        order = self.order
        state = "paid" if order.paid.value else "not paid"
        if order.paid.value and self.needs_confirmation and not order.confirmed.value:
            state = "paid, not confirmed"
        yield f"{order.reference or order.shop_order_id} at {order.shop}: {state}"
        granted = {each.line_id: each for each in order.entitlements}
        for line in order.lines.value:
            name = " ".join(part for part in (line.sku, line.title) if part) or line.line_id
            yield f"  line {line.line_id}: {line.quantity} × {name}: {self._state(line.line_id, granted)}"
        for each in self.changed:
            yield f"  {each.sold.file.recorded}: {each.state} in the bucket since it was sold"
        for mail in self.mails:
            what = "mail" if mail.purpose == "links" else f"mail with a {mail.purpose}"
            yield f"  {what} of {rfc3339(mail.created_at)[:19]}Z: {mail.state} {mail.answer}".rstrip()

    def _state(self, line_id: str, granted: Container[str]) -> str:
        taken = self.order.taken_back(line_id).replace("_", " ")
        if taken:
            return taken
        if line_id in granted:
            return "the buyer's"
        due = self.order.is_paid(needs_confirmation=self.needs_confirmation)
        return "nothing to download" if due else "waits for the payment"

    def document(self) -> dict[str, object]:
        """For programs."""
        order = self.order
        return {
            "shop": order.shop,
            "reference": order.reference,
            "paid": order.paid.value,
            "confirmed": order.confirmed.value,
            "lines": [
                {
                    "id": line.line_id,
                    "sku": line.sku,
                    "title": line.title,
                    "quantity": line.quantity,
                    "taken_back": order.taken_back(line.line_id),
                    "files": [
                        sold.file.recorded
                        for each in order.entitlements
                        if each.line_id == line.line_id
                        for sold in each.files
                    ],
                }
                for line in order.lines.value
            ],
            "mails": [
                {
                    "id": mail.mail_id,
                    "purpose": mail.purpose,
                    "state": mail.state,
                    "attempts": mail.attempts,
                    "answer": mail.answer,
                }
                for mail in self.mails
            ],
            "changed_files": [{"file": each.sold.file.recorded, "state": each.state} for each in self.changed],
        }


def guests_of(order: Order, rules: RuleSet) -> set[str]:
    """What the plans of its links ask of guests."""
    plans = (rules.plans.get(link.plan or rules.default_plan or "") for link in order.links)
    return {name for plan in plans if plan is not None for name in plan.guests}


def book_entry(config: Path | None, name: str) -> Entry | None:
    """The order of this id, number or address; None where there is no order book, or it is in none.

    Raises GatewayError where several are meant, SettingsError, OrdersDown.
    """
    settings = read_settings(config)
    if not settings.has_orders:
        return None
    from gateway.bootstrap.files import read_products, read_rules  # noqa: PLC0415  only where there are orders
    from gateway.bootstrap.orders import open_book  # noqa: PLC0415  likewise
    from gateway.bootstrap.origin import open_store  # noqa: PLC0415  likewise
    from gateway.services import shelf  # noqa: PLC0415  likewise

    async def look() -> Entry | None:
        async with open_book(settings) as book:
            order = await order_meant(book, name)
            if order is None:
                return None
            store = open_store(settings)
            try:
                changed = await shelf.look(order, store)
            finally:
                await store.close()
            confirmed = any(shop.name == order.shop and shop.require_confirmation for shop in settings.shops)
            guests: set[str] = set()
            try:
                rules = read_rules(settings)
                guests = guests_of(order, rules)
                catalogue = read_products(settings, rules)
            except SettingsError as error:
                # The gateway goes on with its last good files; support must see the order just then, too.
                click.echo(f"Note: products and rules cannot be read: {str(error).splitlines()[0]}", err=True)
                catalogue = None
            return Entry(order, await book.mails(order.order_id), catalogue, changed, confirmed, guests)

    return asyncio.run(look())
