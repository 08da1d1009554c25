"""The way back, on a real Redis: who counts, who decides, and what of it survives."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from ipaddress import ip_address

import pytest

from gateway.backends.redis_client import Wire, connect
from gateway.backends.redis_events import RedisEventLog
from gateway.backends.redis_shards import RedisShards
from gateway.backends.redis_verdicts import ROLLED_BACK, RedisVerdicts
from gateway.errors import LedgerDown, LedgerFault, SettingsError
from gateway.policy.decide import Policy
from gateway.policy.fronts import Waived
from gateway.policy.model import Allow, Claims, Deny, Device, DownloadRequest, FileEntry, Limits, Plan
from gateway.policy.reasons import Reason
from gateway.policy.rollback import Return, Tally, Terms, Watch
from gateway.policy.ruleset import RuleSet
from gateway.policy.standing import Standing
from gateway.services import rollback
from gateway.services.case import Case
from gateway.services.reloading import Watched
from gateway.services.rollback import Returns, Rollback, known_returns

TERMS = Terms(factor=3, within=600, least=20)
WHY = Return("old", 1_795_000_000, Tally(100, 100, 2, 98))
FILE = FileEntry(key="a.pdf")
REQUEST = DownloadRequest("r", "", 1, "GET", ip_address("203.0.113.9"), "203.0.113.0/24")
DEVICE = Device(cookie="c", network="203.0.113.0/24", user_agent=None, id="d")


def rules(text: str) -> RuleSet:
    """Version and meaning by name: what begins with `shut` refuses all; `bad` cannot be read. After `+`: a list."""
    if text.startswith("bad"):
        raise SettingsError("it is bad")
    return RuleSet(version=text, otherwise=not text.startswith("shut"), text=text.partition("+")[0])


@pytest.fixture
async def wire(redis_db: str) -> AsyncIterator[Wire]:
    wire = Wire(connect(redis_db))
    yield wire
    await wire.close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollback, "EVERY", 0.02)
    monkeypatch.setattr(rollback, "GRACE", 0)


@dataclass
class Worker:
    """One Rollback over rules that are what `text` says, with copies of `copies` besides."""

    wire: Wire
    text: str = "old"
    copies: tuple[str, ...] = ()
    terms: Terms = TERMS
    proven: str = ""
    waived: Waived = field(default_factory=dict)
    shown: list[tuple[str, str, str]] = field(default_factory=list)
    told: list[bool] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.book = RedisVerdicts(self.wire, 600)
        self.file: RuleSet | None = None
        self.rules = Watched("rules", self.read, lambda: self.text)

    def read(self) -> RuleSet:
        self.file = rules(self.text)
        return self.file

    def held(self, version: str) -> RuleSet | None:
        return rules(version) if version in self.copies else None

    def prove(self, version: str) -> None:
        self.proven = version

    async def start(self) -> Worker:
        await self.rules.load()
        self.rollback = Rollback(
            self.rules,
            await known_returns(self.book),
            RedisEventLog(self.wire, 1, RedisShards(self.wire, 1)),
            terms=self.terms,
            copies=self,
            policy=lambda rules, case: Policy(rules, case.standing, (), case.holding, self.waived),
            show=lambda what, version, wrong: self.shown.append((what, version, wrong)),
            tell=self.told.append,
        )
        self.rollback.start()
        return self

    async def change(self, text: str) -> None:
        self.text = text
        await self.rules.reload()
        await rounds(self)

    def case(self, link: str, **changes: object) -> Case:
        now = int(time.time())
        claims = replace(Claims(issuer="shop", token_id=link, expires_at=now + 999, files=(FILE,)), **changes)
        return Case(REQUEST, self.rules.current, DEVICE, now * 1000, Standing(), claims, FILE)

    def decide(self, count: int, *, first: int = 0) -> None:
        """So many links are asked for, each decided by the rules in force."""
        for number in range(first, first + count):
            case, refused = self.case(f"link {number}"), not self.rules.current.otherwise
            case.decision = Deny(Reason.RULE_DENIED) if refused else Allow(FILE, (), 10**11)
            self.rollback.note(case, Reason.RULE_DENIED if refused else None)

    async def total(self, version: str) -> Tally:
        await rounds(self)
        return (await self.book.count(Watch(version, "?", 0), Tally()))[1]


@pytest.fixture
async def workers(wire: Wire) -> AsyncIterator[Callable[..., object]]:
    started: list[Worker] = []

    async def start(text: str = "old", **given: object) -> Worker:
        started.append(await Worker(wire, text, **given).start())
        await rounds(started[-1])
        return started[-1]

    yield start
    for each in started:
        await each.rollback.stop()


async def soon(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + 3
    while not holds():
        assert time.monotonic() < until, "it did not come to pass"
        await asyncio.sleep(0.01)


async def rounds(worker: Worker, count: int = 2) -> None:
    before = len(worker.told)
    await soon(lambda: len(worker.told) >= before + count)


async def events(wire: Wire) -> list[dict[str, str]]:
    return [fields async for _, fields in RedisEventLog(wire, 1, RedisShards(wire, 1)).scan(0)]


def critical(caplog: pytest.LogCaptureFixture, words: str) -> int:
    return sum(each.levelno == logging.CRITICAL and words in each.getMessage() for each in caplog.records)


async def test_all_count_together_and_go_back_together(workers, wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    one, two = await workers(), await workers()
    await one.change("shut")
    await two.change("shut")
    watch = await one.book.watched("shut")
    assert (watch.version, watch.before) == ("shut", "old")
    one.decide(15)
    two.decide(15, first=15)  # neither alone has seen twenty
    await soon(lambda: one.rules.version == two.rules.version == "old")
    await rounds(one)
    assert one.told[-1] is True
    assert critical(caplog, "the rules old are in force again") == 2
    assert one.shown[-1][:2] == ("rules", "old")
    [event] = [each for each in await events(wire) if each["type"] == "rules.rolled_back"]
    assert (event["rules.version"], event["rules.refused"]) == ("old", "shut")
    assert (event["share.refused"], event["share.before"]) == ("1.0000", "0.0000")
    assert (await one.book.returns())["shut"].tally == Tally(30, 30, 0, 30)
    await one.change("newer")
    assert (one.rules.version, one.told[-1]) == ("newer", False)


async def test_two_bad_saves_in_a_row_lead_to_the_proven_version(workers) -> None:
    one, two = await workers(), await workers()
    await one.change("shut 1")
    await one.change("shut 2")
    assert (await one.book.watched("shut 2")).before == "old"
    await two.change("shut 2")
    one.decide(30)
    await soon(lambda: one.rules.version == two.rules.version == "old")


async def test_what_outlives_its_watch_is_proven(workers) -> None:
    one = await workers(terms=Terms(3, 1, 20))
    await one.change("fine")
    assert one.proven == "old"
    await soon(lambda: one.proven == "fine")
    await one.change("shut")
    one.decide(30)
    await soon(lambda: one.rules.version == "fine")


async def test_a_version_that_comes_again_is_watched_again(workers) -> None:
    one = await workers()
    await one.book.count(Watch("shut", "older", int(time.time()) - 601), Tally(1000))
    await one.change("shut")
    watch = await one.book.watched("shut")
    assert (watch.before, watch.came > time.time() - 9) == ("old", True)
    assert await one.total("shut") == Tally()


async def test_links_that_were_over_before_hammer_and_nothing_happens(workers) -> None:
    """With eight workers, for each remembers for itself which links it has counted."""
    gates = [await workers() for _ in range(8)]
    for each in gates:
        await each.change("new")
    over, used = Allow(FILE, (), 5), Allow(FILE, (), 10**11, limits=Limits(downloads=1))
    for each in gates:
        each.rollback._beside = replace(rules("old"), plans={"": Plan("", Limits(downloads=1))}, default_plan="")
        for number in range(50):
            case = each.case(f"over {number}", expires_at=5)
            case.decision = over
            each.rollback.note(case, Reason.TOKEN_EXPIRED)
            case = each.case(f"used {number}")
            case.decision = used
            each.rollback.note(case, Reason.LIMIT_DOWNLOADS)
    assert await gates[0].total("new") == Tally(800, 800, 800, 0)
    await rounds(gates[0])
    assert {each.rules.version for each in gates} == {"new"}
    assert await gates[0].book.returns() == {}


async def test_what_is_refused_only_now_by_a_limit_counts(workers) -> None:
    one = await workers()
    await one.change("new")
    for number in range(30):
        case = one.case(f"used {number}")
        case.decision = Allow(FILE, (), 10**11, limits=Limits(downloads=1))
        one.rollback.note(case, Reason.LIMIT_DOWNLOADS)
    await soon(lambda: one.rules.version == "old")


async def test_a_page_would_have_been_refused_where_all_its_files_were(workers) -> None:
    one = await workers("shut")
    await one.change("new")
    case = one.case("page", files=(FILE, FileEntry(key="b.pdf")))
    case.file, case.decision = None, Allow(FILE, (), 10**11)
    one.rollback.note(case, None)
    assert await one.total("new") == Tally(1, 0, 1, 0)


async def test_a_worker_that_reads_the_refused_version_late_goes_back_too(workers) -> None:
    one = await workers()
    await one.book.refuse("new", WHY)
    one.text = "new"
    await one.rules.reload()
    await soon(lambda: one.rules.version == "old")


async def test_only_to_the_version_on_record(workers, caplog: pytest.LogCaptureFixture) -> None:
    one, two = await workers("other", copies=("old",)), await workers("other")
    await one.book.refuse("new", WHY)
    for each in (one, two):
        each.text = "new"
        await each.rules.reload()
    await soon(lambda: one.rules.version == "old")
    await soon(lambda: critical(caplog, "no good copy of old") == 1)
    await rounds(two)
    assert two.rules.version == "new"
    assert (two.told[-1], two.shown[-1][:2], critical(caplog, "no good copy of old")) == (True, ("rules", "new"), 1)
    await two.change("mended")
    assert two.told[-1] is False
    await two.change("new")
    assert critical(caplog, "no good copy of old") == 2


@pytest.mark.parametrize(
    ("reason", "count", "since"),
    [
        (Reason.TOKEN_REVOKED, 100, 0),
        (Reason.REDIS_DOWN, 100, 0),
        (Reason.RULE_DENIED, 19, 0),
        (None, 100, 0),
        (Reason.RULE_DENIED, 100, 601),
    ],
)
async def test_what_is_no_reason_to_go_back(workers, reason: Reason | None, count: int, since: int) -> None:
    one = await workers()
    await one.change("new")
    watch = one.rollback._watch
    await one.book.forget("new")
    one.rollback._watch = replace(watch, came=watch.came - since)
    await rounds(one)
    for number in range(count):
        case = one.case(f"link {number}")
        case.decision = Allow(FILE, (), 10**11) if reason is None else Deny(reason)
        one.rollback.note(case, reason)
    await rounds(one)
    assert one.rules.version == "new"
    assert await one.book.returns() == {}


async def test_one_buyer_who_tries_and_tries_is_one(workers) -> None:
    one = await workers()
    await one.change("shut")
    for _ in range(1000):
        one.decide(1)
    assert await one.total("shut") == Tally(1, 1, 0, 1)


async def test_only_so_many_links_are_remembered(workers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollback, "SEEN_MAX", 3)
    one = await workers()
    await one.change("new")
    for _ in range(2):
        one.decide(5)
    assert len(one.rollback._seen) == 3
    assert await one.total("new") == Tally(7)


async def test_what_another_version_decided_is_not_counted(workers) -> None:
    one = await workers()
    await one.change("shut")
    late = one.case("late")
    late.rules, late.decision = rules("old"), Allow(FILE, (), 10**11)
    one.rollback.note(late, None)
    assert await one.total("shut") == Tally()


async def test_without_a_copy_nothing_is_counted_and_others_decide(workers, caplog: pytest.LogCaptureFixture) -> None:
    other, one = await workers("other"), await workers("other")
    await one.book.count(Watch("shut", "old", int(time.time())), Tally())
    await one.change("shut")
    one.decide(30)
    assert await one.total("shut") == Tally()
    await one.book.count(Watch("shut", "old", 0), Tally(100, 100, 0, 100))
    await rounds(one)
    assert await one.book.returns() == {}, "who cannot go back does not decide it"
    assert (one.rules.version, other.rules.version) == ("shut", "other")


async def test_who_starts_during_a_watch_joins_it(workers) -> None:
    one = await workers()
    await one.change("shut")
    later = await workers("shut", copies=("old",))
    assert later.proven == "old"
    later.decide(30)
    await soon(lambda: one.rules.version == later.rules.version == "old")


async def test_who_starts_during_a_watch_goes_by_what_is_proven_for_the_others(workers) -> None:
    one = await workers()
    await one.change("shut 1")
    later = await workers("shut 1", copies=("old",))
    await later.change("shut 2")
    assert (await one.book.watched("shut 2")).before == "old"


async def test_never_to_what_was_refused_itself(workers, caplog: pytest.LogCaptureFixture) -> None:
    one = await workers("other", copies=("old",))
    await one.book.refuse("new", WHY)
    await one.book.refuse("old", replace(WHY, to="older"))
    await one.change("new")
    assert (one.rules.version, critical(caplog, "no good copy of old")) == ("new", 1)


async def test_another_hosts_change_does_not_end_a_watch(workers) -> None:
    one, other = await workers(), await workers("elsewhere")
    await one.change("shut")
    one.decide(15)
    await rounds(one)
    await other.change("unlike")
    one.decide(15, first=15)
    await soon(lambda: one.rules.version == "old")
    assert other.rules.version == "unlike"


async def test_the_watch_survives_a_loss_of_redis(workers, wire: Wire) -> None:
    one = await workers()
    await one.change("shut")
    before = await one.book.watched("shut")
    await wire.execute("FLUSHALL")
    await rounds(one)
    assert await one.book.watched("shut") == before
    assert 3600 < await wire.execute("TTL", "gw:{0}:watch:shut") <= 4200
    one.decide(30)
    await soon(lambda: one.rules.version == "old")


async def test_what_redis_loses_of_a_return_is_put_back(workers, wire: Wire) -> None:
    one = await workers()
    await one.book.refuse("new", WHY)
    await rounds(one)
    await wire.execute("FLUSHALL")
    await rounds(one)
    assert (await one.book.returns())["new"] == WHY


async def test_a_list_does_not_arm_a_refused_file_again(workers) -> None:
    one = await workers()
    await one.change("shut+list 1")
    one.decide(30)
    await soon(lambda: one.rules.version == "old")
    one.text = "shut+list 2"
    await one.rules.reload()
    await soon(lambda: one.rules.version == "old")


async def test_where_a_list_was_at_fault_another_list_is_another_version(workers) -> None:
    one = await workers("open+1")
    one.rules._read = lambda: replace(rules("shut+2"), text="open")
    await one.rules.reload()
    await rounds(one)
    one.decide(30)
    await soon(lambda: one.rules.version == "open+1")
    one.rules._read = lambda: rules("open+3")
    await one.rules.reload()
    await rounds(one)
    assert one.rules.version == "open+3"


async def test_a_reload_that_ends_meanwhile_is_not_undone() -> None:
    """Between the decision to go back and the way back another file comes into force."""
    texts = ["old"]
    watched = Watched("rules", lambda: rules(texts[0]), lambda: texts[0])
    await watched.load()
    texts[0] = "shut"
    await watched.reload()
    texts[0] = "mended"
    reload = asyncio.create_task(watched.reload())
    await asyncio.sleep(0)
    assert not await watched.go_back(lambda: rules("old"), "shut")
    assert await reload
    assert watched.version == "mended"


async def test_a_file_that_changed_during_the_way_back_is_read() -> None:
    texts = ["shut"]
    watched = Watched("rules", lambda: rules(texts[0]), lambda: texts[0])
    await watched.load()

    def old() -> RuleSet:
        texts[0] = "mended"
        return rules("old")

    back = asyncio.create_task(watched.go_back(old, "shut"))
    await asyncio.sleep(0)
    reload = asyncio.create_task(watched.reload())
    assert await back
    assert await reload, "it waits, and what it reads is put in force after the way back"
    assert watched.version == "mended"
    await watched.go_back(lambda: rules("old"), "mended")
    assert not await watched.has_changed(), "what was left is not read again"
    texts[0] = "newer"
    assert [await watched.has_changed() for _ in range(2)] == [False, True]


async def test_what_could_not_be_put_on_record_is_forgotten(workers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those requests that were decided while Redis was being asked."""
    one = await workers()
    await one.change("new")
    asked = 0

    async def away(_watch: Watch, _tally: Tally) -> tuple[Watch, Tally]:
        nonlocal asked
        asked += 1
        one.decide(5, first=5 * asked)
        raise LedgerDown("away")

    with monkeypatch.context() as patch:
        patch.setattr(one.book, "count", away)
        await rounds(one)
        assert asked
        assert one.rollback._tally == Tally()
    one.decide(1, first=5)
    assert await one.total("new") == Tally(1), "and who it was, too"


async def test_rubbish_under_the_keys_is_said_once_with_what_to_do(
    workers, wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    one = await workers()
    await one.change("shut")
    for key, command in (
        ("gw:{0}:watch:shut", ("HSET", "gw:{0}:watch:shut", "came", "yesterday")),
        ("gw:{0}:watch:shut", ("SET", "gw:{0}:watch:shut", "x")),
        (ROLLED_BACK, ("HSET", ROLLED_BACK, "v", "[]")),
        (ROLLED_BACK, ("SET", ROLLED_BACK, "x")),
    ):
        caplog.clear()
        await wire.execute("DEL", key)
        await rounds(one)
        await wire.execute("DEL", key)
        await wire.execute(*command)
        await rounds(one, 4)
        assert critical(caplog, f"delete it: redis-cli DEL '{key}'") == 1, command
    caplog.clear()
    assert (await known_returns(one.book)).why(rules("v")) is None
    assert critical(caplog, "which rules were rolled back cannot be told") == 1
    with pytest.raises(LedgerFault):
        await one.book.returns()
    await wire.execute("DEL", ROLLED_BACK, "gw:{0}:watch:shut")
    await rounds(one)
    one.decide(30)
    await soon(lambda: one.rules.version == "old")


async def test_counts_add_up_and_end(wire: Wire) -> None:
    book, other = RedisVerdicts(wire, 600), RedisVerdicts(wire, 600)
    assert await book.watched("v") is None
    await book.count(Watch("v", "old", 5), Tally(2, 1, 1, 0))
    found = await other.count(Watch("v", "another", 9), Tally(2, 1, 0, 1))
    assert found == (Watch("v", "old", 5), Tally(4, 2, 1, 1)), "the first word counts"
    assert 3600 < await wire.execute("TTL", "gw:{0}:watch:v") <= 4200
    await wire.execute("EXPIRE", "gw:{0}:watch:v", 50)
    await book.count(Watch("v", "old", 5), Tally())
    assert await wire.execute("TTL", "gw:{0}:watch:v") <= 50, "once a minute is enough"
    await book.forget("v")
    assert await book.watched("v") is None


async def test_without_redis_nothing_is_known_and_nobody_waits(unused_tcp_port: int) -> None:
    away = Wire(connect(f"redis://127.0.0.1:{unused_tcp_port}/0"))
    one = await Worker(away).start()
    one.text = "shut"
    await one.rules.reload()
    one.decide(100)
    await rounds(one)
    assert one.rules.version == "shut"
    await one.rollback.stop()
    await away.close()


async def test_what_was_read_is_not_forgotten(wire: Wire) -> None:
    book = RedisVerdicts(wire, 600)
    returns = Returns(book)
    await book.refuse("new", WHY)
    await book.refuse("new", replace(WHY, to="another"))
    await returns.learn()
    await book.forget("new")
    await wire.execute("DEL", ROLLED_BACK)
    await returns.learn()
    assert returns.why(rules("new")) == WHY


@pytest.mark.parametrize(("waived", "returns"), [({}, False), ({"nginx": frozenset({"rate"})}, True)])
async def test_the_proven_rules_are_asked_at_the_requests_own_door(workers, waived: Waived, returns: bool) -> None:
    """Those who would have been refused before, too, because their door cannot keep their link's rate, are no loss."""
    one = await workers(waived=waived)
    await one.change("shut")
    for number in range(30):
        case = one.case(f"link {number}", limits=Limits(rate=1))
        case = replace(case, request=replace(REQUEST, front="nginx"), decision=Deny(Reason.RULE_DENIED))
        one.rollback.note(case, Reason.RULE_DENIED)
    await rounds(one, 4)
    assert one.rules.version == ("old" if returns else "shut")
    if not returns:
        total = await one.total("shut")
        assert total.share == total.share_before == 1.0
