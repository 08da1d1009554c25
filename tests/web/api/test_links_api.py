"""The calls about links, end to end; and that whoever acts is on record first."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest
from redis.asyncio import Redis

from gateway.backends import redis_control
from gateway.policy.model import Claims
from gateway.policy.shards import shard_of
from gateway.policy.standing import Command, read_command, write_command
from gateway.policy.tokens import parse
from gateway.services.staff import record
from gateway.settings import Settings
from gateway.web.api import call

Ask = Callable[..., Awaitable[Any]]
Acted = Callable[[], Awaitable[list[dict[str, str]]]]

NEW = {
    "files": [{"key": "ebooks/sea.pdf", "name": "Sea.pdf"}],
    "order_id": "10001",
    "customer_id": "C7",
    "ip": ["203.0.113.0/24"],
    "limits": {"downloads": 3},
}


async def test_a_link_from_its_making_to_its_end(ask: Ask, acted: Acted, settings: Settings) -> None:
    made = await ask("ops", "POST", "/links", {**NEW, "expires": "2098-01-31T18:00:00+01:00"})
    assert made.status == 201
    token_id = made.body["token_id"]
    assert made.headers["Location"] == f"/api/v1/links/{token_id}"
    claims = parse(made.body["link"].removeprefix("https://dl.example.com/l/"), settings.key_set(), settings.issuer)
    assert isinstance(claims, Claims)
    assert (claims.token_id, claims.order_id, claims.limits.get("downloads")) == (token_id, "10001", 3)

    shown = await ask("read-only", "GET", f"/links/{token_id}")
    assert {**shown.body, "link": made.body["link"]} == made.body
    assert (shown.body["state"], shown.body["expires"]) == ("valid", "2098-01-31T17:00:00Z")
    assert shown.body["files"] == [
        {"key": "ebooks/sea.pdf", "url": None, "name": "Sea.pdf", "downloads": 0, "limit": 3},
    ]
    assert (await ask("read-only", "GET", "/links?order=10001")).body == {"links": [shown.body]}

    extended = await ask("support", "POST", f"/links/{token_id}/extend", {"until": "2099-01-31T18:00:00Z"})
    assert (extended.status, extended.body) == (200, {"token_id": token_id, "expires": "2099-01-31T18:00:00Z"})
    revoked = [await ask("ops", "POST", f"/links/{token_id}/revoke") for _ in range(2)]
    assert [each.body["already"] for each in revoked] == [False, True]
    assert (await ask("read-only", "GET", f"/links/{token_id}")).body["state"] == "revoked"
    final = await ask("ops", "POST", f"/links/{token_id}/extend", {"until": "2099-02-01T00:00:00Z"})
    assert (final.status, final.body["reason"]) == (409, "refused")

    subject = {"order.id": "10001", "token.id": token_id}
    acts = (("otto", "link.create", "201"), ("sam", "link.extend", "200"), *[("otto", "link.revoke", "200")] * 2)
    assert (await acted())[:-1] == [
        {"staff.name": name, "staff.action": action, **subject, "http.response.status_code": status}
        for name, action, status in acts
    ]
    assert (await acted())[-1]["http.response.status_code"] == "409"


async def test_the_same_key_of_the_same_user_gives_the_same_link(ask: Ask, acted: Acted) -> None:
    headers = {"Idempotency-Key": "a key"}
    wrong = await ask("ops", "POST", "/links", NEW, headers=headers)
    assert (wrong.status, wrong.body["reason"]) == (400, "key.wrong")
    headers = {"Idempotency-Key": "order-10001-mail"}
    first, second = [await ask("ops", "POST", "/links", NEW, headers=headers) for _ in range(2)]
    assert (first.status, second.status) == (201, 201)
    assert first.body == second.body
    other = await ask("ops", "POST", "/links", {**NEW, "order_id": "10002"}, headers=headers)
    assert (other.status, other.body.get("reason")) == (422, "key.used")
    without = await ask("ops", "POST", "/links", NEW)
    assert without.body["token_id"] != first.body["token_id"]
    assert len((await ask("ops", "GET", "/links?order=10001")).body["links"]) == 2
    assert [each["staff.action"] for each in await acted()] == ["link.create"] * 3  # the refused one, too


async def test_several_at_once_with_one_key_make_one_link(ask: Ask) -> None:
    headers = {"Idempotency-Key": "k"}
    made = await asyncio.gather(*(ask("ops", "POST", "/links", NEW, headers=headers) for _ in range(8)))
    assert {each.status for each in made} == {201}
    assert len({each.body["link"] for each in made}) == 1
    assert len((await ask("ops", "GET", "/links?order=10001")).body["links"]) == 1


async def test_who_comes_while_the_link_is_being_made_waits_for_it(
    ask: Ask, acted: Acted, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is made once, and told once."""

    async def slowly(*given: Any) -> None:
        await asyncio.sleep(0.2)
        await record(*given)

    monkeypatch.setattr(call, "record", slowly)
    headers = {"Idempotency-Key": "k"}
    made = await asyncio.gather(*(ask("ops", "POST", "/links", NEW, headers=headers) for _ in range(4)))
    assert ({each.status for each in made}, len({each.body["link"] for each in made})) == ({201}, 1)
    async with Redis.from_url(settings.redis.get_secret_value(), decode_responses=True) as client:
        stream = f"gw:{{{shard_of('10001', settings.shards)}}}:events"
        kinds = [fields["type"] for _, fields in await client.xrange(stream)]
    assert kinds == ["staff.acted", "link.created"]


async def test_what_others_order_meanwhile_counts_and_nothing_is_read_twice(
    ask: Ask, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = 0

    def counted(fields: Mapping[str, str]) -> Command:
        nonlocal read
        read += 1
        return read_command(fields)

    monkeypatch.setattr(redis_control, "read_command", counted)
    made = (await ask("ops", "POST", "/links", NEW)).body
    claims = parse(made["link"].rpartition("/")[2], settings.key_set(), settings.issuer)
    assert isinstance(claims, Claims)
    others = [Command("revoke", 1, token_key=f"{number:032x}") for number in range(20)]
    async with Redis.from_url(settings.redis.get_secret_value()) as client:
        for command in (*others, Command("revoke", 1, token_key=claims.token_key)):
            await client.xadd("gw:{0}:control", dict(write_command(command).items()))
        for _ in range(5):
            assert (await ask("ops", "GET", f"/links/{made['token_id']}")).body["state"] == "revoked"
        assert read == 21
        await client.delete("gw:{0}:control")
        assert (await ask("ops", "GET", f"/links/{made['token_id']}")).body["state"] == "revoked"
        await client.xadd("gw:{0}:control", {"v": "none"})
        refused = await ask("ops", "GET", f"/links/{made['token_id']}")
        assert (refused.status, "cannot be read" in refused.body["detail"]) == (409, True)


async def test_who_died_between_the_key_and_the_link_is_helped(ask: Ask, settings: Settings) -> None:
    headers = {"Idempotency-Key": "k"}
    first = await ask("ops", "POST", "/links", {"files": [{"key": "a"}]}, headers=headers)
    async with Redis.from_url(settings.redis.get_secret_value()) as client:
        for shard in range(settings.shards):
            await client.delete(f"gw:{{{shard}}}:links")
    again = await ask("ops", "POST", "/links", {"files": [{"key": "a"}]}, headers=headers)
    assert (again.status, again.body.get("link")) == (201, first.body["link"])
    assert (await ask("ops", "GET", f"/links/{first.body['token_id']}")).status == 200


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"files": []}, 422, "files: "),
        ({}, 422, "files is missing"),
        ({**NEW, "order": "1"}, 422, "order is no member that is known here; write one of files, order_id"),
        ({**NEW, "limits": {"speed": 1}}, 422, "limits.speed is no member"),
        ({**NEW, "limits": {"downloads": "3"}}, 422, "limits.downloads: "),
        ({**NEW, "limits": {"downloads": True}}, 422, "limits.downloads: "),
        ({**NEW, "limits": {"downloads": 0}}, 422, "limits.downloads: "),
        ({**NEW, "files": [{"key": "a", "url": "https://x.example.com/"}]}, 422, "either a key or a url"),
        ({**NEW, "files": [{"key": "../a"}]}, 409, "No link was made: a file's key has a . or .. segment."),
        ({**NEW, "expires": "tomorrow"}, 422, "expires is no time; write one like 2027-01-31T18:00:00Z"),
        ({**NEW, "expires": 1893456000}, 422, "expires"),
        ({**NEW, "expires": "2020-01-01T00:00:00Z"}, 422, "Expires lies in the past"),
        ({**NEW, "ip": ["203.0.113.1/24"]}, 422, "ip.0 is no network"),
        ({**NEW, "plan": "gold"}, 422, "Plan: there is no plan gold; write one of standard."),
        ({**NEW, "plan": "standard", "limits": {"downloads": 6}}, 422, "Downloads can only tighten the plan standard"),
        ({**NEW, "order_id": " 1"}, 422, "order_id: "),
        ({**NEW, "order_id": "buyer@example.com"}, 422, "order_id holds an @, and everybody can read a token; write"),
        ({**NEW, "customer_id": "buyer@example.com"}, 422, "customer_id holds an @, and everybody can read a token"),
        ([], 422, ""),
    ],
)
async def test_what_cannot_be_made_is_said_in_words(body: object, status: int, says: str, ask: Ask) -> None:
    answer = await ask("ops", "POST", "/links", body)
    assert (answer.status, says in answer.body["detail"]) == (status, True), answer.body
    assert (await ask("ops", "GET", "/links?order=10001")).body == {"links": []}


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"data": b"{", "headers": {"Content-Type": "application/json"}}, 400),
        ({"data": b'{"files": ["\xff"]}', "headers": {"Content-Type": "application/json"}}, 400),
        ({"data": b"{}", "headers": {"Content-Type": "text/plain"}}, 415),
        ({"data": b"{}", "headers": {"Content-Type": "application/json", "Content-Encoding": "gzip"}}, 415),
        ({"data": b" " * 70_000, "headers": {"Content-Type": "application/json"}}, 413),
        ({"data": b""}, 415),
    ],
)
async def test_what_is_no_json_is_refused(more: dict[str, Any], status: int, ask: Ask) -> None:
    assert (await ask("ops", "POST", "/links", **more)).status == status


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/links", 400),
        ("GET", "/links?order=1&order=2", 400),
        ("GET", "/links?order=1&also=2", 400),
        ("GET", "/links/unknown", 404),
        ("GET", "/links/%00", 404),
        ("GET", "/links/%7B%7D", 404),
        ("GET", "/links/a%2Fb", 404),
        ("POST", "/links/unknown/revoke", 404),
        ("GET", "/nothing", 404),
        ("DELETE", "/links/unknown", 405),
        ("GET", "/orders/none/events?limit=501", 400),
        ("GET", "/orders/none/events?after=x", 400),
        ("GET", "/orders/none/events", 200),
        ("GET", "/orders/%ff", 404),
    ],
)
async def test_addresses_that_lead_nowhere(method: str, path: str, status: int, ask: Ask) -> None:
    answer = await ask("ops", method, path)
    assert answer.status == status
    assert ("Allow" in answer.headers) == (status == 405)
