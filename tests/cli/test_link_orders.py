"""`link revoke` and `link extend` as the ops run them, on a real Redis; what `link show` and `link list` say then."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from redis import Redis

from gateway.backends.redis_client import Wire, connect
from gateway.backends.redis_control import STREAM, RedisControl
from gateway.backends.redis_events import RedisEventLog
from gateway.backends.redis_links import RedisLinks
from gateway.policy.keys import KeySet, SigningKey, load_key
from gateway.policy.model import Claims, FileEntry
from gateway.policy.standing import Standing
from gateway.policy.tokens import encode
from gateway.services.linking import issue

Run = Callable[..., subprocess.CompletedProcess[str]]
SECRET = "0123456789abcdef0123456789abcdef"
KEY = load_key(kid="a", alg="HS256", secret=SECRET, use="sign")
SHARDS = 4
NOW = int(time.time())
DAY = 86_400
END = NOW + 30 * DAY
LINK = Claims("shop.example.com", "t1", END, (FileEntry("a"),), issued_at=NOW - 5, customer_id="C7", order_id="10001")


def iso(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


@dataclass
class Shop:
    """The ops' side of a Redis."""

    run: Run
    config: Path
    url: str

    def make(self, claims: Claims = LINK, *, here: bool = True) -> str:
        """A link, registered here or signed by the shop itself."""
        assert isinstance(KEY, SigningKey)
        token = asyncio.run(self._issue(claims)) if here else encode(claims, KEY)
        return f"https://dl.example.com/l/{token}"

    async def _issue(self, claims: Claims) -> str:
        wire = Wire(connect(self.url))
        registry, events = RedisLinks(wire, SHARDS), RedisEventLog(wire, SHARDS)
        token = await issue(claims, NOW * 1000, keys=KeySet([KEY]), links=registry, events=events, shards=SHARDS)
        await wire.close()
        return token

    def standing(self) -> Standing:
        async def read() -> Standing:
            wire = Wire(connect(self.url))
            standing = await RedisControl(wire).read_all()
            await wire.close()
            return standing

        return asyncio.run(read())

    def events(self, kind: str) -> list[dict[str, str | None]]:
        """Who the events of this type are about."""
        with Redis.from_url(self.url, decode_responses=True) as client:
            pages = [client.xrange(f"gw:{{{shard}}}:events") for shard in range(SHARDS)]
        names = ("token.id", "order.id", "customer.id")
        events = [fields for page in pages for _, fields in page if fields["type"] == kind]
        return [{name: fields.get(name) for name in names} for fields in events]

    def link(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run("link", *arguments, "--config", self.config)

    def done(self, *arguments: str) -> str:
        shown = self.link(*arguments)
        assert (shown.returncode, shown.stderr) == (0, "")
        return shown.stdout

    def refused(self, *arguments: str, status: int = 1) -> str:
        shown = self.link(*arguments)
        assert (shown.returncode, shown.stdout, shown.stderr.count("\n")) == (status, "", 1)
        return shown.stderr


@pytest.fixture
def shop(run: Run, config: Path, redis_db: str) -> Shop:
    return Shop(run, config, redis_db)


ABOUT_LINK = {"token.id": "t1", "order.id": "10001", "customer.id": "C7"}


def test_revoke_by_id(shop: Shop) -> None:
    shop.make()
    assert shop.done("revoke", "t1") == "revoked the link t1; downloads that run with it are cut within 5 s\n"
    assert shop.standing().is_revoked(LINK)
    assert shop.events("link.revoked") == [ABOUT_LINK]
    assert shop.done("revoke", "t1") == "the link t1 is revoked already; nothing was changed\n"
    assert shop.events("link.revoked") == [ABOUT_LINK]
    assert shop.done("show", "t1").startswith("t1  revoked\n")
    assert shop.done("list").split()[2] == "revoked"


def test_revoke_by_the_link_itself_also_of_one_that_was_not_made_here(shop: Shop) -> None:
    expired = replace(LINK, token_id="t9", expires_at=NOW - 5, order_id=None, customer_id=None)
    address = shop.make(expired, here=False)
    assert shop.done("revoke", address).startswith("revoked the link t9;")
    assert shop.standing().is_revoked(expired)
    assert not shop.standing().is_revoked(LINK)
    assert shop.events("link.revoked") == [{"token.id": "t9", "order.id": None, "customer.id": None}]


def test_revoke_by_order_covers_what_is_there_and_nothing_later(shop: Shop) -> None:
    ahead = replace(LINK, token_id="t2", issued_at=NOW + 10_000)
    for claims in (LINK, ahead, replace(LINK, token_id="t3", order_id="10002")):
        shop.make(claims)
    said = shop.done("revoke", "--order", "10001")
    assert said.startswith("revoked the order 10001: 2 links made here and whatever was made elsewhere until now;")
    standing = shop.standing()
    assert standing.is_revoked(LINK)
    assert standing.is_revoked(ahead)
    assert standing.is_revoked(replace(LINK, token_id="elsewhere", issued_at=int(time.time()) - 30))
    assert not standing.is_revoked(replace(LINK, token_id="later", issued_at=int(time.time())))
    assert not standing.is_revoked(replace(LINK, order_id="10002", token_id="t3"))
    assert sorted(event["token.id"] or "" for event in shop.events("link.revoked")) == ["t1", "t2"]


def test_revoke_an_order_again(shop: Shop) -> None:
    shop.make()
    shop.done("revoke", "--order", "10001")
    said = shop.done("revoke", "--order", "10001")
    assert said.startswith(
        "the order 10001 is revoked already, with 1 link made here, and now whatever was made elsewhere"
    )
    assert len(shop.events("link.revoked")) == 1
    later = replace(LINK, token_id="t2", issued_at=int(time.time()))
    shop.make(later)
    assert not shop.standing().is_revoked(later)
    document = json.loads(shop.done("revoke", "--order", "10001", "--json"))
    assert document == {"order": "10001", "revoked": ["t2"], "already_revoked": ["t1"]}
    assert shop.standing().is_revoked(later)


def test_an_order_that_is_not_known_here_has_one_event(shop: Shop) -> None:
    for _ in range(2):
        said = shop.done("revoke", "--order", "77")
        assert said.startswith("revoked the order 77: no links made here and whatever was made elsewhere until now;")
    assert shop.events("link.revoked") == [{"token.id": None, "order.id": "77", "customer.id": None}]
    assert shop.standing().is_revoked(replace(LINK, order_id="77"))


@pytest.mark.parametrize("verb", [["revoke"], ["extend", "--expires", "30d"]])
@pytest.mark.parametrize(
    ("about", "status", "words"),
    [
        (["t404"], 1, "no link with this id was made here; give the link itself, or its order with --order"),
        (["ż"], 1, "no link with this id"),
        (["\udcff"], 1, "no link with this id"),
        ([""], 1, "no link with this id"),
        (["eyJhbGciOiJub25lIn0.e30.AAAA"], 1, "this link is not good: token."),
        (["--order", "\udcff"], 1, "nothing was ordered: its order.id is none that a link can have"),
        (["--order", ""], 1, "nothing was ordered"),
        (["--order", "a\nb"], 1, "nothing was ordered"),
        ([], 2, "name either one link (its id, or the link itself) or --order"),
        (["t1", "--order", "10001"], 2, "name either one link"),
    ],
)
def test_what_is_not_there_is_refused(shop: Shop, verb: list[str], about: list[str], status: int, words: str) -> None:
    shop.make()
    assert words in shop.refused(*verb, *about, status=status)
    with Redis.from_url(shop.url) as client:
        assert not client.exists(STREAM)


def test_extend_by_id_by_link_and_by_order(shop: Shop) -> None:
    address = shop.make()
    late = iso(END + 50 * DAY)
    assert shop.done("extend", "t1", "--until", late) == f"the link t1 is valid until {late}\n"
    assert shop.standing().extended_to(LINK) == END + 50 * DAY
    assert f"  expires   {late}, extended\n" in shop.done("show", "t1")
    assert shop.done("list").split()[2] == late
    less = iso(END + 5 * DAY)  # the last word counts, also where the one before was too much
    assert json.loads(shop.done("extend", address, "--until", less, "--json")) == {
        "order": None,
        "expires": less,
        "extended": ["t1"],
        "already_revoked": [],
    }
    assert shop.standing().extended_to(LINK) == END + 5 * DAY
    said = shop.done("extend", "--order", "10001", "--until", late)
    expected = f"the order 10001 is valid until {late}: 1 link made here and whatever was made elsewhere until now\n"
    assert said == expected
    assert shop.standing().extended_to(replace(LINK, token_id="elsewhere")) == END + 50 * DAY
    assert shop.standing().extended_to(replace(LINK, token_id="later", issued_at=int(time.time()))) is None
    assert shop.events("link.extended") == [ABOUT_LINK] * 3


def test_an_expired_link_works_again(shop: Shop) -> None:
    shop.make(replace(LINK, expires_at=NOW - 5))
    assert json.loads(shop.done("show", "t1", "--json"))["state"] == "expired"
    shop.done("extend", "t1", "--expires", "30d")
    document = json.loads(shop.done("show", "t1", "--json"))
    assert (document["state"], document["extended"], document["revoked"]) == ("valid", True, False)
    extended = shop.standing().extended_to(LINK)
    assert extended is not None
    assert 0 <= extended - (NOW + 30 * DAY) < 3600
    assert document["expires"] == iso(extended)
    assert json.loads(shop.done("list", "--json"))[0]["expires"] == iso(extended)


def test_the_revoked_are_not_extended(shop: Shop) -> None:
    shop.make()
    shop.done("revoke", "t1")
    final = "it is revoked, and that is final; make a new link with `link create`"
    assert final in shop.refused("extend", "t1", "--expires", "60d")
    assert final in shop.refused("extend", "--order", "10001", "--expires", "60d")
    shop.done("revoke", "--order", "77")
    assert final in shop.refused("extend", "--order", "77", "--expires", "60d")
    shop.make(replace(LINK, token_id="t2"))
    said = shop.done("extend", "--order", "10001", "--expires", "60d")
    assert said.endswith(
        ": 1 link made here and whatever was made elsewhere until now; 1 revoked before and not extended\n"
    )
    assert [event["token.id"] for event in shop.events("link.extended")] == ["t2"]
    assert shop.done("show", "t1").startswith("t1  revoked\n")


def test_an_order_that_is_not_known_here_is_extended_with_one_event(shop: Shop) -> None:
    assert "no links made here" in shop.done("extend", "--order", "77", "--expires", "60d")
    assert shop.events("link.extended") == [{"token.id": None, "order.id": "77", "customer.id": None}]


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        ([], 2, "give either --expires or --until"),
        (["--expires", "30d", "--until", "2999-01-01"], 2, "give either --expires or --until"),
        (["--expires", "30"], 2, "write a number and a unit"),
        (["--expires", "0d"], 1, "lies in the past; write a later one, or end the link with `link revoke`"),
        (["--until", "2020-01-31"], 1, "lies in the past"),
        (["--until", "0001-01-01T00:00:00+14:00"], 1, "lies in the past"),
        (["--until", "9999-12-31T23:59:59-01:00"], 1, "lies beyond the year 9999"),
        (["--expires", "999999999999999y"], 1, "lies beyond the year 9999"),
        (["--until", iso(END - 1)], 1, "anyway; write a later time"),
        (["--until", "2027-02-29"], 2, "write a date like 2027-01-31"),
        (["--until", "2027-01-31T18:00:00"], 2, "18:00:00+01:00"),
        (["--until", "2027-01-31T25:00:00Z"], 2, "write a date like"),
        (["--until", "20270131"], 2, "write a date like"),
        (["--until", "2027-W05-7"], 2, "write a date like"),
        (["--until", "٢٠٢٧-01-31"], 2, "write a date like"),
        (["--until", "10000-01-01"], 2, "write a date like"),
        (["--until", "tomorrow"], 2, "write a date like"),
    ],
)
def test_a_time_that_cannot_be_meant_is_refused(shop: Shop, options: list[str], status: int, words: str) -> None:
    shop.make()
    assert words in shop.refused("extend", "t1", *options, status=status)
    assert shop.events("link.extended") == []
    assert shop.standing().extended_to(LINK) is None


@pytest.mark.parametrize(
    ("until", "expected"),
    [
        ("2999-01-31", "2999-01-31T23:59:59Z"),
        ("2999-01-31T18:00:00+01:00", "2999-01-31T17:00:00Z"),
        ("2999-01-31t18:00:00.9z", "2999-01-31T18:00:00Z"),
        ("2999-01-31 18:00:00-00:30", "2999-01-31T18:30:00Z"),
        ("9999-12-31", "9999-12-31T23:59:59Z"),
    ],
)
def test_ways_to_write_until(shop: Shop, until: str, expected: str) -> None:
    shop.make()
    assert json.loads(shop.done("extend", "t1", "--until", until, "--json"))["expires"] == expected


def test_a_plan_that_shortens_a_link_can_be_extended(shop: Shop) -> None:
    rules = shop.config.with_name("rules.yaml")
    rules.write_text("version: 1\nplans: {week: {valid_for: 7d}}\notherwise: allow\n")
    shop.config.write_text(f"{shop.config.read_text()}rules: {rules}\n")
    shop.make(replace(LINK, plan="week"))
    week = NOW - 5 + 7 * DAY
    assert shop.done("list").split()[2] == iso(week)
    assert f"until {iso(week)} anyway" in shop.refused("extend", "t1", "--until", iso(week - 1))
    shop.done("extend", "t1", "--until", iso(week + DAY))
    assert json.loads(shop.done("show", "t1", "--json"))["expires"] == iso(week + DAY)


def test_an_order_that_cannot_be_read_stops_the_ops_too(shop: Shop) -> None:
    shop.make()
    with Redis.from_url(shop.url) as client:
        client.xadd(STREAM, {"v": "2", "verb": "revoke"}, id="5-0")
    for command in (["revoke", "t1"], ["extend", "t1", "--expires", "60d"], ["show", "t1"], ["list"]):
        assert "the entry 5-0 of gw:{0}:control cannot be read: it is not of version 1" in shop.refused(*command)


@pytest.mark.parametrize("command", ["revoke", "extend"])
def test_help_has_an_example(shop: Shop, command: str) -> None:
    assert f"Example: gateway link {command}" in shop.run("link", command, "--help").stdout


def test_as_processes_without_a_redis(process: Run, config: Path, unused_tcp_port: int) -> None:
    config.write_text(config.read_text().replace("redis: ", f"redis: redis://127.0.0.1:{unused_tcp_port}/0 # "))
    for command in (["revoke", "t1"], ["extend", "--order", "1", "--expires", "30d"]):
        shown = process("link", *command, "--config", config)
        assert (shown.returncode, shown.stdout) == (1, "")
        assert "check that Redis runs at the address in the setting redis" in shown.stderr
