"""The checks of `gateway doctor` for shops: products, order book, mail server. Nothing is written or sent."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Awaitable, Callable
from pathlib import Path

from gateway.backends.smtp import SmtpPostman
from gateway.bootstrap.files import read_products, read_rules
from gateway.bootstrap.orders import open_book
from gateway.policy.checkup import Check, Line
from gateway.services.checkup import PATIENCE, Report
from gateway.settings import Settings
from gateway.settings_sections import OrdersSettings


def order_checks(settings: Settings) -> dict[Check, Callable[[Report], Awaitable[None]]]:
    """What is to be looked at with these settings."""
    found: dict[Check, Callable[[Report], Awaitable[None]]] = {}
    if settings.has_orders:
        # Before the checks begin: it takes a second, in which the others would get no answer.
        importlib.import_module("gateway.backends.order_book")
        found = {"products": _Orders(settings).products, "orders": _Orders(settings).book}
    if settings.has_orders or settings.mail is not None:
        found["mail"] = _Orders(settings).mail
    return found


class _Orders:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def products(self, report: Report) -> None:
        if self._settings.products is None:
            report(Line("warn", "products", "is not set, so orders give nothing; write products: products.yaml"))
            return
        rules = await asyncio.to_thread(read_rules, self._settings)
        catalogue = await asyncio.to_thread(read_products, self._settings, rules)
        closed = sum(product.account for product in catalogue.products)
        if closed and self._settings.accounts is None:
            said = f"{closed} of {len(catalogue.products)} with account: true, which opens for nobody without accounts"
            report(Line("warn", "products", f"{said}; set accounts, or take it out"))
        else:
            report(Line("ok", "products", f"{len(catalogue.products)} can be sold (version {catalogue.version})"))

    async def book(self, report: Report) -> None:
        url = (self._settings.orders or OrdersSettings()).url.get_secret_value()
        file = Path(url.removeprefix("sqlite:///"))
        if url.startswith("sqlite:") and not await asyncio.to_thread(file.exists):
            report(Line("ok", "orders", f"{file} is not there yet; the gateway makes it at its start"))
            return
        async with open_book(self._settings, at_once=False) as book:
            count = await book.latest()
        report(Line("ok", "orders", f"the order book answers, after {count} changes of orders"))

    async def mail(self, report: Report) -> None:
        section = self._settings.mail
        if section is None:
            report(Line("warn", "mail", "is not set, so no buyer is sent anything; write mail: {server: smtp://…}"))
        elif isinstance(section.server, Path):
            report(Line("warn", "mail", f"is only put into {section.server}; write mail.server: smtp://… to send it"))
        else:
            wrong = await SmtpPostman(section, seconds=PATIENCE - 1).look()
            where = f"{section.server.host}:{section.server.port}"
            if wrong:
                report(
                    Line(
                        "FAIL",
                        "mail",
                        f"{where} cannot be used: {wrong}; see mail.server, mail.user and its certificate",
                    )
                )
            else:
                login = "" if section.user is None else ", and takes our login"
                report(Line("ok", "mail", f"{where} answers{login}"))
