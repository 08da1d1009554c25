"""One-time codes, by which a new device shows that it can read the mail of the order.

Law: a code is nowhere in clear but in its mail. It follows from the mail's id and the secret that all gateways share,
so whoever composes the mail makes it again; what is kept is a hash, which is good for one device and one token.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import re
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from gateway.errors import LedgerDown, OrdersDown
from gateway.policy.device import confirmed_cookie, identify
from gateway.policy.model import Claims, DownloadRequest
from gateway.policy.shards import shard_of
from gateway.ports import CodeStore
from gateway.services.faults import describe

log = logging.getLogger(__name__)

QUEUE_MAX = 64
"""Mails of codes that one worker may be queueing at once."""
Send = Callable[[str, str], Awaitable[None]]
"""Queues the mail with a code, of an order's id and a mail's. Raises OrdersDown."""
_DIGITS = 6
_ID_BYTES = 12
_BLANKS = re.compile(r"[\s-]+")


@dataclass(frozen=True, slots=True)
class Entered:
    """What came of a code. `cookie`: what the device shows from now on; `left`: tries with the same code."""

    verdict: Literal["right", "wrong", "none"]
    cookie: str = ""
    left: int = 0


class Codes:
    """One per worker. `send` is None where no mails are sent."""

    def __init__(self, store: CodeStore, shards: int, send: Send | None) -> None:
        self._store = store
        self._shards = shards
        self._send = send
        self._secret = b""
        self._tasks: set[asyncio.Task[None]] = set()

    def agreed(self, secret: str) -> None:
        """The secret that all gateways share, or "": before it is known, no code is made or taken."""
        self._secret = secret.encode()

    def may_be_sent(self, claims: Claims) -> bool:
        """Whether there is any mail that a code of this token could go to; who asks learns nothing of the order."""
        return self._send is not None and claims.order_id is not None

    async def ask(self, claims: Claims, request: DownloadRequest) -> bool:
        """Make a code for the device and have it mailed, behind the answer; False where there were too many.

        It takes as long where the order has no address. Raises LedgerDown.
        """
        self._check()
        mail_id = secrets.token_hex(_ID_BYTES)
        device = self._device(request)
        hashed = self._hashed(claims, device, self.code_of(mail_id))
        if not await self._store.put(shard_of(claims.shard_key, self._shards), claims.token_key, device, hashed):
            return False
        if self._send is not None and claims.order_id is not None:
            self._queue(self._send, claims.order_id, mail_id)
        return True

    async def enter(self, claims: Claims, request: DownloadRequest, written: str) -> Entered:
        """Try a code. Raises LedgerDown."""
        self._check()
        shard, device = shard_of(claims.shard_key, self._shards), self._device(request)
        found = None
        if request.device_cookie is not None:
            found = await self._store.take_try(shard, claims.token_key, device)
        if found is None:
            return Entered("none")
        kept, left = found
        hashed = self._hashed(claims, device, _BLANKS.sub("", written))
        if not hmac.compare_digest(kept.encode(), hashed.encode()):
            return Entered("wrong", left=left)
        if not await self._store.spend(shard, claims.token_key, device, kept):
            return Entered("none")
        return Entered("right", confirmed_cookie(request, claims, self._secret))

    def code_of(self, mail_id: str) -> str:
        """The code in the mail of this id. Raises LedgerDown where the secret is not known yet."""
        self._check()
        number = int.from_bytes(self._digest("mailed", mail_id)[:8])
        return f"{number % 10**_DIGITS:0{_DIGITS}}"

    async def drain(self) -> None:
        """Wait until every mail that was asked for is queued, or could not be."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _queue(self, send: Send, order_id: str, mail_id: str) -> None:
        if len(self._tasks) >= QUEUE_MAX:
            log.warning("a code for order %s is not mailed: too many are waited for", order_id)
            return
        task = asyncio.create_task(_queued(send, order_id, mail_id))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _check(self) -> None:
        if not self._secret:
            raise LedgerDown("the secret that all gateways share is not known yet")

    def _device(self, request: DownloadRequest) -> str:
        return identify(request, self._secret).cookie or ""

    def _hashed(self, claims: Claims, device: str, code: str) -> str:
        return self._digest("code", claims.token_key, device, code).hex()

    def _digest(self, *parts: str) -> bytes:
        return hmac.digest(self._secret, "\x00".join(parts).encode("utf-8", "surrogatepass"), hashlib.sha256)


async def _queued(send: Send, order_id: str, mail_id: str) -> None:
    try:
        await send(order_id, mail_id)
    except OrdersDown as error:
        log.warning("a code for order %s is not mailed, and can be asked for again: %s", order_id, describe(error))
