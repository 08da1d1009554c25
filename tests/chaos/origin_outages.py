"""The whole store out of reach: its name, its address, its connections; refused soon, asked little, back unaided."""

from __future__ import annotations

import asyncio
import time

import origin_plays as plays
from clients import Fetched
from fault import Fault
from faulty_bucket import FaultyBucket, honestly, on_a_store
from name_server import NameServer, name_server
from stage import Stage

CROWD = 40
AT_ONCE = 20
AMPLIFICATION = 3
SERVED_WITHIN = 6.0
REFUSED_WITHIN = 6.5
"""Three tries and their pauses, or three seconds of silence by the settings, on a machine that has more to do."""
NAME = "s3.chaos.example"
MOVED = "127.0.0.77"
SIZE = 4_000_000
KEPT = 5.5
"""Longer than an address is believed without asking again."""


async def names(stage: Stage) -> None:
    """No name, no name server, silence, a server that is gone again, and another address in mid-download."""
    with name_server(stage.folder / "name-server", NAME) as names:
        names.is_silent()
        async with on_a_store(stage, "names", host=NAME, command=names.command) as (own, bucket):
            for state, reason in (
                (names.is_silent, "origin.timeout"),
                (names.knows_nothing, "origin.down"),
                (names.is_gone, "origin.down"),
            ):
                await asyncio.to_thread(state)
                await _until_refused(own, reason)
            await asyncio.to_thread(names.says, bucket.host)
            await own.serves_within(SERVED_WITHIN)
            # Every worker has to know the address before nobody says it any more.
            await asyncio.gather(*(_fetch_new(own) for _ in range(20)))
            for state in (names.is_gone, names.is_silent):
                await asyncio.to_thread(state)
                await asyncio.sleep(KEPT)
                await bucket.drop()
                await own.serves_within(SERVED_WITHIN)
            await _moves(own, bucket, names)


async def _until_refused(stage: Stage, reason: str) -> None:
    """What was asked before may still be answered as before, so the reason may need a moment; a byte never comes."""
    until = time.monotonic() + 3 * REFUSED_WITHIN
    while True:
        seen = await _fetch_new(stage)
        assert seen.ended - seen.began < REFUSED_WITHIN, (
            f"{seen.status} {seen.reason} after {seen.ended - seen.began:.1f} s"
        )
        assert seen.status in (502, 504), f"{seen.status} {seen.reason} {seen.error}"
        if seen.reason == reason:
            return
        assert time.monotonic() < until, f"{reason} was due, not {seen.reason}"


async def _moves(stage: Stage, bucket: FaultyBucket, names: NameServer) -> None:
    """The old address dies in mid-download and the name has a new one: the rest comes from there."""
    await asyncio.to_thread(names.says, bucket.host)
    await asyncio.sleep(KEPT)  # the question that met with silence has its answer by then
    await stage.serves_within(SERVED_WITHIN)
    async with FaultyBucket(bucket.folder, host=MOVED, port=bucket.port) as new:
        stage.file("moves.bin", SIZE)
        bucket.faults["moves.bin"] = plays.gets(plays.at_byte(SIZE // 2, "stall"))
        downloads = [asyncio.create_task(stage.fetch(stage.token("moves.bin", downloads=1))) for _ in range(3)]
        await bucket.wait_for_gets("moves.bin", each=len(downloads))
        await asyncio.to_thread(names.says, MOVED)
        await bucket.leave()
        for seen in await asyncio.gather(*downloads):
            assert _is_right(seen), f"{seen.status} {seen.reason} {seen.error} after {seen.received} B"
        assert new.gets["moves.bin"] == len(downloads)
        await stage.serves_within(SERVED_WITHIN)


def _is_right(seen: Fetched) -> bool:
    return seen.whole and seen.sha_ok


async def _fetch_new(stage: Stage) -> Fetched:
    name = f"storm/{stage.rng.randbytes(6).hex()}"
    stage.file(name, 2000)
    return await stage.fetch(stage.token(name, downloads=1))


async def storm(stage: Stage) -> None:
    """A crowd while the store refuses everything: told soon, three requests each, the charge is back, then served."""
    ways = {"503": plays.sends("503 Slow Down"), "reset": plays.ends("reset"), "silence": plays.ends("stall")}
    async with on_a_store(stage, "storm") as (own, bucket):
        tokens: list[str] = []
        for at, (way, play) in enumerate([*ways.items(), ("refused", honestly)]):
            names_ = [f"storm/{at}-{n}" for n in range(CROWD)]
            for name in names_:
                own.file(name, 2000)
            crowd = [own.token(name, downloads=1) for name in names_]
            before = bucket.asked.total()
            bucket.fault = play
            if way == "refused":
                await bucket.leave()
            await _all_refused(own, crowd)
            asked = bucket.asked.total() - before
            assert asked <= AMPLIFICATION * CROWD, f"{way}: {asked} requests for {CROWD} clients"
            bucket.fault = honestly
            if way == "refused":
                await bucket.listen()
            await own.serves_within(SERVED_WITHIN)
            tokens += crowd
        for at in range(0, len(tokens), AT_ONCE):
            for seen in await asyncio.gather(*(own.fetch(token) for token in tokens[at : at + AT_ONCE])):
                # 410: its charge was not given back.
                assert _is_right(seen), f"refused when all was well again: {seen.status} {seen.reason} {seen.error}"


async def _all_refused(stage: Stage, crowd: list[str]) -> None:
    for seen in await asyncio.gather(*(stage.fetch(token) for token in crowd)):
        took = seen.ended - seen.began
        assert seen.status in (502, 504), f"{seen.status} {seen.reason} {seen.error}"
        assert took < REFUSED_WITHIN, f"{seen.status} {seen.reason} after {took:.1f} s"


async def restarted(stage: Stage) -> None:
    """The store is killed and comes back within a second: what runs goes on at the next byte and comes whole."""
    async with on_a_store(stage, "restarted") as (own, bucket):
        keys = [f"running-{n}.bin" for n in range(6)]
        for key in keys:
            own.file(key, SIZE)
            bucket.faults[key] = plays.gets(plays.at_byte(SIZE // 2, "stall"), 1)
        downloads = [asyncio.create_task(own.fetch(own.token(key, downloads=1))) for key in keys]
        await bucket.wait_for_gets(*keys)
        await asyncio.sleep(0.3)
        await bucket.leave()
        await asyncio.sleep(0.6)
        await bucket.listen()
        for key, seen in zip(keys, await asyncio.gather(*downloads), strict=True):
            assert _is_right(seen), f"{seen.status} {seen.reason} {seen.error} after {seen.received} B"
            assert bucket.asked[key] <= AMPLIFICATION, f"{bucket.asked[key]} requests"
            assert bucket.sent[key] <= 1.5 * SIZE, f"{bucket.sent[key]} B sent of {SIZE}"
        await own.serves_within(SERVED_WITHIN)


OUTAGES = [
    Fault("the store's name", names),
    Fault("a storm on a store that is down", storm),
    Fault("the store restarted", restarted, quick=True),
]
