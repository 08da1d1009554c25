"""The answer to a request for a link's ZIP: plan, first file, head, body; whatever happens in between is settled."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from aiohttp import web

from gateway.errors import FileMissing, OriginChanged, OriginError
from gateway.front.head import Head
from gateway.front.plain import NOT_MODIFIED, Answer
from gateway.policy.model import Deny, DownloadRequest
from gateway.policy.reasons import Reason
from gateway.services.broken import reason_of
from gateway.services.gatekeeper import Refused
from gateway.services.identifiers import new_id
from gateway.services.zipping import ZipDelivery, Zipping, ZipPlan
from gateway.web.sending import Sending

log = logging.getLogger(__name__)


class ArchiveAnswer:
    """Answers for ZIPs. `refuse` makes a refusal's answer; `device` gives the header that names the device."""

    def __init__(
        self,
        zipping: Zipping,
        sending: Sending,
        *,
        refuse: Callable[[Head, str, Deny], Answer],
        device: Callable[[DownloadRequest], dict[str, str]],
    ) -> None:
        self._zipping = zipping
        self._sending = sending
        self._refuse = refuse
        self._device = device

    async def answer(
        self, request: web.Request, head: Head, asked: DownloadRequest, planned: Callable[[], None]
    ) -> web.StreamResponse | Answer:
        """The ZIP, or why not; `planned` is called once it is decided which."""
        answered = await self._answer(request, head, asked, planned)
        if answered is None:
            # A file was replaced after it was looked up: once more, under a request id that nothing was charged to.
            asked = replace(asked, request_id=new_id())
            answered = await self._answer(request, head, asked, planned)
        return self._refuse(head, asked.request_id, Deny(Reason.ORIGIN_CHANGED)) if answered is None else answered

    async def _answer(
        self, request: web.Request, head: Head, asked: DownloadRequest, planned: Callable[[], None]
    ) -> web.StreamResponse | Answer | None:
        plan = await self._zipping.plan(asked)
        planned()
        if isinstance(plan, Refused):
            return self._refuse(head, plan.request_id, plan.deny)
        response = web.StreamResponse(status=plan.status, headers=self._headers(plan))
        if plan.status != NOT_MODIFIED:
            response.content_length = plan.length
        if not plan.pieces:
            return response
        delivery = ZipDelivery(self._zipping, plan)
        try:
            refused = await delivery.begin()
        except BaseException as error:
            await self._sending.end(delivery, error)
            if isinstance(error, OriginChanged):
                await delivery.closed()
                return None
            if isinstance(error, OriginError | FileMissing):
                log.warning("request %s was refused: %s", asked.request_id, error)
                return self._refuse(head, asked.request_id, Deny(reason_of(error)))
            raise
        if refused is not None:
            return self._refuse(head, refused.request_id, refused.deny)
        await self._sending.send(request, response, delivery, asked.request_id)
        return response

    def _headers(self, plan: ZipPlan) -> dict[str, str]:
        return {**plan.headers, "X-Request-Id": plan.request.request_id, **self._device(plan.request)}
