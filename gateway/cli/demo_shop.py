"""The tour's shop: its webhooks, its buyer's mailbox, and what becomes of the links in there."""

from __future__ import annotations

import asyncio
import email
import email.policy
import mailbox
import re
import secrets
import time
from contextlib import AsyncExitStack
from email.message import EmailMessage
from http import HTTPStatus

import aiohttp

from gateway.cli.demo_files import BOOK
from gateway.cli.demo_stage import SHOP, SKU, Stage
from gateway.cli.demo_steps import Wrong, expect
from gateway.shops.samples import Wanted, Webhook, sample

MAILED_WITHIN, REFUSED_WITHIN = 10.0, 5.0
QUIET = 1.0
"""Seconds in which a mail that must not come would have come."""
ORDER, UNPAID_ORDER = "20001", "20002"
_LOOK = 0.1
_MINUTE = 60_000
_FILE = re.compile(r"https?://\S+/d/\S+")
_SCANNER = {"X-Forwarded-For": "192.0.2.44"}
_CLICK = {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-User": "?1"}
"""What browsers send where somebody presses a button of the page."""


class ShopTour:
    """Steps of one order, in their sequence."""

    def __init__(self, stage: Stage, stack: AsyncExitStack) -> None:
        self._stage = stage
        self._stack = stack
        self._session: aiohttp.ClientSession | None = None
        self._paid: Webhook | None = None
        self._file = ""

    async def paid(self) -> None:
        """A webhook, a mail, a scanner of mails that nobody pays for, a download."""
        self._paid = self._webhook(ORDER, ago=3 * _MINUTE)
        await self._tell(self._paid)
        (message,) = await self._mails(1)
        body = message.get_body(("plain",))
        found = _FILE.search(str(body.get_content())) if isinstance(body, EmailMessage) else None
        if found is None:
            raise Wrong("the mail has no link")
        self._file = found[0]
        size = (self._stage.files / BOOK).stat().st_size
        for headers in (_SCANNER, _CLICK):
            async with (await self._client()).get(self._file, headers=headers) as answer:
                expect(answer, 200)
                if len(await answer.read()) != size:
                    raise Wrong("the link is not the book's")

    async def paid_again(self) -> None:
        """The same delivery, and the same said in another one."""
        if self._paid is None:
            raise Wrong("there is no order")
        await self._tell(self._paid)
        await self._tell(self._webhook(ORDER, ago=3 * _MINUTE))
        await asyncio.sleep(QUIET)
        await self._mails(1)

    async def unpaid(self) -> None:
        """No mail."""
        await self._tell(self._webhook(UNPAID_ORDER, paid=False))
        await asyncio.sleep(QUIET)
        await self._mails(1)

    async def refunded(self) -> None:
        """The link is refused soon."""
        await self._tell(self._webhook(ORDER, ago=_MINUTE, refund=True))
        client, until = await self._client(), time.monotonic() + REFUSED_WITHIN
        while True:
            # HEAD counts nothing, however often it is asked.
            async with client.head(self._file) as answer:
                if answer.status != HTTPStatus.OK or time.monotonic() > until:
                    return expect(answer, HTTPStatus.GONE)
            await asyncio.sleep(_LOOK)

    def _webhook(self, order: str, *, ago: int = _MINUTE, paid: bool = True, refund: bool = False) -> Webhook:
        at = int(time.time() * 1000) - ago
        wanted = Wanted(order, at, secrets.token_hex(8), SKU, "ada@example.com", paid=paid, refund=refund)
        (shop,) = self._stage.settings.shops
        return sample(shop.kind, wanted, shop.secrets[0].get_secret_value().encode())

    async def _tell(self, webhook: Webhook) -> None:
        address = f"{self._stage.settings.base_url}/hooks/{SHOP}"
        async with (await self._client()).post(address, data=webhook.body, headers=dict(webhook.headers)) as answer:
            expect(answer, 200)

    async def _mails(self, count: int) -> list[EmailMessage]:
        until = time.monotonic() + MAILED_WITHIN
        while True:
            found = await asyncio.to_thread(self._box)
            if len(found) >= count or time.monotonic() > until:
                break
            await asyncio.sleep(_LOOK)
        if len(found) != count:
            raise Wrong(f"there are {len(found)} mails and not {count}")
        return found

    def _box(self) -> list[EmailMessage]:
        # The folder's last room is made last: with it there, the folder is one.
        if not (self._stage.mails / "cur").exists():
            return []
        box = mailbox.Maildir(self._stage.mails)
        return [email.message_from_bytes(box.get_bytes(key), policy=email.policy.default) for key in box.iterkeys()]

    async def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            headers = {"User-Agent": "curl/8.5.0", "X-Forwarded-For": "198.51.100.7"}
            self._session = await self._stack.enter_async_context(aiohttp.ClientSession(headers=headers))
        return self._session
