"""A body on its way to its client, whatever it is made of: sent, ended exactly once, and counted among those that run.

A body that cannot be completed is aborted, never ended politely.
"""

from __future__ import annotations

import logging
from typing import Protocol

from aiohttp import web

from gateway.errors import ClientGone, FileMissing, OriginError
from gateway.front.plain import Answer
from gateway.policy.reasons import Reason
from gateway.services.settlement import Settlement
from gateway.services.windows import Cut
from gateway.transfer.channel import Channel
from gateway.transfer.choose import open_channel
from gateway.web.status import WorkerStatus

log = logging.getLogger(__name__)


def respond(answer: Answer) -> web.StreamResponse:
    """A complete answer, as aiohttp sends it."""
    if answer.body:
        return web.Response(status=answer.status, headers=answer.headers, body=answer.body)
    # aiohttp's Response would say a length of 0, whatever it is.
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    if answer.length is not None:
        response.content_length = answer.length
    return response


class Sent(Protocol):
    """A delivery that has begun."""

    async def send(self, channel: Channel) -> None:
        """All of it. Raises ClientGone, OriginError, FileMissing, Cut."""

    async def end(self, error: BaseException | None) -> None:
        """It ended in this way. Call it once."""


class Sending:
    """What every answer with a body does. `status` is told how many are running."""

    def __init__(self, status: WorkerStatus, settlement: Settlement) -> None:
        self._status = status
        self._settlement = settlement

    async def send(self, request: web.Request, response: web.StreamResponse, delivery: Sent, request_id: str) -> None:
        """The whole body, and its end. Raises what is no fault of client, store or limits."""
        self.note()
        ended: BaseException | None = None
        try:
            await delivery.send(await open_channel(request, response))
        except (ClientGone, OriginError, FileMissing, Cut) as error:
            ended = error
            if not isinstance(error, ClientGone):
                log.warning("request %s was aborted: %s", request_id, error)
        except BaseException as error:
            # Our own stop cancels like a client that leaves, but then the connection is still there.
            stopped = self._status.draining and request.transport is not None
            ended = Cut(Reason.DRAINING.text) if stopped else error
            raise
        finally:
            await self.end(delivery, ended)

    async def end(self, delivery: Sent, error: BaseException | None) -> None:
        """Of a delivery that was not sent, or has been."""
        try:
            await delivery.end(error)
        finally:
            self.note()

    def note(self) -> None:
        """How many are running now."""
        self._status.downloads = self._settlement.live
