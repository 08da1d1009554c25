"""All files of a link as one ZIP: planned before anything is charged, sent file by file, each charged in its turn.

Each file is let in, counted and settled like a download of its own; the ZIP around them is arithmetic.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from gateway.errors import OriginChanged
from gateway.http.disposition import content_disposition
from gateway.http.preconditions import Verdict, evaluate, http_date
from gateway.http.ranges import Parts, Span, Unsatisfiable, parse
from gateway.http.zip import Archive, Member, Piece, unique_names
from gateway.policy.model import Claims, Deny, DownloadRequest, StoredObject
from gateway.policy.reasons import Reason
from gateway.ports import Ledger, Summed, SumMemory
from gateway.services.delivery import Delivery
from gateway.services.gatekeeper import Admitted, Gatekeeper, Refused
from gateway.services.identifiers import new_id
from gateway.services.responding import ALWAYS
from gateway.services.settlement import SILENCE, Settlement
from gateway.services.windows import PATIENCE, Cut
from gateway.store_ports import ObjectStore
from gateway.transfer.channel import Channel
from gateway.transfer.part_channel import PartChannel, SharedChannel

AT_ONCE = 8
"""Files of one ZIP that are looked up at a time."""
CLOSED_PATIENCE = SILENCE + PATIENCE
MEDIA_TYPE = "application/zip"
PARTIAL = 206


@dataclass(frozen=True, slots=True)
class ZipPlan:
    """What will be answered. `pieces` are sent in order; `summed` is what is known of each file's checksum."""

    request: DownloadRequest
    status: int
    headers: Mapping[str, str]
    length: int
    archive: Archive
    objects: Sequence[StoredObject] = field(repr=False)
    pieces: Sequence[Piece] = ()
    summed: Sequence[Summed] = ()


class Zipping:
    """Plans ZIPs, saved under the name of the `shop` and the order.

    `sums` remembers checksums, so that a ZIP that broke off can go on; see docs/link-page.md.
    """

    def __init__(
        self,
        gatekeeper: Gatekeeper,
        shop: str,
        *,
        store: ObjectStore,
        ledger: Ledger,
        settlement: Settlement,
        sums: SumMemory,
    ) -> None:
        self.gatekeeper = gatekeeper
        self._shop = shop
        self.store = store
        self.ledger = ledger
        self.settlement = settlement
        self.sums = sums

    async def plan(self, asked: DownloadRequest) -> ZipPlan | Refused:
        """The answer to a GET or HEAD of a link's ZIP; refused where any file that it sends something of would be,
        and where any other would be for more than its limits or its time.

        Raises nothing but CancelledError.
        """
        look = _bare(asked, method="HEAD")
        # What a resume does not touch may be used up by what was sent before it: its limits are asked for afterwards.
        whole = asked.method == "HEAD" or asked.range is None
        # What is some seconds old would only come out in mid-body, and break it off. Each file is asked for once more.
        sends = asked.method == "GET"
        first = await self.gatekeeper.admit(replace(look, file_number=1), fresh=sends, limits=whole, look=sends)
        if isinstance(first, Refused):
            return first
        claims = first.claims
        if any(file.key is None for file in claims.files):
            return Refused(Deny(Reason.FILE_UNKNOWN), asked.request_id)
        looks = [replace(look, file_number=number) for number in range(1, len(claims.files) + 1)]
        others = await self._admit_others(looks[1:], fresh=sends, limits=whole, look=sends)
        if isinstance(others, Refused):
            return others
        plan = await self._answer(asked, claims, [each.stored for each in (first, *others)])
        if whole:
            return plan
        if plan.status == PARTIAL:
            # The first is asked for as it is sent before there is a status: only its range finds what it goes on with.
            looks = [looks[piece.number] for piece in plan.pieces if piece.kind == "content"][1:]
        return await self._refused_by_limits(looks) or plan

    async def _refused_by_limits(self, looks: Sequence[DownloadRequest]) -> Refused | None:
        if not looks:
            return None
        first = await self.gatekeeper.admit(looks[0], look=True)
        if isinstance(first, Refused):
            return first
        others = await self._admit_others(looks[1:], look=True)
        return others if isinstance(others, Refused) else None

    async def _admit_others(
        self, looks: Sequence[DownloadRequest], *, fresh: bool = False, limits: bool = True, look: bool
    ) -> Sequence[Admitted] | Refused:
        """Some at a time, each under a request id of its own; or the first of them that is refused."""
        turns = asyncio.Semaphore(AT_ONCE)

        async def admit(asked: DownloadRequest) -> Admitted | Refused:
            async with turns:
                asked = replace(asked, request_id=new_id())
                return await self.gatekeeper.admit(asked, fresh=fresh, limits=limits, look=look)

        admitted = []
        for each in await asyncio.gather(*map(admit, looks)):
            if isinstance(each, Refused):
                return each
            admitted.append(each)
        return admitted

    async def _answer(self, asked: DownloadRequest, claims: Claims, objects: Sequence[StoredObject]) -> ZipPlan:
        names = unique_names(file.shown_name for file in claims.files)
        members = [Member(own, stored.size, stored.last_modified) for own, stored in zip(names, objects, strict=True)]
        archive, etag, modified = Archive(members), _etag(members, objects), max(each.last_modified for each in objects)
        evaluation = evaluate(
            asked.method,
            etag,
            modified,
            now=int(time.time()),
            if_match=asked.if_match,
            if_none_match=asked.if_none_match,
            if_modified_since=asked.if_modified_since,
            if_unmodified_since=asked.if_unmodified_since,
            if_range=asked.if_range,
        )
        headers = {**ALWAYS, "ETag": etag, "Last-Modified": http_date(modified)}
        plan = ZipPlan(asked, 304, headers, 0, archive, objects)
        if evaluation.verdict is Verdict.NOT_MODIFIED:
            return plan
        if evaluation.verdict is Verdict.FAILED:
            return replace(plan, status=412, headers=ALWAYS)
        headers["Content-Type"] = MEDIA_TYPE
        headers["Content-Disposition"] = content_disposition(zip_name(self._shop, claims))
        plan = replace(plan, status=200, headers=headers, length=archive.size)
        if asked.method == "HEAD":
            return plan
        plan = replace(plan, summed=await self._summed(objects))
        span = parse(asked.range if evaluation.range_allowed else None, archive.size)
        if isinstance(span, Unsatisfiable):
            headers = {**ALWAYS, "Content-Range": span.content_range(archive.size)}
            return replace(plan, status=416, headers=headers, length=0)
        if isinstance(span, Parts) and len(span.ranges) == 1:
            partial = _partial(plan, span.ranges[0])
            if partial is not None:
                return partial
        return replace(plan, pieces=archive.pieces(0, archive.size))

    async def _summed(self, objects: Sequence[StoredObject]) -> list[Summed]:
        """Of each file the longest beginning whose checksum is known: by the store, or because it was sent before."""
        found = []
        for stored, remembered in zip(objects, await self.sums.recall(objects), strict=True):
            crc32 = self.store.sums(stored).crc32
            found.append(remembered if crc32 is None else Summed(stored.size, crc32))
        return found


def zip_name(shop: str, claims: Claims) -> str:
    """What the ZIP of this link is saved as."""
    return f"{shop} {claims.order_id}.zip" if claims.order_id else f"{shop}.zip"


class ZipDelivery:
    """One ZIP on its way: `begin`, then `send`; `end` exactly once whatever happened in between."""

    def __init__(self, zipping: Zipping, plan: ZipPlan) -> None:
        self._zipping = zipping
        self._plan = plan
        self._summed = list(plan.summed)
        self._begun: Delivery | None = None
        self._before: Delivery | None = None
        self._part: PartChannel | None = None
        self._shared: SharedChannel | None = None

    async def begin(self) -> Refused | None:
        """Let in and open the first file of the answer, so that what refuses it still gets a status.

        Raises OriginError, FileMissing.
        """
        first = next((piece for piece in self._plan.pieces if piece.kind == "content"), None)
        return None if first is None else await self._open(first, self._plan.request.request_id)

    async def send(self, channel: Channel) -> None:
        """Send every piece. Raises ClientGone, OriginError, FileMissing, Cut."""
        self._shared = SharedChannel(channel)
        for piece in self._plan.pieces:
            if piece.kind == "content":
                await self._send_file(piece, self._shared)
            else:
                sums = {number: self._summed[number].crc32 for number in self._plan.archive.summed(piece)}
                await channel.send(self._plan.archive.frame(piece, sums))

    async def end(self, error: BaseException | None) -> None:
        """Close what is open, settle it, and end the answer. `error` is how `begin` or `send` ended, None: all sent."""
        try:
            if self._begun is not None:
                await self._end_file(self._begun, error)
        finally:
            if self._shared is not None:
                if error is None:
                    self._shared.channel.finish()
                else:
                    self._shared.channel.abort()
                self._shared.release()

    async def closed(self) -> None:
        """Wait a moment until what was begun is settled, so that a next attempt finds it refunded."""
        if self._before is not None:
            await self._before.closed()

    async def _send_file(self, piece: Piece, shared: SharedChannel) -> None:
        if self._begun is None:
            if self._before is not None:
                # It takes one of the link's places until the client has acknowledged all of it.
                await self._before.closed(CLOSED_PATIENCE)
            refused = await self._open(piece, new_id())
            if refused is not None:
                raise Cut(refused.deny.reason.text)
        delivery = self._begun
        if delivery is None:
            raise Cut("internal")
        known = self._summed[piece.number]
        self._part = PartChannel(shared, piece.start, known if known.length >= piece.start else None)
        try:
            await delivery.send(self._part)
        finally:
            self._learn(piece)
        await self._end_file(delivery, None)

    async def _open(self, piece: Piece, request_id: str) -> Refused | None:
        """Raises OriginError, FileMissing; also OriginChanged where the file is no longer the one that was planned."""
        stored = self._plan.objects[piece.number]
        whole = piece.length == stored.size
        request = replace(
            _bare(self._plan.request, method="GET"),
            request_id=request_id,
            file_number=piece.number + 1,
            range=None if whole else f"bytes={piece.start}-{piece.stop - 1}",
            if_match=stored.etag,
        )
        admitted = await self._zipping.gatekeeper.admit(request)
        if isinstance(admitted, Refused):
            return admitted
        if admitted.reservation is None:
            raise OriginChanged("a file of the ZIP was replaced since it was planned")
        self._begun = Delivery(
            admitted,
            admitted.reservation,
            store=self._zipping.store,
            ledger=self._zipping.ledger,
            settlement=self._zipping.settlement,
        )
        await self._begun.open()
        return None

    async def _end_file(self, delivery: Delivery, error: BaseException | None) -> None:
        self._begun, self._before = None, delivery
        await delivery.end(error)

    def _learn(self, piece: Piece) -> None:
        """Keep the checksum of what was sent, also of half a file: what goes on later goes on from there."""
        summed = None if self._part is None else self._part.summed
        if summed is not None and summed.length > self._summed[piece.number].length:
            self._summed[piece.number] = summed
            self._zipping.sums.remember(self._plan.objects[piece.number], summed)


def _partial(plan: ZipPlan, span: Span) -> ZipPlan | None:
    """The plan for this range; None where it needs a checksum that nobody will know when it is to be sent."""
    pieces = plan.archive.pieces(span.start, span.stop)
    known = {n for n, stored in enumerate(plan.objects) if plan.summed[n].length == stored.size}
    for piece in pieces:
        if piece.kind == "content" and piece.stop == plan.objects[piece.number].size:
            if piece.start <= plan.summed[piece.number].length:
                known.add(piece.number)
        elif not known.issuperset(plan.archive.summed(piece)):
            return None
    headers = {**plan.headers, "Content-Range": span.content_range(plan.archive.size)}
    return replace(plan, status=PARTIAL, headers=headers, length=span.length, pieces=pieces)


def _bare(asked: DownloadRequest, *, method: str) -> DownloadRequest:
    """The request without what it says of the ZIP as a whole."""
    return replace(asked.unconditional(), method=method, view=False)


def _etag(members: Sequence[Member], objects: Sequence[StoredObject]) -> str:
    """Changes with any byte of the ZIP: names, times and sizes of the files, and their own ETags."""
    told = "\0".join(f"{each.name}\0{each.size}\0{each.modified}" for each in members)
    digest = hashlib.sha256("\0".join([told, *(stored.etag for stored in objects)]).encode())
    return f'"zip1-{digest.hexdigest()[:32]}"'
