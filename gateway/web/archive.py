"""The answer to a request for a link's ZIP: plan, first file, head, body; whatever happens in between is settled."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from aiohttp import web

from gateway.errors import ClientGone, FileMissing, OriginChanged, OriginError
from gateway.policy.model import Deny, DownloadRequest
from gateway.policy.reasons import Reason
from gateway.services.broken import reason_of
from gateway.services.delivery import Cut
from gateway.services.gatekeeper import Refused
from gateway.services.identifiers import new_id
from gateway.services.zipping import ZipDelivery, Zipping, ZipPlan
from gateway.transfer.choose import open_channel
from gateway.web.status import WorkerStatus

log = logging.getLogger(__name__)

NOT_MODIFIED = 304


class ArchiveAnswer:
    """Answers for ZIPs. `refuse` makes a refusal's answer; `device` gives the header that names the device."""

    def __init__(
        self,
        zipping: Zipping,
        status: WorkerStatus,
        *,
        refuse: Callable[[web.Request, str, Deny], web.Response],
        device: Callable[[DownloadRequest], dict[str, str]],
    ) -> None:
        self._zipping = zipping
        self._status = status
        self._refuse = refuse
        self._device = device

    async def answer(
        self, request: web.Request, asked: DownloadRequest, planned: Callable[[], None]
    ) -> web.StreamResponse:
        """The ZIP, or why not; `planned` is called once it is decided which."""
        answered = await self._answer(request, asked, planned)
        if answered is None:
            # A file was replaced after it was looked up: once more, under a request id that nothing was charged to.
            asked = replace(asked, request_id=new_id())
            answered = await self._answer(request, asked, planned)
        return self._refuse(request, asked.request_id, Deny(Reason.ORIGIN_CHANGED)) if answered is None else answered

    async def _answer(
        self, request: web.Request, asked: DownloadRequest, planned: Callable[[], None]
    ) -> web.StreamResponse | None:
        plan = await self._zipping.plan(asked)
        planned()
        if isinstance(plan, Refused):
            return self._refuse(request, plan.request_id, plan.deny)
        response = web.StreamResponse(status=plan.status, headers=self._headers(plan))
        if plan.status != NOT_MODIFIED:
            response.content_length = plan.length
        if not plan.pieces:
            return response
        delivery = ZipDelivery(self._zipping, plan)
        try:
            refused = await delivery.begin()
        except BaseException as error:
            await self._end(delivery, error)
            if isinstance(error, OriginChanged):
                await delivery.closed()
                return None
            if isinstance(error, OriginError | FileMissing):
                log.warning("request %s was refused: %s", asked.request_id, error)
                return self._refuse(request, asked.request_id, Deny(reason_of(error)))
            raise
        if refused is not None:
            return self._refuse(request, refused.request_id, refused.deny)
        await self._send(request, response, delivery, asked)
        return response

    async def _send(
        self, request: web.Request, response: web.StreamResponse, delivery: ZipDelivery, asked: DownloadRequest
    ) -> None:
        self._status.downloads = self._zipping.settlement.live
        ended: BaseException | None = None
        try:
            await delivery.send(await open_channel(request, response))
        except (ClientGone, OriginError, FileMissing, Cut) as error:
            ended = error
            if not isinstance(error, ClientGone):
                log.warning("request %s was aborted: %s", asked.request_id, error)
        except BaseException as error:
            # Our own stop cancels like a client that leaves, but then the connection is still there.
            stopped = self._status.draining and request.transport is not None
            ended = Cut(Reason.DRAINING.text) if stopped else error
            raise
        finally:
            await self._end(delivery, ended)

    async def _end(self, delivery: ZipDelivery, error: BaseException | None) -> None:
        try:
            await delivery.end(error)
        finally:
            self._status.downloads = self._zipping.settlement.live

    def _headers(self, plan: ZipPlan) -> dict[str, str]:
        return {**plan.headers, "X-Request-Id": plan.request.request_id, **self._device(plan.request)}
