"""Redis forgets what it had acknowledged: the gateways put it back, and nobody gets a download twice.

Each on a stage of its own. What counts is the clients' logs and the streams, see audit.py; here it is asked again for
every link that was used up.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from pathlib import Path

from fault import Fault
from promises import DOWN, REFUSED_WITHIN, SERVED_WITHIN
from redis import Redis
from redis_server import Persistence, RedisServer, until
from stage import Stage

FILE = "sold.bin"
SIZE = 100_000
LINKS = 24
Loss = Callable[[Stage], Awaitable[None]]


async def _sold(own: Stage) -> list[str]:
    """Links whose one download is used up, each by a client of its own; and one that a person is still fetching."""
    own.file(FILE, SIZE)
    tokens = [own.token(FILE, downloads=1) for _ in range(LINKS)]
    for got in await asyncio.gather(*(own.fetch(token) for token in tokens)):
        assert got.whole, f"sold, and not delivered: {got}"
    return tokens


async def _asked_again(own: Stage, tokens: list[str], reason: str = "limit.downloads") -> None:
    async def ask(token: str) -> None:
        got = await own.fetch(token)
        async with asyncio.timeout(SERVED_WITHIN):
            while got.status == 503:  # by a worker that has not seen yet that the shard is open
                await asyncio.sleep(0.1)
                got = await own.fetch(token)
        assert (got.status, got.reason) == (410, reason), f"{reason} was due: {got}"

    await asyncio.gather(*(ask(token) for token in tokens))


def loses(how: Loss, *, persistence: Persistence = "aof", name: str) -> Callable[[Stage], Awaitable[None]]:
    async def play(stage: Stage) -> None:
        async with stage.beside(name.replace(" ", "-"), persistence=persistence) as own:
            own.recoveries = stage.recoveries
            tokens = await _sold(own)
            revoked = own.token(FILE)
            assert await own.revoke(revoked)
            await asyncio.sleep(1.2)  # what everysec has written by now is there; the rest is the journal's
            tokens += await _sold(own)
            await how(own)
            await own.serves_within(SERVED_WITHIN)
            await _asked_again(own, tokens)
            await _asked_again(own, [revoked], "token.revoked")

    return play


async def killed(own: Stage) -> None:
    await asyncio.to_thread(own.redis.kill)
    await asyncio.to_thread(own.redis.start)


async def cut(own: Stage) -> None:
    own.redis.kill()
    own.redis.cut_aof(0.2)
    own.outages.lost_data()
    await asyncio.to_thread(own.redis.start)


async def emptied(own: Stage) -> None:
    with closing(own.redis.client()) as client:
        client.flushall()
    own.outages.lost_data()


async def emptied_twice(own: Stage) -> None:
    """The second time in the middle of putting back."""
    await emptied(own)
    await asyncio.sleep(own.rng.uniform(0.5, 2.5))
    await emptied(own)


async def emptied_with_a_worker_dead(own: Stage) -> None:
    os.kill(min(own.gateway.pids()), signal.SIGKILL)
    await emptied(own)


async def all_killed(own: Stage) -> None:
    """The machine as a whole, but for its disk."""
    await own.gateway.kill()
    await asyncio.to_thread(own.redis.kill)
    await asyncio.to_thread(own.redis.start)
    await own.gateway.start()


async def failed_over(own: Stage) -> None:
    """To a replica that had not heard of the last writes."""
    replica = RedisServer(own.folder / "replica", persistence="none")
    await asyncio.to_thread(replica.start)
    try:
        with closing(replica.client()) as client:
            client.replicaof("127.0.0.1", str(own.redis.port))
            await _synced(client)
        await asyncio.sleep(0.3)
        replica.pause()
        lost = await _sold(own)
        await asyncio.to_thread(own.redis.kill)
        own.outages.lost_data()
        replica.resume()
        with closing(replica.client()) as client:
            client.replicaof("NO", "ONE")
            own.proxy.refuse()
            own.proxy.turn_to(replica.port)
            own.outages.end("killed")
            own.proxy.let_pass()
            await own.serves_within(SERVED_WITHIN)
            await _asked_again(own, lost)
            # The stage reads the streams where they were; they are brought back there.
            own.proxy.refuse()
            await asyncio.to_thread(own.redis.start)
            with closing(own.redis.client()) as old:
                old.replicaof("127.0.0.1", str(replica.port))
                await _synced(old)
                old.replicaof("NO", "ONE")
            own.proxy.turn_to(own.redis.port)
            own.proxy.let_pass()
    finally:
        replica.kill()


async def _synced(replica: Redis) -> None:
    def is_up() -> bool:
        return replica.info("replication").get("master_link_status") == "up"

    await asyncio.to_thread(until, is_up, 10, "the replica does not follow")


class _SmallDisk:
    """A real file system of 2 MiB; root may mount one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def __enter__(self) -> _SmallDisk:
        self.folder.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(self.folder)], check=True)
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "-l", str(self.folder)], check=True)

    def fill(self) -> None:
        with suppress(OSError), self._ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(512))

    def empty(self) -> None:
        self._ballast.unlink()


async def _each_worker_meets_it(own: Stage) -> None:
    """Who meets it first had charged in Redis already: it is refused too, and its charge given back."""
    for _ in range(16):
        await own.fetch(own.token(FILE, downloads=1))


async def full_disk(stage: Stage) -> None:
    """A journal that cannot be written is a Redis that cannot be asked; both come back by themselves."""
    with _SmallDisk(stage.folder / "small-disk") as disk:
        settings = {"journal": f"{{path: {disk.folder}/journal, keep: 24h}}"}
        async with stage.beside("full-disk", settings=settings) as own, own.disturbance():
            own.recoveries = stage.recoveries
            tokens = await _sold(own)
            await asyncio.to_thread(disk.fill)
            await _each_worker_meets_it(own)
            await own.refuses_within(REFUSED_WITHIN, DOWN)
            await asyncio.to_thread(disk.empty)
            await own.serves_within(SERVED_WITHIN)
            await _asked_again(own, tokens)


FAULTS = [
    Fault("Redis with RDB only is killed", loses(killed, persistence="rdb", name="rdb"), quick=True),
    Fault("a fifth of the AOF is gone", loses(cut, name="aof")),
    Fault("FLUSHALL", loses(emptied, name="flushall")),
    Fault("FLUSHALL, and again while it is put back", loses(emptied_twice, name="flushall twice")),
    Fault("FLUSHALL as a worker dies", loses(emptied_with_a_worker_dead, name="flushall and a worker")),
    Fault("Redis with RDB only and the gateway are killed", loses(all_killed, persistence="rdb", name="all killed")),
    Fault("a failover drops writes", loses(failed_over, name="failover")),
    Fault("the journal's disk is full", full_disk),
]
