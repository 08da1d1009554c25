"""What Redis loses is put back as it was: several gateways, their journals, and a real server's keys."""

from __future__ import annotations

import asyncio
import hashlib
import math
import random
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from gateway.backends import redis_shards
from gateway.backends.journal import FileJournal
from gateway.backends.redis_client import Script, Wire
from gateway.backends.redis_control import RedisControl
from gateway.backends.redis_events import RedisEventLog
from gateway.backends.redis_ledger import RedisLedger
from gateway.backends.redis_shards import RedisShards
from gateway.errors import LedgerDown
from gateway.policy.counting import CountingRules
from gateway.policy.limits import charges
from gateway.policy.model import Deny, Device, Limits, Outcome, Reservation
from gateway.policy.standing import Command
from gateway.ports import ReserveAsk
from gateway.services import recovery
from gateway.services.recovery import Recovery

NUMBERS = count()
SIZE = 4_000_000
SOFT = ("leases", "live", "streams")
"""Scores that the living tell again and again are not kept; who stands in these sets is."""


@dataclass
class Worker:
    """One worker of a gateway, as bootstrap wires it, but without a loop of its own."""

    folder: Path
    journal: FileJournal
    shards: RedisShards
    ledger: RedisLedger
    events: RedisEventLog
    recovery: Recovery

    @classmethod
    def on(cls, wire: Wire, folder: Path) -> Worker:
        journal = FileJournal(folder, keep_seconds=3600, bytes_max=10**9)
        journal.open()
        shards = RedisShards(wire, 1, journal=journal)
        ledger = RedisLedger(wire, shards, lease_ms=60_000, keep_ms=10**9)
        control = RedisControl(wire)
        own = Recovery(shards, journal, control, complete_at=lambda: math.inf)
        return cls(folder, journal, shards, ledger, RedisEventLog(wire, 1, shards), own)


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_shards, "GRACE_MS", 60)
    monkeypatch.setattr(redis_shards, "SILENT_MS", 400)
    monkeypatch.setattr(recovery, "FOR_THE_DEAD", 0.03)


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    return [tmp_path / "host-1", tmp_path / "host-2"]


async def entered(workers: list[Worker]) -> None:
    """All look, as their loops would, until each uses the shard again."""
    async with asyncio.timeout(10):
        while True:
            await asyncio.gather(*(worker.recovery.look() for worker in workers))
            if all(worker.shards.is_entered(0) for worker in workers):
                return
            await asyncio.sleep(0.02)


def ask(rng: random.Random, name: str) -> ReserveAsk:
    network = f"10.0.{rng.randrange(4)}.0/24"
    device = Device(rng.choice([None, "a", "b"]), network, "agent", id=f"d{rng.randrange(4)}")
    start = rng.choice([0, 0, 1_000_000])
    return ReserveAsk(
        request_id=name,
        shard=0,
        token_key=f"token{rng.randrange(2)}",
        file_identity="file",
        size=SIZE,
        etag='"e"',
        start=start,
        asked=SIZE - start,
        full=start == 0,
        elsewhere=False,
        device=device,
        charges=charges(Limits(downloads=4, networks=3, devices=3, concurrent=6), device),
        expires_at=4_000_000_000,
        token_expires_at=4_000_000_000,
        rules=CountingRules(),
        status=200,
        stamp={"id": f"allow-{name}", "time": "t"},
        event={"request.id": name, "user_agent.original": "Łódź \u2028 \"'\\ 😀"},
    )


class Traffic:
    """Requests at random on the workers given, some of which live on."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.live: list[tuple[Reservation, int, int]] = []

    async def flow(self, workers: list[Worker], steps: int) -> None:
        for _ in range(steps):
            ledger = self.rng.choice(workers).ledger
            kind = self.rng.random()
            if kind < 0.4 or not self.live:
                got = await ledger.reserve(ask(self.rng, f"r{next(NUMBERS)}"))
                if isinstance(got, Reservation):
                    self.live.append((got, got.granted, 0))
            elif kind < 0.65:
                reservation, granted, acked = self.live.pop(self.rng.randrange(len(self.live)))
                acked = self.rng.randint(acked, granted)
                wanted = min(granted + reservation.window, reservation.asked)
                grant = await ledger.renew(reservation, acked, wanted)
                self.live.append((reservation, grant.granted, acked))
            elif kind < 0.9:
                reservation, granted, acked = self.live.pop(self.rng.randrange(len(self.live)))
                delivered = self.rng.choice([acked, granted])
                outcome = Outcome("complete", delivered, 5, f"end-{reservation.request_id}", "t")
                assert await ledger.settle(reservation, outcome)
            else:
                worker = self.rng.choice(workers)
                await worker.events.append(0, {"id": f"opened-{next(NUMBERS)}", "type": "link.opened"})


async def state(wire: Wire) -> dict[str, object]:
    """Everything the ledger holds in shard 0, but what is about the shard itself."""
    found: dict[str, object] = {}
    for key in sorted(await wire.execute("KEYS", "gw:{0}:*")):
        kind = await wire.execute("TYPE", key)
        name = key.split(":")[2]
        if name in ("meta", "met"):
            continue
        if kind == "hash":
            found[key] = await wire.execute("HGETALL", key)
        elif kind == "zset":
            rows = dict(await wire.execute("ZRANGE", key, 0, -1, "WITHSCORES"))
            found[key] = sorted(rows) if name in SOFT else rows
        else:
            found[key] = await wire.execute("XRANGE", key, "-", "+")
        left = int(await wire.execute("PTTL", key))
        found[f"{key} has an end"] = left > 0
    return found


async def copy_of(wire: Wire) -> dict[str, tuple[str, int]]:
    script = Script("clock.lua")
    script.text = (
        "local all = {} for _, key in ipairs(redis.call('KEYS', 'gw:*')) do "
        "all[#all + 1] = {key, redis.call('DUMP', key), redis.call('PEXPIRETIME', key)} end "
        "for _, row in ipairs(all) do redis.call('HSET', 'copy', row[1], row[2]) "
        "redis.call('HSET', 'copy:ends', row[1], row[3]) end return #all"
    )
    await wire.execute("EVAL", script.text, 0)
    return {}


async def lose_since_copy(wire: Wire) -> None:
    """The server is as it was when it was copied last."""
    text = (
        "local rows, ends = redis.call('HGETALL', 'copy'), {} "
        "for i = 1, #rows, 2 do ends[rows[i]] = redis.call('HGET', 'copy:ends', rows[i]) end "
        "for _, key in ipairs(redis.call('KEYS', 'gw:*')) do redis.call('DEL', key) end "
        "for i = 1, #rows, 2 do local at = math.max(tonumber(ends[rows[i]]), 0) "
        "redis.call('RESTORE', rows[i], string.format('%.0f', at), rows[i + 1], 'ABSTTL') end return #rows"
    )
    await wire.execute("EVAL", text, 0)


async def lose_all(wire: Wire) -> None:
    await wire.execute("FLUSHALL")


async def play(wire: Wire, folders: list[Path], seed: int, *, emptied: bool) -> None:
    rng = random.Random(seed)
    workers = [Worker.on(wire, folders[number % 2]) for number in range(3)]
    try:
        await entered(workers)
        traffic = Traffic(rng)
        await traffic.flow(workers, 15)
        await copy_of(wire)
        await traffic.flow(workers, rng.randrange(1, 25))
        before = await state(wire)
        await (lose_all(wire) if emptied else lose_since_copy(wire))
        dead = workers.pop(rng.randrange(3)) if rng.random() < 0.5 else None
        if dead is not None:
            dead.journal.close()
            if not any(worker.folder == dead.folder for worker in workers):  # nobody else reads it
                workers.append(Worker.on(wire, dead.folder))  # its machine came back
        await entered(workers)
        assert await state(wire) == before
        for worker in workers:  # and the scripts find nothing amiss in it
            await traffic.flow([worker], 5)
    finally:
        for worker in workers:
            worker.journal.close()


@pytest.mark.parametrize("emptied", [False, True])
@pytest.mark.parametrize("seed", range(6))
async def test_what_was_lost_is_put_back_as_it_was(wire: Wire, folders: list[Path], seed: int, emptied: bool) -> None:
    await play(wire, folders, seed, emptied=emptied)


MUTANTS = {
    "a closed request is forgotten": (
        "write('HSET', REQUEST, 'state', 'closed')",
        "redis.call('HSET', REQUEST, 'state', 'closed')",
    ),
    "a counter is not told": ("  tell('HSET', key, field, value)\n", ""),
    "an event is not told": ("  tell('XADD', key, id, ...)\n", ""),
    "nothing removed is told": ("local function tell(command, key, ...)\n", "%sif command == 'HDEL' then return end\n"),
    "the last one first": (
        "local late = placed and meta[4] and meta[4] >= ARGV[3]",
        "local late = placed and meta[4]",
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
async def test_each_mutant_is_caught(
    wire: Wire, folders: list[Path], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    old, new = MUTANTS[name]
    whole = Script.__init__
    found = []

    def mutated(script: Script, *files: str, clock: str | None = None) -> None:
        whole(script, *files, clock=clock)
        if old in script.text:
            found.append(old)
            script.text = script.text.replace(old, new.replace("%s", old))
            script.sha = hashlib.sha1(script.text.encode(), usedforsecurity=False).hexdigest()

    monkeypatch.setattr(Script, "__init__", mutated)

    async def play_all() -> None:
        for number in range(12):
            await wire.execute("FLUSHALL")
            await play(wire, [folder / str(number) for folder in folders], number // 2, emptied=bool(number % 2))

    with pytest.raises(AssertionError):
        await play_all()
    assert found, "the mutated text is no longer in any script"


async def test_commands_of_the_ops_are_put_back_once(wire: Wire, folders: list[Path]) -> None:
    workers = [Worker.on(wire, folder) for folder in folders]
    await entered(workers)
    control = RedisControl(wire)
    commands = [
        Command("revoke", 1_700_000_000, order_id="10001"),
        Command("extend", 1_700_000_001, "ab" * 16, None, 1_900_000_000),
    ]
    for command in commands:
        await control.append(command)
        for worker in workers:
            worker.journal.keep_command(command)
    await lose_all(wire)
    await entered(workers)
    standing = await control.read_all()
    assert standing.order_revoked_until("10001") == 1_700_000_000
    assert len(await wire.execute("XRANGE", "gw:{0}:control", "-", "+")) == 2
    for worker in workers:
        worker.journal.close()


async def test_a_shard_is_refused_until_all_who_came_have_handed_in(wire: Wire, folders: list[Path]) -> None:
    first, second = workers = [Worker.on(wire, folder) for folder in folders]
    await entered(workers)
    given = await second.ledger.reserve(ask(random.Random(1), "given"))
    assert isinstance(given, Reservation)
    await lose_all(wire)
    for _ in range(3):
        await first.recovery.look()
    meeting = await second.shards.meet(0, second.journal.known(0), "")  # it is there, and has not handed in
    assert meeting.state == "closed"
    for _ in range(6):
        await asyncio.sleep(0.05)
        await first.recovery.look()
        with pytest.raises(LedgerDown):
            await first.ledger.reserve(ask(random.Random(1), "again"))
    await entered(workers)
    assert (await first.ledger.usage(0, "token0", ["file"])) == {"file": 1} or (
        await first.ledger.usage(0, "token1", ["file"])
    ) == {"file": 1}
    for worker in workers:
        worker.journal.close()


async def test_without_any_journal_a_restart_is_no_reason_to_close(wire: Wire) -> None:
    ledger = RedisLedger(wire, RedisShards(wire, 1), lease_ms=60_000, keep_ms=10**9)
    assert not isinstance(await ledger.reserve(ask(random.Random(1), "a")), Deny)
    await wire.execute("HSET", "gw:{0}:meta", "run", "another server")
    with pytest.raises(LedgerDown):
        await ledger.reserve(ask(random.Random(1), "b"))
    assert not isinstance(await ledger.reserve(ask(random.Random(1), "b")), Deny)


async def test_a_newcomer_that_finds_an_empty_redis_first_hides_nothing(wire: Wire, folders: list[Path]) -> None:
    first = Worker.on(wire, folders[0])
    await entered([first])
    sold = ask(random.Random(1), "sold")
    assert isinstance(await first.ledger.reserve(sold), Reservation)
    await lose_all(wire)
    newcomer = Worker.on(wire, folders[1])
    await entered([newcomer])
    await entered([first, newcomer])
    assert await first.ledger.usage(0, sold.token_key, ["file"]) == {"file": 1}
    for worker in (first, newcomer):
        worker.journal.close()
