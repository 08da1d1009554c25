"""The hooks that mitmproxy calls, each named for its moment. Whatever fails in one, no byte of a file goes out for it.

mitmproxy goes on where a hook raises, and hangs where one is cancelled: so none of these ever lets an exception out.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from mitmproxy import ctx, exceptions, http

from gateway.errors import FileMissing, OriginChanged, SettingsError
from gateway.front.head import Head
from gateway.front.plain import Answer
from gateway.mitm import promises, shown, wire
from gateway.mitm.door import Answered, Door
from gateway.mitm.passing import Passing
from gateway.services.faults import describe
from gateway.services.identifiers import new_id

log = logging.getLogger(__name__)

DECIDE = 60.0
"""Seconds that a decision may take; what it asks has timeouts of its own, far below."""
LOOK_EVERY = 1.0
PATIENCE = 2.0
"""Seconds for the last words of the ledger on what was cut."""
STARTING = Answer(503, {"Cache-Control": "private, no-store", "Content-Type": "text/plain"}, b"not ready\n")


class Plugin:
    """`door` is None until there is one, and everything is refused."""

    name = "download-gateway"

    def __init__(self, door: Door | None = None, *, tls: bool | None = None) -> None:
        """`tls`: whether clients must come with TLS, or must not; None: as they like."""
        self.door = door
        self._tls = tls
        self._passing: dict[str, Passing] = {}
        self._connections: Mapping[str, Any] = {}
        self._looking: asyncio.Task[None] | None = None
        self._errands: set[asyncio.Task[None]] = set()

    def use(self, connections: Mapping[str, Any]) -> None:
        """mitmproxy's own connections, by their client's id. Call it in its loop, before anything is served."""
        self._connections = connections
        self._looking = asyncio.create_task(self._look())

    def configure(self, updated: set[str]) -> None:
        """Options have changed: those that break a promise are refused."""
        if self.door is None:
            return
        try:
            promises.check(ctx.options, updated)
        except SettingsError as error:
            raise exceptions.OptionsError(str(error)) from None

    @property
    def live(self) -> int:
        """Bodies on their way."""
        return len(self._passing)

    async def stop_all(self, reason: str) -> None:
        """Cut what runs; on return all of it is with the settlement."""
        passings = list(self._passing.values())
        for passing in passings:
            passing.stop(reason)
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*(each.settled.wait() for each in passings)), PATIENCE)

    def close(self) -> None:
        """Nothing is looked after from here on."""
        self.door = None
        if self._looking is not None:
            self._looking.cancel()

    async def requestheaders(self, flow: http.HTTPFlow) -> None:
        """A request's head has come: decide, before anybody is asked for anything."""
        request_id, line = new_id(), wire.Line(flow, self._connections)
        head: Head | None = None
        passing: Passing | None = None
        try:
            flow.metadata.pop(wire.ANSWERED, None)  # a flow that mitmweb plays again has it
            head = wire.head_of(flow)
            shown.hide(flow)
            if flow.error is not None:
                shown.tell(flow, shown.note("deny", "request.malformed"), allowed=False)
                return  # mitmproxy has refused it already
            if flow.request.is_http2 or (self._tls is not None and self._tls != flow.client_conn.tls):
                line.kill()
                return
            if self.door is None:
                wire.answer(flow, STARTING)
                return
            if (brought := wire.body_of(head)) != 0:
                answered = self.door.with_body(head, request_id)
                shown.tell(flow, answered.note, allowed=False)
                if brought is None:
                    line.say(answered.answer)  # or mitmproxy would read all of it into memory first
                else:
                    wire.answer(flow, answered.answer)
                return
            async with asyncio.timeout(DECIDE):
                decided = await self.door.answer(head, request_id)
            if isinstance(decided, Answered):
                shown.tell(flow, decided.note, allowed=decided.allowed)
                wire.answer(flow, decided.answer)
            else:
                passing = decided
                self._pass_on(flow, line, passing)
        except BaseException as error:  # noqa: BLE001  see this module's law
            log.error("request %s failed: %s", request_id, describe(error))
            if passing is not None:
                self._passing.pop(flow.id, None)
                passing.forsake()
            self._deny(flow, line, head, request_id)

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """The store's head has come: it must be of the part that was asked for, and nothing of it goes out."""
        if wire.ANSWERED in flow.metadata:
            return
        passing = self._passing.get(flow.id)
        try:
            shown.hide(flow)
            if passing is None or passing.ended or self.door is None:
                wire.Line(flow, self._connections).kill()
                return
            passing.check(wire.status_of(flow), wire.store_headers(flow))
            headers = wire.headers_of(
                Answer(
                    passing.admitted.plan.status, self.door.headers(passing.admitted), b"", passing.admitted.plan.length
                )
            )
            wire.relay(flow, passing.admitted.plan.status, headers, passing.take)
        except BaseException as error:  # noqa: BLE001  see this module's law
            self._fail(flow, passing, error)

    def response(self, flow: http.HTTPFlow) -> None:
        """All of an answer has been given to the client's connection."""
        passing = self._passing.get(flow.id)
        if passing is not None:
            self._safely(passing.finished)

    def error(self, flow: http.HTTPFlow) -> None:
        """A connection broke, the client's or the store's; before the store's head mitmproxy would say 502 itself."""
        passing = self._passing.get(flow.id)
        with suppress(Exception):
            shown.hide(flow)
        if passing is not None:
            line = wire.Line(flow, self._connections)
            self._safely(partial(passing.lost, client=line.client_gone))

    def server_connect(self, data: Any) -> None:
        """mitmproxy is about to connect: only to where a body was granted."""
        try:
            allowed = any(passing.place == tuple(data.server.address) for passing in self._passing.values())
        except BaseException:  # noqa: BLE001  see this module's law
            allowed = False
        if not allowed:
            data.server.error = "not a place that the gateway has named"

    def _pass_on(self, flow: http.HTTPFlow, line: wire.Line, passing: Passing) -> None:
        admitted = passing.admitted
        shown.tell(flow, shown.note("allow", rule=admitted.rule, claims=admitted.claims), allowed=True)
        wire.ask_for(flow, passing.remote.url, admitted.stored, passing.part)
        said = flow.comment

        def on_end(outcome: str) -> None:
            self._passing.pop(flow.id, None)
            flow.comment = f"{said} · {outcome}"

        passing.on_end = on_end
        self._passing[flow.id] = passing
        passing.begin(line)
        if passing.ended:
            line.kill()

    def _fail(self, flow: http.HTTPFlow, passing: Passing | None, error: BaseException) -> None:
        if passing is not None:
            with suppress(Exception):
                passing.fail(error)
            if isinstance(error, OriginChanged | FileMissing) and self.door is not None:
                errand = asyncio.create_task(self.door.renew_stat(passing.admitted.stored.key))
                self._errands.add(errand)
                errand.add_done_callback(self._errands.discard)
        wire.Line(flow, self._connections).kill()

    def _deny(self, flow: http.HTTPFlow, line: wire.Line, head: Head | None, request_id: str) -> None:
        """503, in our own words if there are any left."""
        try:
            shown.tell(flow, shown.note("deny", "internal"), allowed=False)
            told = STARTING if head is None or self.door is None else self.door.broken(head, request_id)
            wire.answer(flow, told)
        except BaseException:  # noqa: BLE001  see this module's law
            try:
                wire.answer(flow, STARTING)
            except BaseException:  # noqa: BLE001  see this module's law
                line.kill()

    def _safely(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  see this module's law
            log.error("a download was not ended as it should: %s", describe(error))

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY)
            now = time.monotonic()
            for passing in list(self._passing.values()):
                self._safely(partial(passing.look, now))
