"""The calls about orders. What they change is written in one step with the event of who did it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress

from gateway.errors import GatewayError
from gateway.order_ports import Mail
from gateway.policy.orders import Order
from gateway.policy.shards import shard_of
from gateway.services.order_desk import OrderDesk
from gateway.web.api.answering import EventsAnswer, FoundOrders, OrderAnswer, found_order, order_answer
from gateway.web.api.asking import Email, Page, Resend, Search, Until, WhichLine, seconds
from gateway.web.api.call import Asked
from gateway.web.api.problems import Problem

LOOKED_AT_MAX = 20_000
"""Events of other orders that one page may go through."""
LOOK_FOR = 1.0
"""Seconds that one page may go through events."""
ANSWER_WITHIN = 2.0


async def find(asked: Asked) -> FoundOrders:
    """Orders by id, number, address or customer; who looks for a buyer by address is on record."""
    text = asked.given(Search).q
    desk = _desk(asked)
    if "@" in text:
        await asked.record()
    return FoundOrders(orders=tuple(found_order(each) for each in await desk.book.find(text)))


async def show(asked: Asked) -> OrderAnswer:
    """One order."""
    order = await _order(asked)
    return _shown(asked, order, await _desk(asked).book.mails(order.order_id))


async def events(asked: Asked) -> EventsAnswer:
    """A page of what happened to an order, known here or not."""
    page, order_id = asked.given(Page), asked.path["order_id"]
    shard = shard_of(order_id, asked.office.settings.shards)
    after = _position(page.after) if page.after else (0, -1)
    found: list[dict[str, str]] = []
    last, looked_at, began = "", 0, time.monotonic()
    async for entry_id, fields in asked.office.tools.events.scan(shard, since_ms=after[0]):
        if _position(entry_id) <= after:
            continue
        # At least one is looked at, so whoever asks again and again comes to the end.
        is_late = looked_at > 0 and time.monotonic() - began > LOOK_FOR
        if is_late or len(found) == page.limit or looked_at == LOOKED_AT_MAX:
            return EventsAnswer(events=tuple(found), next=last)
        looked_at += 1
        last = entry_id
        if fields.get("order.id") == order_id:
            found.append(fields)
    return EventsAnswer(events=tuple(found), next=None)


async def revoke(asked: Asked) -> OrderAnswer:
    """Take it, or a line of it, back."""
    order = await _order(asked)
    line = asked.given(WhichLine).line
    return await _told(asked, await _desk(asked).take_back(order, line, asked.acted(order_id=order.order_id)))


async def restore(asked: Asked) -> OrderAnswer:
    """Give it, or a line of it, back."""
    order = await _order(asked)
    line = asked.given(WhichLine).line
    return await _told(asked, await _desk(asked).give_back(order, line, asked.acted(order_id=order.order_id)))


async def resend(asked: Asked) -> OrderAnswer:
    """Mail its links again."""
    order, body = await _order(asked), asked.given(Resend)
    acted = asked.acted(order_id=order.order_id)
    return await _told(asked, await _desk(asked).resend(order, body.to, acted, new_links=body.new_links))


async def grant(asked: Asked) -> OrderAnswer:
    """Give it what the products file knows only now."""
    order = await _order(asked)
    return await _told(asked, await _desk(asked).grant(order, asked.acted(order_id=order.order_id)))


async def erase(asked: Asked) -> OrderAnswer:
    """Forget its buyer's personal data."""
    order = await _order(asked)
    return await _told(asked, await _desk(asked).erase(order, asked.acted(order_id=order.order_id)))


async def extend(asked: Asked) -> OrderAnswer:
    """Let what it gives last longer."""
    order, until = await _order(asked), seconds(asked.given(Until).until)
    acted = asked.acted(order_id=order.order_id)
    return await _told(asked, await _desk(asked).extend(order, until, acted, asked.office.links))


async def email(asked: Asked) -> OrderAnswer:
    """Correct the buyer's address."""
    order = await _order(asked)
    acted = asked.acted(order_id=order.order_id)
    return await _told(asked, await _desk(asked).correct(order, asked.given(Email).email, acted))


def _desk(asked: Asked) -> OrderDesk:
    if asked.office.orders is None:
        raise Problem(404, "orders.off", "This gateway keeps no orders; the setting orders or shops turns that on.")
    return asked.office.orders


async def _order(asked: Asked) -> Order:
    """The order of the path; a book that does not answer is given up early, while nothing has been changed."""
    async with asyncio.timeout(ANSWER_WITHIN):
        order = await _desk(asked).book.read(asked.path["order_id"])
    if order is None:
        raise Problem(404, "order.unknown", "The order book has no such order; GET /api/v1/orders?q= finds it.")
    return order


async def _told(asked: Asked, order: Order) -> OrderAnswer:
    """The order after it was changed. That is done, and would be done twice if anything failed here."""
    mails: Sequence[Mail] | None = None
    with suppress(GatewayError, TimeoutError):
        async with asyncio.timeout(ANSWER_WITHIN):
            mails = await _desk(asked).book.mails(order.order_id)
    return _shown(asked, order, mails)


def _shown(asked: Asked, order: Order, mails: Sequence[Mail] | None) -> OrderAnswer:
    shops = asked.office.settings.shops
    needs_confirmation = any(shop.name == order.shop and shop.require_confirmation for shop in shops)
    return order_answer(order, mails, needs_confirmation=needs_confirmation)


def _position(entry_id: str) -> tuple[int, int]:
    milliseconds, _, number = entry_id.partition("-")
    return int(milliseconds), int(number)
