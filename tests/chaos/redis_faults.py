"""What Redis does to a gateway: it dies, hangs, is cut off, late, full, busy, loading, read-only.

While it cannot decide, nobody gets a byte; when it can again, everybody is served within five seconds, unaided.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import closing, suppress
from threading import Thread

import redis_failovers
from fault import Fault
from promises import DOWN, SERVED_WITHIN, Play, down, under_way, until_served
from redis import Redis
from redis.exceptions import BusyLoadingError, RedisError, ResponseError
from redis_server import free_port, until
from stage import Stage

LOADING = 4.0
"""Seconds that the server takes to load what it has; it looks at the clock every so many keys, so it needs some."""
KEYS_AT_LEAST = 3000
REPLIES_LOST = 20
REFUSED = 4
FAIL_FAST = 0.3
LEASE_LAPSED = 15.0
"""Seconds in which a charge whose answer was lost must be given back, and a little more on a slow machine."""


def killed(times: int) -> Play:
    async def play(stage: Stage) -> None:
        for _ in range(times):
            await asyncio.sleep(stage.rng.uniform(0, 0.5))
            await down(stage, stage.redis.kill, stage.redis.start, again=1)

    return play


def on_the_line(broken: Callable[[Stage], None]) -> Play:
    async def play(stage: Stage) -> None:
        call = asyncio.get_running_loop().call_soon_threadsafe  # the proxy lives in this loop
        await down(stage, lambda: call(broken, stage), lambda: call(stage.proxy.let_pass))

    return play


async def paused(stage: Stage) -> None:
    async def while_it_lasts() -> None:
        await asyncio.sleep(3)

    await down(stage, stage.redis.pause, stage.redis.resume, meanwhile=while_it_lasts)


async def late(stage: Stage) -> None:
    """Half a second for a round trip: served or refused, but never left waiting and never wrong."""
    name = "late.bin"
    stage.file(name, 4096)
    async with under_way(stage):
        stage.proxy.delay(0.25)
        try:
            for _ in range(6):
                got = await stage.fetch(stage.token(name), timeout=20)
                right = got.complete and got.sha_ok if got.served else (got.status, got.reason) == (503, DOWN)
                assert right, f"neither served nor refused: {got}"
        finally:
            stage.proxy.let_pass()
        await stage.serves_within(SERVED_WITHIN)


async def replies_lost(stage: Stage) -> None:
    """A charge whose answer is lost gives nobody a byte, and comes back when its lease has lapsed."""
    name = "reply-lost.bin"
    stage.file(name, 300_000)
    stage.proxy.lose_replies(REPLIES_LOST, after=b"EVALSHA")
    refused = []
    try:
        for _ in range(4 * REPLIES_LOST):
            token = stage.token(name, downloads=1)
            got = await stage.fetch(token)
            if got.status == 503:
                assert got.reason == DOWN, f"refused for another reason: {got}"
                refused.append(token)
            if not stage.proxy.lost or len(refused) == REFUSED:
                break
            await asyncio.sleep(FAIL_FAST)
    finally:
        stage.proxy.let_pass()
    assert refused, "no reply of a charge was lost"
    await stage.serves_within(SERVED_WITHIN)
    for token in refused:
        await until_served(stage, token, LEASE_LAPSED)


async def no_script(stage: Stage) -> None:
    """Nobody notices that the server has forgotten the scripts."""
    name = "no-script.bin"
    stage.file(name, 4096)
    with closing(stage.redis.client()) as client:
        async with under_way(stage):
            for _ in range(20):
                await asyncio.to_thread(client.script_flush)
                got = await stage.fetch(stage.token(name))
                assert (got.whole, got.sha_ok) == (True, True), f"not served: {got}"


def setting(name: str, broken: str, mended: str) -> Play:
    """A state of the server in which it refuses to write."""

    async def play(stage: Stage) -> None:
        with closing(stage.redis.client()) as client:
            await down(stage, lambda: client.config_set(name, broken), lambda: client.config_set(name, mended))

    return play


async def read_only(stage: Stage) -> None:
    dead = free_port()
    with closing(stage.redis.client()) as client:
        await down(stage, lambda: client.replicaof("127.0.0.1", dead), lambda: client.replicaof("NO", "ONE"))


async def busy(stage: Stage) -> None:
    """Somebody's script does not end."""
    with closing(stage.redis.client()) as client, closing(stage.redis.client()) as neighbour:
        before = client.config_get("busy-reply-threshold")
        client.config_set("busy-reply-threshold", 50)

        def loop() -> None:
            with suppress(RedisError):
                neighbour.eval("while true do end", 0)

        looping = Thread(target=loop, daemon=True)

        def broken() -> None:
            looping.start()
            until(lambda: _answers(client) == "BUSY", 5, "the server is not busy")

        await down(stage, broken, client.script_kill)
        await asyncio.to_thread(looping.join, 5)
        client.config_set("busy-reply-threshold", before["busy-reply-threshold"])


async def loading(stage: Stage) -> None:
    """It answers again, but only to say that it is not ready."""
    with closing(stage.redis.client()) as client:
        client.execute_command("DEBUG POPULATE", KEYS_AT_LEAST, "filler", 10)
        client.bgrewriteaof()
        await asyncio.to_thread(until, lambda: _rewritten(client), 20, "the AOF was not rewritten")
        delay = round(LOADING * 1e6 / client.dbsize())
    slowly = ["--key-load-delay", str(delay), "--loading-process-events-interval-bytes", "1024"]

    def broken() -> None:
        stage.redis.kill()
        stage.redis.options += slowly
        stage.redis.start(loaded=False)

    def mended() -> None:
        del stage.redis.options[-len(slowly) :]
        with closing(stage.redis.client()) as client:
            until(lambda: _answers(client) == "PONG", 20, "the server does not come to the end of its data")

    await down(stage, broken, mended, again=1)
    with closing(stage.redis.client()) as client:
        client.unlink(*client.scan_iter("filler:*", count=1000))


def _answers(client: Redis) -> str:
    try:
        client.ping()
    except BusyLoadingError:
        return "LOADING"
    except ResponseError as error:
        return str(error.status_code or error).partition(" ")[0]
    except RedisError:
        return ""
    return "PONG"


def _rewritten(client: Redis) -> bool:
    state = client.info("persistence")
    return not state["aof_rewrite_in_progress"] and not state["aof_rewrite_scheduled"]


FAULTS = [
    Fault("Redis killed and restarted", killed(2), quick=True, whole=False),
    Fault("Redis killed and restarted × 20", killed(20)),
    Fault("Redis refuses connections", on_the_line(lambda stage: stage.proxy.refuse())),
    Fault("Redis in a black hole", on_the_line(lambda stage: stage.proxy.black_hole()), quick=True),
    Fault("Redis half a second away", late),
    Fault("Redis paused", paused),
    Fault("Redis's replies lost", replies_lost),
    Fault("Redis read-only", read_only),
    Fault("Redis without its replicas", setting("min-replicas-to-write", "1", "0")),
    Fault("Redis out of memory", setting("maxmemory", "1", "0"), quick=True),
    Fault("Redis busy with a script", busy),
    Fault("Redis loading", loading),
    Fault("Redis forgets the scripts", no_script),
    *redis_failovers.FAULTS,
]
