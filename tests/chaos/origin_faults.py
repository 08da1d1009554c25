"""The store under fault: whole bytes of one version or a failure that is seen, one charge, three requests at most.

Each row is a way in which the store misbehaves for one key; its clients come, come back once it is mended, and the
ledger must then know of one download each.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import origin_plays as plays
from clients import Fetched
from fault import Fault
from faulty_bucket import FaultyBucket, Play, on_a_store
from origin_outages import OUTAGES
from stage import Stage
from streams import Fields

CLIENTS = 3
AT_ONCE = 4
AMPLIFICATION = 3
SIZE = 300_000
LARGE = 2_500_000
MENDED_WITHIN = 6.0
WHOLE = "whole"
DOWN, SLOW, CHANGED = "502 origin.down", "504 origin.timeout", "502 origin.changed"
MISSING = "404 file.missing"
CUT, CUT_SLOW, CUT_CHANGED = "cut origin.down", "cut origin.timeout", "cut origin.changed"
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Row:
    """`play` at the store leads to one of `ends` at each client. `anew`: its client must begin again from byte 0."""

    name: str
    play: Play
    ends: tuple[str, ...]
    size: int = SIZE
    range: str = ""
    anew: bool = False


def lying(_: Stage) -> list[Row]:
    """Answers that are not the file, or that say something else of it than they carry."""
    head, get = plays.sends, plays.gets
    redirect = {"Location": "http://127.0.0.1:1/x", "x_amz_bucket_region": "eu-west-1"}
    material = ROOT / ".." / "shared" / "material" / "http" / "content_length_cases.json"
    cases = json.loads(material.read_text())["cases"] if material.is_file() else []
    return [
        Row("200 to a range", get(head("200 OK", body=bytes(SIZE))), (DOWN,), range="bytes=100000-299999"),
        Row("200 to the whole", get(head("200 OK")), (WHOLE,)),
        Row("another range", get(head(Content_Range="bytes 1-300000/300001")), (DOWN,)),
        Row("no range", get(head(Content_Range=None)), (DOWN,)),
        Row("range of nothing", get(head(Content_Range="bytes */300000")), (DOWN,)),
        Row("error document", get(head("200 OK", body=plays.ERROR, ETag=None)), (DOWN,)),
        Row("error document, right length", get(head("200 OK", body=plays.ERROR.ljust(SIZE), ETag=None)), (DOWN,)),
        Row("length too large", get(head(Content_Length="300001", then="close")), (DOWN,)),
        Row("length too small", get(head(Content_Length="299999", then="close")), (DOWN,)),
        Row("more than its length", get(head(extra=b"x" * 5000, then="close")), (WHOLE, DOWN)),
        *(
            Row(f"length {at}: {case['header']!r}", get(plays.lengths(case["header"])), (DOWN,))
            for at, case in enumerate(cases)
        ),
        Row("two lengths", plays.lengths("Content-Length: 300000\r\nContent-Length: 300001"), (DOWN,)),
        Row("weak ETag", head(ETag='W/"1"'), (DOWN,)),
        Row("no ETag", head(ETag=None), (DOWN,)),
        Row("gzip", get(head(Content_Encoding="gzip")), (DOWN,)),
        Row("304", get(head("304 Not Modified", body=b"")), (DOWN,)),
        Row("416", get(head("416 Range Not Satisfiable", body=plays.ERROR)), (CHANGED,)),
        Row("301", head("301 Moved Permanently", body=plays.ERROR, **redirect), (DOWN,)),
        Row("307 of a GET", get(head("307 Temporary Redirect", body=plays.ERROR, **redirect)), (DOWN,)),
        Row("403, clock", head("403 Forbidden", body=plays.ERROR.replace(b"Internal", b"TimeTooSkewed")), (DOWN,)),
        Row("404 with 300 kB", get(head("404 Not Found", body=plays.ERROR.ljust(SIZE))), (MISSING,)),
        Row("header of 100 kB", get(head(X_Large="x" * 100_000)), (DOWN,)),
        Row("no header line", get(plays.invalid_line), (DOWN,)),
        Row("1xx first", plays.informs, (WHOLE,)),
        Row("chunks, trailers", get(plays.chunked(end=b"0\r\nX-Sum: 1\r\n\r\n")), (WHOLE,)),
        Row("chunks without end", get(plays.chunked(end=b"", then="close")), (WHOLE,)),
        Row("chunks, too few", get(plays.chunked(cut=0.5), 1), (WHOLE,)),
        Row("two minds about the version", get(head(ETag='"another"')), (CHANGED,)),
    ]


def failing(_: Stage) -> list[Row]:
    """No answer, or one that asks to come again."""
    slow, error = "503 Slow Down", "500 Internal Server Error"
    return [
        Row("503 once", plays.first(plays.sends(slow, body=plays.ERROR)), (WHOLE, DOWN)),
        Row("500 to the first GET", plays.gets(plays.sends(error, body=plays.ERROR), 1), (WHOLE, DOWN)),
        Row("503 always", plays.sends(slow, body=plays.ERROR), (DOWN,)),
        Row("500 to each GET", plays.gets(plays.sends(error, body=plays.ERROR)), (DOWN,)),
        Row("503 for a minute", plays.sends(slow, body=plays.ERROR, Retry_After="60"), (DOWN,)),
        Row("reset at once", plays.ends("reset"), (DOWN,)),
        Row("reset of each GET", plays.gets(plays.ends("reset")), (DOWN,)),
        Row("closed as we reuse it", plays.closes_reused, (WHOLE,)),
        Row("silence", plays.ends("stall"), (SLOW,)),
        Row("silence to each GET", plays.gets(plays.ends("stall")), (SLOW,)),
    ]


def breaking(_: Stage) -> list[Row]:
    """Bodies that do not come to their end."""
    get, at = plays.gets, plays.at_byte
    return [
        Row("reset at byte 0, once", get(at(0, "reset"), 1), (WHOLE,), LARGE),
        Row("reset at byte 0, always", get(at(0, "reset")), (CUT,), LARGE),
        Row("reset in the middle, once", get(at(LARGE // 2, "reset"), 1), (WHOLE,), LARGE),
        Row("reset after each 300 kB", get(at(300_000, "reset")), (CUT,), LARGE),
        Row("reset at the last byte, once", get(at(-1, "reset"), 1), (WHOLE,), LARGE),
        Row("closed at the last byte, always", get(at(-1, "close")), (CUT,)),
        Row("truncated in a range", get(at(-1000, "close"), 1), (WHOLE,), LARGE, "bytes=1000000-1999999"),
        Row("stalled in the middle, once", get(at(LARGE // 2, "stall"), 1), (WHOLE,), LARGE),
        Row("stalled in the middle, always", get(at(100_000, "stall")), (CUT_SLOW,), LARGE),
        Row("slow but alive", get(plays.dripping(0.2, 10_000)), (WHOLE,), 100_000),
        Row("10 bytes a second", get(plays.dripping(0.1, 1)), (CUT_SLOW,)),
    ]


def replaced(stage: Stage) -> list[Row]:
    """An object that becomes another one."""

    def anew(visit: plays.Visit) -> None:
        stage.file(visit.key, len(visit.content))

    return [
        Row("between HEAD and GET", plays.between(anew), (WHOLE, CHANGED)),
        Row("inside a body", plays.inside(anew, CLIENTS), (CUT_CHANGED,), LARGE, anew=True),
        Row("inside a body, unheeded", plays.inside(anew, CLIENTS, unheeded=True), (CUT_CHANGED,), LARGE, anew=True),
    ]


def played(name: str, rows: Callable[[Stage], Sequence[Row]]) -> Callable[[Stage], Awaitable[None]]:
    """All rows at once, on a gateway and a store of their own."""

    async def play(stage: Stage) -> None:
        async with on_a_store(stage, name) as (own, bucket):
            gate = asyncio.Semaphore(AT_ONCE)
            stories = [_Story(own, bucket, row, f"{at}.bin") for at, row in enumerate(rows(own))]
            results = await asyncio.gather(*(story.play(gate) for story in stories), return_exceptions=True)
            broken = [f"{story.row.name}: {result}" for story, result in zip(stories, results, strict=True) if result]
            events = await own.settle()
            broken += [f"{story.row.name}: {text}" for story in stories for text in story.told_wrongly(events)]
            assert not broken, f"{len(broken)} of {len(stories)}:\n" + "\n".join(broken)

    return play


class _Story:
    """What becomes of a row's clients."""

    def __init__(self, stage: Stage, bucket: FaultyBucket, row: Row, key: str) -> None:
        self.row = row
        self._stage, self._bucket, self._key = stage, bucket, key
        self._seen: dict[str, Fetched] = {}

    async def play(self, gate: asyncio.Semaphore) -> None:
        """Raises AssertionError at the first thing that is not as it should be."""
        async with gate:
            await self._play()

    async def _play(self) -> None:
        self._stage.file(self._key, self.row.size)
        self._bucket.faults[self._key] = self.row.play
        downloads = 2 if self.row.anew else 1
        people = {self._stage.token(self._key, downloads=downloads): self._stage.network() for _ in range(CLIENTS)}
        fetches = (self._fetch(token, address, self.row.range) for token, address in people.items())
        for token, seen in zip(people, await asyncio.gather(*fetches), strict=True):
            self._seen[self._stage.tickets[token].token_id] = seen
            assert any(end.startswith(_end(seen)) for end in self.row.ends), (
                f"{_end(seen)} after {seen.received} B {seen.error}"
            )
            assert seen.sha_ok or not seen.received, "bytes of no version"
        asked, sent = self._bucket.asked[self._key], self._bucket.sent[self._key]
        assert asked <= AMPLIFICATION * CLIENTS, f"{asked} requests for {CLIENTS} clients"
        part = self.row.range or "bytes=0-"
        size = self.row.size if part == "bytes=0-" else 1 + int(part.split("-")[1]) - int(part[6:].split("-")[0])
        # A store that sends more than it was asked for is stopped, but its kernel had taken some by then.
        assert sent <= AMPLIFICATION * CLIENTS * max(size, 200_000), f"{sent} B for {CLIENTS} × {size} B"
        self._bucket.faults.pop(self._key)
        await asyncio.gather(*(self._come_back(token, address) for token, address in people.items()))

    async def _come_back(self, token: str, address: str) -> None:
        """The same person gets what is missing, and nobody else gets anything."""
        seen = self._seen[self._stage.tickets[token].token_id]
        if not seen.complete:
            rest = f"bytes={seen.start + seen.received}-" if seen.received and not self.row.anew else self.row.range
            until = asyncio.get_running_loop().time() + MENDED_WITHIN
            while not (again := await self._fetch(token, address, rest)).complete:
                assert asyncio.get_running_loop().time() < until, f"not served when mended: {_end(again)} {again.error}"
                await asyncio.sleep(0.3)
            assert again.sha_ok, "bytes of no version after it was mended"
        if self.row.anew:
            return
        other = await self._stage.fetch(token)
        assert (other.status, other.reason) == (410, "limit.downloads"), f"a second download: {_end(other)}"

    async def _fetch(self, token: str, address: str, part: str) -> Fetched:
        return await self._stage.fetch(token, address=address, range=part or None, timeout=30)

    def told_wrongly(self, events: Sequence[Fields]) -> list[str]:
        """What the events say otherwise than the clients saw it."""
        wrong = []
        for token_id, seen in self._seen.items():
            own = [event for event in events if event.get("token.id") == token_id]
            counted = sum(int(event.get("counted") or 0) for event in own)
            if counted != 1 and not self.row.anew:
                wrong.append(f"{counted} downloads charged")
            ends = {(event.get("outcome"), event.get("reason")) for event in own}
            cuts = {("origin_failed", end[4:]) for end in self.row.ends if end.startswith("cut ")}
            if seen.error and not cuts & ends:
                wrong.append(f"no event says {self.row.ends}: {ends}")
            if seen.status >= 400 and not any(reason == seen.reason for _, reason in ends):
                wrong.append(f"no event says {seen.reason}: {ends}")
        return wrong


def _end(seen: Fetched) -> str:
    if seen.complete and seen.sha_ok:
        return WHOLE
    if seen.served and seen.error:
        return "cut"
    return f"{seen.status} {seen.reason}"


FAULTS = [
    Fault("the store lies", played("lying", lying)),
    Fault("the store fails", played("failing", failing)),
    Fault("the store breaks off", played("breaking", breaking)),
    Fault("an object is replaced", played("replaced", replaced)),
    *OUTAGES,
]
