"""Redis in several servers: a Sentinel failover, and a Redis Cluster that loses masters. Each on a stage of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

from fault import Fault
from promises import DOWN, REFUSED_WITHIN, SERVED_WITHIN, under_way, until_served
from redis_groups import ClusterGroup, SentinelGroup
from redis_server import RedisServer, until
from stage import Stage

from gateway.policy.shards import shard_of

SHARDS = 6
ELECTED_WITHIN = 15.0
CROWD = 4
CONTROL_SILENT = 3.0
"""Seconds after which nothing is decided without the control stream, and one of grace."""
FILE = "failover.bin"


async def sentinels(stage: Stage) -> None:
    """The master dies, the Sentinels make the replica master; later the Sentinel that is asked first hangs."""
    group = SentinelGroup(stage.folder / "sentinels")
    async with _running(group), stage.beside("sentinel", redis_url=group.url, workers=2) as own, _crowd(own):
        own.recoveries = stage.recoveries
        old = group.master
        async with under_way(own):
            await asyncio.to_thread(old.kill)
            await own.refuses_within(REFUSED_WITHIN, DOWN)
            await asyncio.to_thread(until, lambda: group.now_master() != old.port, ELECTED_WITHIN, "nobody was elected")
            await own.serves_within(SERVED_WITHIN)
        await asyncio.to_thread(old.start)  # as a master, until the Sentinels make it follow the new one
        group.sentinels[0].pause()
        try:
            for _ in range(10):
                await own.serves_within(REFUSED_WITHIN)
                await asyncio.sleep(0.1)
        finally:
            group.sentinels[0].resume()


async def cluster(stage: Stage) -> None:
    """A master with a replica dies: the other shards go on. Then that of the control stream, without a replica."""
    group = ClusterGroup(stage.folder / "servers", replicas=1)
    options = {"redis_url": group.url, "shards": SHARDS, "workers": 2}
    async with _running(group), stage.beside("cluster", **options) as own, _crowd(own):
        own.recoveries = stage.recoveries
        own.file(FILE, 4096)
        replaced, home = group.masters[0], group.owner(0)
        hit = [shard for shard in range(SHARDS) if group.owner(shard) is replaced]
        spared = [shard for shard in range(SHARDS) if group.owner(shard) is not replaced]
        async with under_way(own):
            await asyncio.to_thread(replaced.kill)
            elected = asyncio.create_task(asyncio.to_thread(_until_elected, group))
            await _refused(own, hit[0])
            while not elected.done():
                for shard in spared:
                    await until_served(own, _token(own, shard), 0.0)
            await elected
            own.recoveries.append(await until_served(own, _token(own, hit[0]), SERVED_WITHIN))
        await asyncio.to_thread(home.kill)
        await _refused(own, 0)
        await asyncio.sleep(CONTROL_SILENT)
        for shard in range(SHARDS):  # nobody can tell any more which links are revoked
            await _refused(own, shard)
        await asyncio.to_thread(home.start)
        await asyncio.to_thread(_until_well, home)
        await own.serves_within(SERVED_WITHIN)
        for shard in range(SHARDS):
            await until_served(own, _token(own, shard), SERVED_WITHIN)


async def _refused(stage: Stage, shard: int) -> None:
    began = time.monotonic()
    got = await stage.fetch(_token(stage, shard))
    took = time.monotonic() - began
    assert (got.status, got.reason) == (503, DOWN), f"not refused: {got}"
    assert took < REFUSED_WITHIN, f"refused after {took:.2f} s: {got}"


def _token(stage: Stage, shard: int) -> str:
    while True:
        token_id = stage.rng.randbytes(8).hex()
        if shard_of(token_id, SHARDS) == shard:
            return stage.token(FILE, token_id=token_id)


def _until_elected(group: ClusterGroup) -> None:
    with closing(group.replicas[0].client()) as client:
        until(lambda: client.role()[0] == "master", ELECTED_WITHIN, "the replica was not elected")


def _until_well(server: RedisServer) -> None:
    """A master that comes back refuses everything itself for its first two seconds: so long the fault lasts."""
    with closing(server.client()) as client:
        until(lambda: client.cluster("INFO")["cluster_state"] == "ok", ELECTED_WITHIN, "the master did not come back")


@asynccontextmanager
async def _running(group: SentinelGroup | ClusterGroup) -> AsyncIterator[None]:
    servers = group.running()
    await asyncio.to_thread(servers.__enter__)
    try:
        yield
    finally:
        await asyncio.to_thread(servers.__exit__, None, None, None)


@asynccontextmanager
async def _crowd(stage: Stage) -> AsyncIterator[None]:
    """Buyers who come all the time; what they saw is for the audit to judge."""
    stage.file("crowd.bin", 300_000)

    async def buyer() -> None:
        while True:
            await stage.fetch(stage.token("crowd.bin", downloads=2))
            await asyncio.sleep(stage.rng.uniform(0.02, 0.2))

    buyers = [asyncio.create_task(buyer()) for _ in range(CROWD)]
    try:
        yield
    finally:
        for task in buyers:
            task.cancel()
        await asyncio.gather(*buyers, return_exceptions=True)


FAULTS = [Fault("Sentinel failover", sentinels), Fault("Redis Cluster loses masters", cluster)]
