"""`gateway order revoke|restore|resend|grant|erase`: what the shop's own people do with an order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.named import staff_name
from gateway.cli.options import config_option
from gateway.cli.output import print_line, read_settings
from gateway.services.order_desk import OrderDesk, order_named
from gateway.services.staff import acted

if TYPE_CHECKING:
    from gateway.order_ports import Fields
    from gateway.policy.orders import Order

Work = Callable[[OrderDesk, "Order", "Fields"], Coroutine[None, None, "Order"]]

line_option = click.option("--line", help="Only this line of the order; `gateway order show` lists them.")


@click.command(epilog="Example: gateway order revoke main-10001 --line 2")
@click.argument("name", metavar="ORDER")
@line_option
@config_option
def revoke(name: str, line: str | None, config: Path | None) -> None:
    """Take an order, or a line of it, back from its buyer; what runs is cut within 5 s. `restore` undoes it."""
    order = _changed(config, name, "order.revoke", lambda desk, order, acted: desk.take_back(order, line, acted))
    print_line(f"took back {_what(line)} of order {order.order_id}; its links are refused from now on")


@click.command(epilog="Example: gateway order restore main-10001")
@click.argument("name", metavar="ORDER")
@line_option
@config_option
def restore(name: str, line: str | None, config: Path | None) -> None:
    """Give back what was refunded, cancelled, charged back or taken back: the same links work again."""
    order = _changed(config, name, "order.restore", lambda desk, order, acted: desk.give_back(order, line, acted))
    print_line(f"gave back {_what(line)} of order {order.order_id}; the same links work again")


@click.command(epilog="Example: gateway order resend main-10001 --to buyer@example.com")
@click.argument("name", metavar="ORDER")
@click.option("--to", help="To this address, which is the order's from then on.")
@click.option("--new-links", is_flag=True, help="With new links, where the old ones have expired or are used up.")
@config_option
def resend(name: str, to: str | None, new_links: bool, config: Path | None) -> None:
    """Mail an order's links again."""

    async def work(desk: OrderDesk, order: Order, acted: Fields) -> Order:
        return await desk.resend(order, to, acted, new_links=new_links)

    order = _changed(config, name, "order.resend", work)
    print_line(f"the links of order {order.order_id} are being mailed; `gateway order show` tells when they were taken")


@click.command(epilog="Example: gateway order grant main-10001")
@click.argument("name", metavar="ORDER")
@config_option
def grant(name: str, config: Path | None) -> None:
    """Give a paid order what the products file knows only now, and mail it."""
    order = _changed(config, name, "order.grant", lambda desk, order, acted: desk.grant(order, acted))
    files = sum(len(each.files) for each in order.entitlements)
    print_line(f"order {order.order_id} has {files} file{'' if files == 1 else 's'} in {len(order.links)} links")


@click.command(epilog="Example: gateway order erase main-10001")
@click.argument("name", metavar="ORDER")
@config_option
def erase(name: str, config: Path | None) -> None:
    """Erase the buyer's e-mail, name and address from an order, for good; the links keep working, and events stay."""
    order = _changed(config, name, "order.erase", lambda desk, order, acted: desk.erase(order, acted))
    stays = "its customer id stays" if order.buyer.value.customer_id else "it had no customer id"
    print_line(
        f"erased the buyer's personal data of order {order.order_id}; {stays}, and its events stay until events.keep"
    )


def _changed(config: Path | None, name: str, action: str, work: Work) -> Order:
    from gateway.bootstrap.orders import open_desk  # noqa: PLC0415  `gateway --help` needs none of it

    settings = read_settings(config)

    async def run() -> Order:
        async with open_desk(settings) as (book, fulfilment):
            order = await order_named(book, name)
            desk = OrderDesk(book, fulfilment, mails=settings.mail is not None, issuer=settings.issuer)
            return await work(desk, order, acted(staff_name(), action, order_id=order.order_id))

    return asyncio.run(run())


def _what(line: str | None) -> str:
    return "all lines" if line is None else f"line {line}"
