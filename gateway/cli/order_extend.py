"""`gateway order extend`: what an order gives, and its links, last longer."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from gateway.cli.link_orders import expiry, until_option
from gateway.cli.named import staff_name
from gateway.cli.options import config_option, duration
from gateway.cli.output import print_line, read_settings, utc
from gateway.errors import SettingsError
from gateway.services.order_desk import order_named
from gateway.services.staff import acted


@click.command(epilog="Example: gateway order extend main-10001 --until 2027-01-31")
@click.argument("name", metavar="ORDER")
@click.option("--expires", callback=duration, help="How long it is to last from now, like 30d.")
@click.option("--until", callback=until_option, help="Until when: a date (its end, in UTC), or a time with its offset.")
@config_option
def extend(name: str, expires: int | None, until: int | None, config: Path | None) -> None:
    """Let what an order gives, and its links, last until then at least; what has lapsed works again."""
    from gateway.bootstrap.desk import open_office  # noqa: PLC0415  `gateway --help` needs none of it

    expires_at = expiry(expires, until)
    settings = read_settings(config)

    async def run() -> str:
        async with open_office(settings) as office:
            if office.orders is None:
                raise SettingsError("orders: is not set, so there is no order book; see docs/orders.md")
            order = await order_named(office.orders.book, name)
            event = acted(staff_name(), "order.extend", order_id=order.order_id)
            return (await office.orders.extend(order, expires_at, event, office.links)).order_id

    print_line(f"what order {asyncio.run(run())} gives lasts until {utc(expires_at)} at least, and so do its links")
