"""Events on their way to an endpoint: a real Redis, a real HTTP server, and whatever goes wrong between the two."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from gateway.backends.redis_client import Wire
from gateway.backends.redis_events import RedisEventLog, stream
from gateway.backends.redis_webhooks import RedisEventQueue, groups_of
from gateway.backends.webhook_sender import HttpSender, host_of
from gateway.policy.events import new_event
from gateway.policy.webhooks import GIVE_UP_AFTER, PAUSES, TRIES_MIN, Taken, next_try, secret_key, signature
from gateway.services import webhooks
from gateway.services.webhooks import AT_ONCE, FAILING, Endpoint

SECRET = "a secret of the shop, long enough"
SOON = (0.05,)
TYPES = ("download.finished", "link.revoked")


@dataclass
class Shop:
    """Answers what it was told to, then 200, and remembers what came; `hold` keeps answers back."""

    answers: list[int] = field(default_factory=list)
    bodies: list[dict[str, object]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    open: asyncio.Event = field(default_factory=asyncio.Event)
    came: asyncio.Condition = field(default_factory=asyncio.Condition)
    at_once: int = 0
    most_at_once: int = 0

    async def take(self, request: web.Request) -> web.Response:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        body = await request.read()
        self.raw.append(body)
        self.bodies.append(json.loads(body))
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        async with self.came:
            self.came.notify_all()
        try:
            await self.open.wait()
        finally:
            self.at_once -= 1
        return web.Response(status=self.answers.pop(0) if self.answers else 200)

    async def until_came(self, count: int) -> None:
        async with self.came:
            await self.came.wait_for(lambda: len(self.bodies) >= count)

    @property
    def told(self) -> list[str]:
        return [str(body["data"]["id"]) for body in self.bodies]  # type: ignore[index]  a JSON object


@dataclass
class Stage:
    wire: Wire
    shop: Shop
    url: str
    log: RedisEventLog
    shards: int = 1
    counted: list[str] = field(default_factory=list)

    async def happened(self, event_id: str, kind: str = "link.revoked", **fields: str) -> None:
        written = new_event(kind, event_id, 1_795_228_200_125, fields)
        await self.log.append(0, written)

    def queue(self, events: tuple[str, ...] = TYPES) -> RedisEventQueue:
        [group] = groups_of([self.url])
        return RedisEventQueue(self.wire, self.shards, group=group, host=host_of(self.url), events=events)

    @asynccontextmanager
    async def endpoint(self, **options: object) -> AsyncIterator[Endpoint]:
        timeout = float(str(options.pop("timeout", 5)))
        events = options.pop("events", TYPES)
        assert isinstance(events, tuple)
        async with HttpSender(self.url, timeout=timeout) as sender:
            given = {"pauses": SOON, "count": self.counted.append, **options}
            yield Endpoint(
                self.queue(events),
                sender,
                host=host_of(self.url),
                key=secret_key(SECRET),
                shards=self.shards,
                **given,  # type: ignore[arg-type]  the test's own options
            )

    async def pending(self) -> int:
        groups = await self.wire.execute("XINFO GROUPS", stream(0))
        return sum(int(group["pending"]) for group in groups)

    async def events(self, kind: str) -> list[dict[str, str]]:
        return [fields async for _, fields in self.log.scan(0) if fields.get("type") == kind]


@pytest.fixture
async def stage(wire: Wire) -> AsyncIterator[Stage]:
    shop = Shop()
    shop.open.set()
    app = web.Application()
    app.router.add_post("/downloads", shop.take)
    async with TestServer(app) as server:
        yield Stage(wire, shop, str(server.make_url("/downloads")) + "?key=secret", RedisEventLog(wire, 1))


async def until(what: Callable[[], bool], endpoint: Endpoint, patience: float = 5.0) -> None:
    """Work until it is so."""
    end = time.monotonic() + patience
    while not what():
        assert time.monotonic() < end, "it never came to that"
        if not await endpoint.work():
            await asyncio.sleep(0.01)


def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three days and a bit pass, for the endpoint."""
    now = time.time() + GIVE_UP_AFTER + 5
    monkeypatch.setattr(webhooks.time, "time", lambda: now)


async def test_an_event_is_told_signed_and_once(stage: Stage) -> None:
    async with stage.endpoint() as endpoint:
        await stage.happened("before", **{"order.id": "1"})
        assert await endpoint.work() is False, "what happened before the endpoint was there is not told"
        await stage.happened("e1", **{"order.id": "1", "token.id": "t"})
        await stage.happened("e2", "link.opened")
        assert await endpoint.work() is True
        assert await endpoint.work() is False
    [headers], [raw] = stage.shop.headers, stage.shop.raw
    assert headers["webhook-id"] == "e1"
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
    signed = f"e1.{headers['webhook-timestamp']}.".encode() + raw
    good = base64.b64encode(hmac.new(SECRET.encode(), signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{good}"
    assert headers["content-type"] == "application/json"
    assert stage.shop.bodies == [
        {
            "type": "link.revoked",
            "timestamp": "2026-11-21T02:30:00.125Z",
            "data": {
                "id": "e1",
                "v": "1",
                "time": "2026-11-21T02:30:00.125Z",
                "type": "link.revoked",
                "order.id": "1",
                "token.id": "t",
            },
        }
    ]
    assert await stage.pending() == 0
    assert stage.counted == ["sent"]


async def test_events_of_one_order_come_in_their_sequence(stage: Stage) -> None:
    async with stage.endpoint() as endpoint:
        await endpoint.work()
        for number in range(60):
            await stage.happened(f"{number:02d}", **{"order.id": str(number % 3)})
        stage.shop.open.clear()
        working = asyncio.create_task(endpoint.work())
        await stage.shop.until_came(3)
        assert sorted(stage.shop.told) == ["00", "01", "02"], "one of each order at a time"
        stage.shop.open.set()
        await working
        await until(lambda: len(stage.shop.told) == 60, endpoint)
    for order in range(3):
        own = [each for each in stage.shop.told if int(each) % 3 == order]
        assert own == sorted(own)


async def test_no_more_than_eight_are_on_their_way_at_a_time(stage: Stage) -> None:
    async with stage.endpoint() as endpoint:
        await endpoint.work()
        for number in range(40):
            await stage.happened(f"e{number}")
        stage.shop.open.clear()
        working = asyncio.create_task(endpoint.work())
        await stage.shop.until_came(AT_ONCE)
        stage.shop.open.set()
        await working
        await until(lambda: len(stage.shop.told) == 40, endpoint)
    assert stage.shop.most_at_once == AT_ONCE
    assert len(set(stage.shop.told)) == 40


@pytest.mark.parametrize("status", [500, 401, 302, 429])
async def test_what_is_not_taken_comes_again_the_same(stage: Stage, status: int) -> None:
    stage.shop.answers = [status, status]
    async with stage.endpoint() as endpoint:
        await endpoint.work()
        await stage.happened("e1")
        await until(lambda: len(stage.shop.told) == 3, endpoint)
        assert await endpoint.work() is False
    assert stage.shop.told == ["e1"] * 3
    assert len(set(stage.shop.raw)) == 1
    assert await stage.pending() == 0
    assert stage.counted == ["retried", "retried", "sent"]


async def test_one_that_fails_does_not_hold_up_the_others(stage: Stage) -> None:
    stage.shop.answers = [500]
    async with stage.endpoint(pauses=(60,)) as endpoint:
        await endpoint.work()
        for number in range(5):
            await stage.happened(f"e{number}", **{"order.id": "1"})
        await endpoint.work()
        assert stage.shop.told == ["e0", "e1", "e2", "e3", "e4"]
        assert await stage.pending() == 1
        assert await endpoint.work() is False, "its next try is not due"


async def test_an_endpoint_that_hangs_delays_only_itself(stage: Stage) -> None:
    """Its first answer never comes; the next worker's round does not wait for more than its limit."""
    stage.shop.open.clear()
    async with stage.endpoint(timeout=0.2) as endpoint:
        await endpoint.work()
        await stage.happened("e1")
        began = time.monotonic()
        await endpoint.work()
        assert time.monotonic() - began < 1
        assert await stage.pending() == 1
        stage.shop.open.set()
        await until(lambda: stage.counted[-1] == "sent", endpoint)
    assert stage.shop.told == ["e1", "e1"]


async def test_a_server_that_was_away_is_told_of_everything_in_the_end(
    wire: Wire, unused_tcp_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    shop = Shop()
    shop.open.set()
    stage = Stage(wire, shop, f"http://127.0.0.1:{unused_tcp_port}/downloads?key=hidden", RedisEventLog(wire, 1))
    async with stage.endpoint(pauses=(0.05, 3600)) as endpoint:
        await endpoint.work()
        for number in range(30):
            await stage.happened(f"{number:02d}", **{"order.id": "1"})
        await until(lambda: stage.counted.count("retried") >= FAILING + 2, endpoint)
        while await endpoint.work():
            pass
        tried = await stage.pending()
        assert tried < 12, "an endpoint that fails gets a probe now and then, and not everything"
        app = web.Application()
        app.router.add_post("/downloads", shop.take)
        async with TestServer(app, port=unused_tcp_port):
            endpoint._probe_at = float("-inf")  # a minute later
            await until(lambda: len(set(shop.told)) == 30, endpoint)
    assert sorted(shop.told) == [f"{number:02d}" for number in range(30)], "though the next tries were an hour away"
    assert await stage.pending() == 0
    said = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("gateway."))
    assert f"127.0.0.1:{unused_tcp_port} does not take its webhooks (no connection)" in said
    assert "takes its webhooks again" in said
    assert "hidden" not in said


async def test_what_a_dead_worker_had_taken_is_sent_by_another(stage: Stage) -> None:
    """It had sent, and died before it could say so: the same comes again, and nothing is lost."""
    async with stage.endpoint() as first:
        await first.work()
        await stage.happened("e1")
        stage.shop.open.clear()
        dying = asyncio.create_task(first.work())
        await stage.shop.until_came(1)
        dying.cancel()
        await asyncio.gather(dying, return_exceptions=True)
    stage.shop.open.set()
    async with stage.endpoint() as second:
        assert await second.work() is False, "it may still be on its way"
        await stage.queue().take(0, 0, 0, oldest=0, patience=1)
    # Time passes: the hundred seconds for which it was the first one's.
    await stage.wire.execute(
        *("XCLAIM", stream(0), groups_of([stage.url])[0], "sending", 0),
        *((await stage.wire.execute("XREVRANGE", stream(0), "+", "-", "COUNT", 1))[0][0],),
        *("IDLE", 8 * 86_400_000, "JUSTID"),
    )
    async with stage.endpoint() as second:
        await until(lambda: stage.shop.told == ["e1", "e1"], second)
    assert len(set(stage.shop.raw)) == 1
    assert await stage.pending() == 0


async def test_patience_is_what_another_worker_waits(stage: Stage) -> None:
    queue = stage.queue()
    await queue.open()
    await stage.happened("e1")
    [taken], _ = await queue.take(0, 8, 8, oldest=0, patience=0.15)
    began = time.monotonic()
    assert (await queue.take(0, 8, 8, oldest=0, patience=0.15))[0] == []
    again: list[Taken] = []
    for _ in range(200):
        again = (await queue.take(0, 8, 8, oldest=0, patience=60))[0]
        if again:
            break
        await asyncio.sleep(0.01)
    assert 0.1 < time.monotonic() - began < 2
    assert (again[0].entry_id, again[0].tries) == (taken.entry_id, 1)


async def test_two_workers_share_and_send_nothing_twice(stage: Stage) -> None:
    async with stage.endpoint() as one, stage.endpoint() as two:
        await asyncio.gather(one.work(), two.work())
        for number in range(100):
            await stage.happened(f"e{number}")

        async def work(endpoint: Endpoint) -> None:
            while await endpoint.work():
                pass

        await asyncio.gather(work(one), work(two))
    assert len(stage.shop.told) == 100
    assert len(set(stage.shop.told)) == 100


async def test_what_nobody_takes_is_given_up_and_told(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.shop.answers = [500] * 100
    async with stage.endpoint(pauses=(0,), events=("link.revoked", "webhook.failed")) as endpoint:
        await endpoint.work()
        await stage.happened("e1", **{"order.id": "1"})
        later(monkeypatch)
        await until(lambda: "failed" in stage.counted, endpoint)
        while await endpoint.work():
            pass
    assert stage.shop.told == ["e1"] * TRIES_MIN, "it is not told of its own failures"
    [event] = await stage.events("webhook.failed")
    assert (event["webhook.host"], event["webhook.attempts"], event["webhook.id"]) == (
        host_of(stage.url),
        str(TRIES_MIN),
        "e1",
    )
    assert (event["order.id"], event["reason"]) == ("1", "500")
    assert await stage.pending() == 0, "so that the stream can be trimmed"


async def test_what_waits_unsent_for_too_long_is_given_up_while_the_endpoint_fails(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else an endpoint that is gone for good would keep every event from being trimmed."""
    stage.shop.answers = [500] * 3
    async with stage.endpoint(pauses=(3600,)) as endpoint:
        await endpoint.work()
        for number in range(FAILING):
            await stage.happened(f"e{number}")
        await endpoint.work()
        for number in range(700):
            await stage.happened(f"old{number}")
        later(monkeypatch)
        while await endpoint.work():
            pass
    events = await stage.events("webhook.failed")
    assert len(events) == 700
    assert {event["webhook.attempts"] for event in events} == {"0"}
    assert await stage.pending() == FAILING


async def test_an_endpoint_that_is_gone_is_left_alone_loudly(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    stage.shop.answers = [410]
    async with stage.endpoint() as endpoint:
        await endpoint.work()
        await stage.happened("e1")
        await endpoint.work()
        await stage.happened("e2")
        for _ in range(5):
            await endpoint.work()
            await asyncio.sleep(0.03)
        assert stage.shop.told == ["e1"]
    assert [record.levelname for record in caplog.records if "410 Gone" in record.message] == ["CRITICAL"]
    async with stage.endpoint() as restarted:
        await until(lambda: set(stage.shop.told) == {"e1", "e2"}, restarted)


async def test_a_redis_that_was_emptied_is_told_of_and_nothing_after_that_is_lost(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    async with stage.endpoint() as endpoint:
        await endpoint.work()
        await stage.wire.execute("FLUSHDB")
        await stage.happened("e1")
        await until(lambda: stage.shop.told == ["e1"], endpoint)
    assert "Redis has lost how far" in caplog.text


async def test_a_group_that_was_lost_goes_back_an_hour_and_no_further(stage: Stage) -> None:
    async with stage.endpoint() as endpoint:
        await endpoint.work()
        now = int(time.time() * 1000)
        await stage.wire.execute("XGROUP DESTROY", stream(0), groups_of([stage.url])[0])
        await stage.wire.execute("DEL", stream(0))
        for entry_id, name in ((now - 7_200_000, "old"), (now - 1_800_000, "new")):
            await stage.wire.execute("XADD", stream(0), f"{entry_id}-0", "id", name, "type", "link.revoked")
        await until(lambda: bool(stage.shop.told), endpoint)
        assert await endpoint.work() is False
    assert stage.shop.told == ["new"]


async def test_trimming_waits_for_what_is_not_told_and_not_for_endpoints_that_are_gone(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gateway.backends import redis_events  # noqa: PLC0415  its constant is changed here

    stage.shop.answers = [500]
    async with stage.endpoint(pauses=(3600,)) as endpoint:
        await endpoint.work()
        for number in range(3):
            await stage.wire.execute("XADD", stream(0), f"{9_000_000_000_000 + number}-0", "type", "link.revoked")
        await endpoint.work()
        assert await stage.pending() == 1
        assert await stage.log.trim(0, -(10**10)) == 0
        monkeypatch.setattr(redis_events, "FORSAKEN_MS", -1)
        assert await stage.log.trim(0, -(10**10)) == 3
    assert await stage.wire.execute("XINFO GROUPS", stream(0)) == []


async def test_every_shard_is_looked_at(wire: Wire, stage: Stage) -> None:
    stage.shards, stage.log = 5, RedisEventLog(wire, 5)
    async with stage.endpoint() as endpoint:
        await endpoint.work()
        for shard in range(5):
            for number in range(12):
                await stage.log.append(shard, {"id": f"{shard}.{number}", "type": "link.revoked"})
        await until(lambda: len(stage.shop.told) == 60, endpoint)
    assert len(set(stage.shop.told)) == 60


def test_the_schedule_goes_from_seconds_to_three_days() -> None:
    taken = Taken(0, "1000000-0", {})
    now, tries, pauses = 1000.0, 0, []
    while (pause := next_try(Taken(0, taken.entry_id, {}, tries), now)) is not None:
        pauses.append(pause)
        now, tries = now + pause, tries + 1
    assert pauses[:6] == list(PAUSES)
    assert set(pauses[6:]) == {PAUSES[-1]}
    assert GIVE_UP_AFTER - PAUSES[-1] < now - 1000 <= GIVE_UP_AFTER


def test_an_event_that_was_late_at_its_first_try_has_five_all_the_same() -> None:
    late = 10**9
    assert [next_try(Taken(0, "1000-0", {}, tries), late) for tries in range(6)] == [*PAUSES[:4], None, None]


@pytest.mark.parametrize(
    ("secret", "key"),
    [
        ("whsec_" + base64.b64encode(bytes(range(24))).decode(), bytes(range(24))),
        ("a plain text with ł, and of 24 bytes", "a plain text with ł, and of 24 bytes".encode()),
    ],
)
def test_a_secret_is_base64_behind_its_prefix_else_text(secret: str, key: bytes) -> None:
    assert secret_key(secret) == key


@pytest.mark.parametrize("secret", ["whsec_***", "whsec_c2hvcnQ=", "tiny", "whsec_" + "A" * 33])
def test_a_secret_that_is_no_good_is_not_repeated(secret: str) -> None:
    with pytest.raises(ValueError, match=r"shorter than 24|no base64") as refused:
        secret_key(secret)
    assert secret.removeprefix("whsec_") not in str(refused.value)


def test_the_signature_is_the_one_of_the_standards_own_example() -> None:
    """The figures are those that the standard's own libraries are tested with."""
    key = secret_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    made = signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, b'{"test": 2432232314}')
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_each_address_has_a_group_of_its_own() -> None:
    one, two, again = groups_of(["https://a.example.com/x", "https://a.example.com/y", "https://a.example.com/x"])
    assert len({one, two, again}) == 3
    assert groups_of(["https://a.example.com/y", "https://a.example.com/x"]) == [two, one]
    assert "example" not in one
