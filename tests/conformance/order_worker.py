"""A process of its own at an order book: `order_worker.py URL add HOW_MANY` or `order_worker.py URL hang`."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace

from gateway.backends.order_book import SqlOrderBook
from gateway.policy.orders import Order, Refund

ORDER_ID = "main-1"


async def add(book: SqlOrderBook) -> None:
    """One refund more, and an event that says which it is."""
    async with book.change(ORDER_ID) as draft:
        order = draft.order or Order(ORDER_ID, "main", "1")
        number = len(order.refunds) + 1
        draft.order = replace(order, refunds=(*order.refunds, (Refund(str(number)), number)))
        draft.events.append({"id": str(number)})


async def hang(book: SqlOrderBook) -> None:
    """Stop in the middle of a change, and wait to be killed."""
    async with book.change(ORDER_ID) as draft:
        draft.order = Order(ORDER_ID, "main", "1", reference="half")
        draft.events.append({"id": "half"})
        print("in the middle", flush=True)
        sys.stdin.read()


async def main(url: str, what: str, how_many: int = 1) -> None:
    book = SqlOrderBook(url)
    await book.open()
    if what == "hang":
        await hang(book)
    else:
        await asyncio.gather(*(add(book) for _ in range(how_many)))
    await book.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3], *map(int, sys.argv[3:])))
