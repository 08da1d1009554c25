"""What is still to be sent to an endpoint, where the shards lie on several servers, and at the edges of a group."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis_groups import ClusterGroup

from gateway.backends.redis_client import Wire, connect
from gateway.backends.redis_events import RedisEventLog, stream
from gateway.backends.redis_webhooks import RedisEventQueue, groups_of
from gateway.errors import LedgerDown
from gateway.policy.webhooks import Taken

SHARDS = 6
[GROUP] = groups_of(["https://shop.example.com/downloads"])


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterGroup]:
    with ClusterGroup(tmp_path_factory.mktemp("cluster")).running() as group:
        yield group


def queue(wire: Wire, shards: int = 1) -> RedisEventQueue:
    return RedisEventQueue(wire, shards, group=GROUP, host="shop.example.com", events=["link.revoked"])


async def taken(own: RedisEventQueue, shard: int = 0, most: int = 8) -> list[Taken]:
    return (await own.take(shard, most, most, oldest=0, patience=60))[0]


async def test_a_cluster_has_a_group_on_every_shard(cluster: ClusterGroup) -> None:
    wire = Wire(connect(cluster.url))
    try:
        await wire.survey("FLUSHALL")
        own, log = queue(wire, SHARDS), RedisEventLog(wire, SHARDS)
        await own.open()
        await own.open()
        for shard in range(SHARDS):
            await log.append(shard, {"type": "link.revoked", "id": str(shard)})
            [one] = await taken(own, shard)
            assert one.fields["id"] == str(shard)
            await own.postpone(one, 3600)
        assert [await taken(own, shard) for shard in range(SHARDS)] == [[]] * SHARDS
        await own.hurry()
        for shard in range(SHARDS):
            [one] = await taken(own, shard)
            assert one.tries == 1
            await own.give_up(one, {"type": "webhook.failed"})
            assert [fields["type"] async for _, fields in log.scan(shard)] == ["link.revoked", "webhook.failed"]
            await own.give_up(one, {"type": "webhook.failed"})
            assert len([entry async for entry in log.scan(shard)]) == 2, "it is told once"
    finally:
        await wire.close()


async def test_oldest_first_and_what_is_due_again_before_what_is_new(wire: Wire) -> None:
    own, log = queue(wire), RedisEventLog(wire, 1)
    await own.open()
    for number in range(4):
        await log.append(0, {"type": "link.revoked", "id": str(number)})
    first, second = await taken(own, most=2)
    await own.postpone(second, 0)
    await own.postpone(first, 0)
    assert [each.fields["id"] for each in await taken(own, most=3)] == ["0", "1", "2"]


async def test_an_entry_that_somebody_removed_is_in_nobodys_way(wire: Wire) -> None:
    own, log = queue(wire), RedisEventLog(wire, 1)
    await own.open()
    await log.append(0, {"type": "link.revoked", "id": "1"})
    [one] = await taken(own)
    await own.postpone(one, 0)
    await wire.execute("XDEL", stream(0), one.entry_id)
    assert await taken(own) == []
    pending = await wire.execute("XPENDING", stream(0), GROUP)
    assert pending["pending"] == 0


async def test_many_of_no_interest_are_passed_over_and_more_is_said(wire: Wire) -> None:
    own, log = queue(wire), RedisEventLog(wire, 1)
    await own.open()
    for number in range(1200):
        await log.append(0, {"type": "download.allowed", "id": str(number)})
    await log.append(0, {"type": "link.revoked", "id": "wanted"})
    calls, found, more = 0, [], True
    while more:
        found, more = await own.take(0, 8, 8, oldest=0, patience=60)
        calls += 1
    assert [each.fields["id"] for each in found] == ["wanted"]
    assert 2 <= calls <= 4


async def test_a_redis_that_is_away_is_said_and_a_key_that_is_not_ours(wire: Wire, unused_tcp_port: int) -> None:
    own = queue(wire)
    await wire.execute("SET", stream(0), "not a stream")
    for call in (own.open(), taken(own)):
        with pytest.raises(LedgerDown, match="WRONGTYPE"):
            await call
    nobody = Wire(connect(f"redis://127.0.0.1:{unused_tcp_port}"))
    with pytest.raises(LedgerDown, match="no connection"):
        await queue(nobody).open()
    await nobody.close()
