"""Sentinels and clusters of real servers: what is dead or hangs holds up nothing else, and nothing runs twice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path

import pytest
from proxy import FaultProxy
from redis.crc import key_slot
from redis_groups import ClusterGroup, SentinelGroup
from redis_server import RedisServer

from gateway.backends.redis_client import Script, Wire, connect
from gateway.backends.redis_cluster import Cluster
from gateway.backends.redis_events import RedisEventLog
from gateway.errors import LedgerDown

TIMEOUT = 0.5
SHARDS = 6


@asynccontextmanager
async def wired(url: str) -> AsyncIterator[Wire]:
    wire = Wire(connect(url, timeout=TIMEOUT), timeout=TIMEOUT)
    try:
        yield wire
    finally:
        await wire.close()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterGroup]:
    with ClusterGroup(tmp_path_factory.mktemp("cluster")).running() as group:
        yield group


def reads(group: ClusterGroup) -> int:
    total = 0
    for server in group.masters:
        with closing(server.client()) as client:
            total += client.info("stats")["total_reads_processed"]
    return total


async def test_commands_of_one_turn_share_a_round_trip_to_each_server(cluster: ClusterGroup) -> None:
    async with wired(cluster.url) as wire:
        await asyncio.gather(*(wire.execute("PING") for _ in range(3)), wire.survey("FLUSHALL"))
        before = reads(cluster)
        replies = await asyncio.gather(*(wire.execute("INCR", f"gw:{{{n % SHARDS}}}:n") for n in range(600)))
        assert reads(cluster) - before <= 40
        assert sorted(replies) == sorted(list(range(1, 101)) * SHARDS)
        assert len(await wire.survey("PING")) == 3


async def test_scripts_and_the_tail_of_a_stream_find_their_server(cluster: ClusterGroup) -> None:
    async with wired(cluster.url) as wire:
        await wire.survey("FLUSHALL")
        script, events = Script("lapsed.lua"), RedisEventLog(wire, SHARDS)
        for shard in range(SHARDS):
            assert await wire.run(script, [f"gw:{{{shard}}}:leases"], [1, "p"]) == []
            await events.append(shard, {"n": str(shard)})
        tail = events.tail(range(SHARDS), "0")
        assert {(await anext(tail))[0] for _ in range(SHARDS)} == set(range(SHARDS))
        await tail.aclose()


async def test_any_host_of_the_address_will_do(cluster: ClusterGroup, unused_tcp_port: int) -> None:
    dead = f"127.0.0.1:{unused_tcp_port}"
    async with wired(f"redis+cluster://{dead},127.0.0.1:{cluster.masters[2].port}") as wire:
        assert await wire.execute("SET", "gw:{1}:k", "v")
    async with wired(f"redis+cluster://{dead}") as wire:
        with pytest.raises(LedgerDown, match="as one of a Redis Cluster"):
            await wire.execute("PING")


async def test_a_server_that_hangs_holds_up_its_own_shards_only(cluster: ClusterGroup) -> None:
    hung = cluster.owner(0)
    own = [shard for shard in range(SHARDS) if cluster.owner(shard) is hung]

    async def ask(wire: Wire, shard: int) -> tuple[int, bool, float]:
        began = time.monotonic()
        try:
            await wire.execute("SET", f"gw:{{{shard}}}:k", "v")
        except LedgerDown:
            return shard, False, time.monotonic() - began
        return shard, True, time.monotonic() - began

    async with wired(cluster.url) as wire:
        assert all(ok for _, ok, _ in await asyncio.gather(*(ask(wire, shard) for shard in range(SHARDS))))
        hung.pause()
        try:
            answers = []
            for _ in range(20):
                answers.append(asyncio.gather(*(ask(wire, shard) for shard in range(SHARDS))))
                await asyncio.sleep(0.035)
            told = [answer for batch in answers for answer in await batch]
        finally:
            hung.resume()
        assert all(ok is (shard not in own) for shard, ok, _ in told)
        assert max(took for shard, _, took in told if shard not in own) < TIMEOUT / 2
        assert max(took for _, _, took in told) < TIMEOUT + 0.2
        await asyncio.sleep(0.3)
        assert (await ask(wire, own[0]))[1]


async def test_a_shard_that_moves_is_followed(cluster: ClusterGroup) -> None:
    """ASK while its slot moves, MOVED after it; only what no server has run is sent again."""
    shard = 3
    slot = key_slot(str(shard).encode())
    old = cluster.owner(shard)
    new = next(server for server in cluster.masters if server is not old)
    async with wired(cluster.url) as wire:
        with closing(old.client()) as source, closing(new.client()) as target:
            for key in source.execute_command("CLUSTER GETKEYSINSLOT", slot, 100):  # what other tests left there
                source.delete(key)
            ids = [str(client.execute_command("CLUSTER MYID")) for client in (source, target)]
            target.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", ids[0])
            source.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", ids[1])
            assert await asyncio.gather(*(wire.execute("INCR", f"gw:{{{shard}}}:n") for _ in range(3))) == [1, 2, 3]
            for client in (target, source):
                client.execute_command("CLUSTER SETSLOT", slot, "NODE", ids[1])
            assert await asyncio.gather(*(wire.execute("INCR", f"gw:{{{shard}}}:n") for _ in range(3))) == [4, 5, 6]
            assert await wire.execute("INCR", f"gw:{{{shard}}}:n") == 7


async def test_sentinels_that_hang_do_not_hide_the_master(tmp_path: Path) -> None:
    with SentinelGroup(tmp_path, replicas=0).running(acquainted=False) as group:
        for hung in group.sentinels[:2]:
            hung.pause()
        async with wired(group.url) as wire:
            assert await wire.execute("INCR", "n") == 1
            assert max(await asyncio.gather(*(wire.execute("INCR", "n") for _ in range(300)))) == 301


async def test_a_master_that_was_replaced_is_left_though_it_answers(tmp_path: Path) -> None:
    """As where it is cut off from the Sentinels and not from us: what it takes now will be lost."""
    second = RedisServer(tmp_path / "second")
    second.start()
    try:
        with SentinelGroup(tmp_path, sentinels=1, replicas=0).running() as group:
            async with wired(group.url) as wire:
                await wire.execute("SET", "who", "first")
                with closing(group.sentinels[0].client()) as sentinel:
                    sentinel.execute_command("SENTINEL REMOVE", "mymaster")
                    sentinel.execute_command("SENTINEL MONITOR", "mymaster", "127.0.0.1", second.port, 1)
                replaced, found = time.monotonic(), "first"
                while found == "first":
                    assert time.monotonic() - replaced < 2
                    await asyncio.sleep(0.05)
                    with suppress(LedgerDown):  # in between the group has no master
                        found = await wire.execute("GET", "who")
    finally:
        second.kill()


async def test_a_lost_reply_is_down_and_nothing_is_sent_again(redis_server: RedisServer) -> None:
    proxy = FaultProxy()
    try:
        async with wired(f"redis://127.0.0.1:{await proxy.start(redis_server.port)}") as wire:
            await wire.execute("SET", "n", 0)
            proxy.lose_replies(1, after=b"INCR")
            with pytest.raises(LedgerDown, match="no connection"):
                await wire.execute("INCR", "n")
            await asyncio.sleep(0.3)
            assert await wire.execute("GET", "n") == "1"
    finally:
        await proxy.close()


async def test_a_script_that_has_to_be_sent_in_full_takes_no_longer_than_any_call(redis_server: RedisServer) -> None:
    proxy = FaultProxy()
    try:
        async with wired(f"redis://127.0.0.1:{await proxy.start(redis_server.port)}") as wire:
            await wire.execute("SCRIPT FLUSH")
            proxy.delay(TIMEOUT * 0.4)
            began = time.monotonic()
            with pytest.raises(LedgerDown, match="in time"):
                await wire.run(Script("lapsed.lua"), ["gw:{0}:leases"], [1, "p"])
            assert time.monotonic() - began < TIMEOUT + 0.15
    finally:
        await proxy.close()


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("single"), persistence="none")
    server.start()
    yield server
    server.kill()


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("redis+cluster://u:p%40ss@a,b:7001/?ssl=true", {("a", 6379), ("b", 7001)}),
        ("redis+cluster://[::1]:7000,10.0.0.1", {("::1", 7000), ("10.0.0.1", 6379)}),
    ],
)
def test_all_hosts_and_the_words_of_an_address_are_read(url: str, hosts: set[tuple[str, int]]) -> None:
    made = connect(url)
    assert isinstance(made, Cluster)
    assert made.seeds == hosts
    kwargs = made.client(("a", 1)).connection_pool.connection_kwargs
    assert (kwargs.get("username"), kwargs.get("password")) == (("u", "p@ss") if "@" in url else (None, None))
