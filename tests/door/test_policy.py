"""Limits, plans, rules, commands and external files as a client meets them."""

from __future__ import annotations

import asyncio
import time
from ipaddress import ip_network

import pytest
from aiohttp import ClientError

from gateway.policy.model import FileEntry, Limits
from gateway.policy.standing import Command

SIZE = 300_000
LARGE = 8 * 1024 * 1024
FIRST, SECOND, THIRD = "203.0.113.7", "198.51.100.7", "192.0.2.7"
RULES = """
version: 1
plans:
  standard: {downloads: 2, networks: 1}
  read: {view: true, valid_for: 1h}
lists:
  office: [203.0.113.0/24]
rules:
  - {name: office-always, when: {ip: $office}, then: allow}
  - {name: slow, when: {tier: free}, then: {limit: {rate: 1MB/s}}}
  - {name: masters, when: {file: "masters/**"}, then: require_account}
  - {name: trial, mode: observe, when: {method: GET}, then: deny}
  - {name: no-robots, when: {user_agent: "robot*"}, then: deny, message: "Ludzie, nie roboty."}
otherwise: allow
"""


def by(address: str, agent: str = "agent", **more: str) -> dict[str, str]:
    return {"X-Forwarded-For": address, "User-Agent": agent, **more}


async def get(gateway, token: str, headers: dict[str, str], path: str = "") -> tuple[int, str]:
    """The status, and the reason where it is a refusal."""
    async with gateway.client.get(
        f"{gateway.base}/d/{token}{path}", headers=headers, allow_redirects=False
    ) as response:
        data = await response.read()
        return response.status, (await response.json())["reason"] if response.status >= 400 else str(len(data))


async def test_networks_that_opened_transfers_are_counted(gateway) -> None:
    gateway.file("a.bin", SIZE)
    token = gateway.token("a.bin", limits=Limits(networks=2))
    for address in (FIRST, SECOND, "203.0.113.99"):
        assert (await get(gateway, token, by(address)))[0] == 200
        await gateway.settled()
    assert await get(gateway, token, by(THIRD)) == (403, "limit.networks")
    assert (await get(gateway, token, by(SECOND)))[0] == 200


async def test_one_browser_is_one_device_before_and_after_its_cookie(gateway) -> None:
    gateway.file("a.bin", SIZE)
    token = gateway.token("a.bin", limits=Limits(devices=1))
    async with gateway.client.get(f"{gateway.base}/d/{token}", headers=by(FIRST)) as response:
        cookie = response.headers["Set-Cookie"].partition(";")[0]
        await response.read()
    await gateway.settled()
    assert (await get(gateway, token, by(SECOND, Cookie=cookie)))[0] == 200
    assert (await get(gateway, token, by(FIRST)))[0] == 200
    assert await get(gateway, token, by(SECOND, "another")) == (403, "limit.devices")


async def test_concurrent_transfers_are_told_when_to_try_again(gateway) -> None:
    gateway.file("a.bin", LARGE)
    token = gateway.token("a.bin", limits=Limits(concurrent=1, rate=1_000_000))
    async with gateway.client.get(f"{gateway.base}/d/{token}", headers=by(FIRST)) as running:
        await running.content.readany()
        async with gateway.client.get(f"{gateway.base}/d/{token}", headers=by(SECOND)) as response:
            assert (response.status, (await response.json())["reason"]) == (429, "limit.concurrent")
            assert int(response.headers["Retry-After"]) > 0
        assert (await get(gateway, token, by(FIRST, Range="bytes=0-99")))[0] == 206
        running.close()
    await gateway.settled()
    assert (await get(gateway, token, by(SECOND, Range="bytes=0-99")))[0] == 206


async def test_a_rate_is_shared_by_all_transfers_of_a_token(gateway) -> None:
    gateway.file("a.bin", LARGE)
    gateway.file("b.bin", LARGE)
    token = gateway.token("a.bin", "b.bin", limits=Limits(rate=1_000_000))
    got = 0

    async def read(number: int, address: str, until: float) -> None:
        nonlocal got
        url = f"{gateway.base}/d/{token}/{number}"
        async with gateway.client.get(url, headers=by(address)) as response:
            while time.monotonic() < until:
                piece = await response.content.readany()
                got += len(piece)
            response.close()

    until = time.monotonic() + 3
    await asyncio.gather(read(1, FIRST, until), read(2, FIRST, until), read(1, SECOND, until))
    assert got == pytest.approx(3_000_000, rel=0.15)


async def test_a_link_ends_some_time_after_its_first_download(gateway) -> None:
    gateway.file("a.bin", SIZE)
    token = gateway.token("a.bin", limits=Limits(valid_after_first=1))
    assert (await get(gateway, token, by(FIRST)))[0] == 200
    await asyncio.sleep(1.1)
    assert await get(gateway, token, by(SECOND)) == (410, "token.expired")


async def test_the_page_says_so_too_and_an_extension_ends_that(gateway) -> None:
    gateway.file("a.bin", SIZE)
    token = gateway.token("a.bin", limits=Limits(valid_after_first=3))
    assert (await get(gateway, token, by(FIRST)))[0] == 200
    await gateway.settled()
    link = f"{gateway.base}/l/{token}"
    async with gateway.client.get(link, allow_redirects=False) as response:
        assert response.status == 303
    await asyncio.sleep(3.2)
    async with gateway.client.get(link, allow_redirects=False) as response:
        assert (response.status, (await response.json())["reason"]) == (410, "token.expired")
    await gateway.command(Command("extend", int(time.time()), order_id="10001", expires_at=int(time.time()) + 3600))
    await asyncio.sleep(0.6)
    assert (await get(gateway, token, by(SECOND)))[0] == 200


async def test_a_refused_limit_charges_none_of_the_others(gateway) -> None:
    gateway.file("a.bin", SIZE)
    gateway.file("b.bin", SIZE)
    token = gateway.token("a.bin", "b.bin", limits=Limits(downloads=1, networks=1))
    assert (await get(gateway, token, by(FIRST), "/1"))[0] == 200
    await gateway.settled()
    for _ in range(3):
        assert await get(gateway, token, by(SECOND), "/2") == (403, "limit.networks")
    assert (await get(gateway, token, by(FIRST), "/2"))[0] == 200


async def test_rules_decide_and_their_versions_stand_on_every_event(gateway) -> None:
    gateway.file("a.bin", SIZE)
    gateway.file("masters/a.wav", SIZE)
    await gateway.rules(RULES)
    token = gateway.token("a.bin", "masters/a.wav", plan="standard")
    assert (await get(gateway, token, by(SECOND)))[0] == 200
    assert await get(gateway, token, by(SECOND), "/2") == (401, "account.required")
    assert (await get(gateway, token, by(FIRST), "/2")) == (403, "limit.networks")
    assert await get(gateway, token, by(SECOND, "Robot/1")) == (403, "rule.denied")
    assert await get(gateway, gateway.token("a.bin", plan="gold"), by(FIRST)) == (403, "token.claims")
    events = await gateway.settled()
    reloaded = next(event for event in events if event["type"] == "rules.reloaded")
    told = [event for event in events if event["type"].startswith("download.")]
    assert {event["rules.version"] for event in told} == {reloaded["rules.version"]}
    allowed = next(event for event in told if event["type"] == "download.allowed")
    assert (allowed["plan"], allowed["would_deny"], allowed["rule"]) == ("standard", "trial", "otherwise")
    assert [event.get("rule") for event in told if event.get("reason") == "rule.denied"] == ["no-robots"]


async def test_the_shops_own_words_are_shown_to_the_buyer(gateway) -> None:
    gateway.file("a.bin", SIZE)
    await gateway.rules(RULES)
    headers = by(SECOND, "robot", Accept="text/html", **{"Accept-Language": "pl"})
    for path in ("l", "d"):
        async with gateway.client.get(f"{gateway.base}/{path}/{gateway.token('a.bin')}", headers=headers) as response:
            page = await response.text()
        assert response.status == 403
        assert "Ludzie, nie roboty." in page
        assert '<html lang="pl"' in page


async def test_a_broken_rules_file_changes_nothing_and_is_told_once(gateway) -> None:
    gateway.file("a.bin", SIZE)
    await gateway.rules(RULES)
    gateway.rules_file.write_text("version: 1\notherwise: perhaps\n")
    gateway.status.reload.set()
    await asyncio.sleep(0.8)
    assert await get(gateway, gateway.token("a.bin"), by(SECOND, "robot")) == (403, "rule.denied")
    rejected = [event for event in await gateway.events() if event["type"] == "rules.rejected"]
    assert len(rejected) == 1
    assert "otherwise" in rejected[0]["reason"]


async def test_view_is_inline_where_the_plan_says_so(gateway) -> None:
    gateway.file("a.pdf", SIZE)
    await gateway.rules(RULES)
    token = gateway.token("a.pdf", plan="read")
    async with gateway.client.get(f"{gateway.base}/d/{token}?view=1", headers=by(FIRST)) as response:
        assert response.headers["Content-Disposition"].startswith("inline")
        await response.read()
    async with gateway.client.get(f"{gateway.base}/d/{token}", headers=by(FIRST)) as response:
        assert response.headers["Content-Disposition"].startswith("attachment")
        await response.read()
    assert await get(gateway, gateway.token("a.pdf"), by(FIRST), "?view=1") == (403, "view.not_allowed")
    uses = [event["file.use"] for event in await gateway.settled() if event["type"] == "download.allowed"]
    assert uses == ["view", "download"]


async def test_an_external_file_is_counted_and_sent_elsewhere(gateway) -> None:
    files = (FileEntry(None, "https://cdn.example.com/a%20b?x=1"), FileEntry(None, "https://evil.example.com/a"))
    token = gateway.token(files=files, limits=Limits(downloads=1))
    url = f"{gateway.base}/d/{token}"
    async with gateway.client.head(url, headers=by(FIRST), allow_redirects=False) as response:
        assert (response.status, response.headers.get("Location")) == (302, None)
    for headers in (by(FIRST), by(FIRST), by(FIRST, Range="bytes=5-")):
        async with gateway.client.get(url, headers=headers, allow_redirects=False) as response:
            assert (response.status, response.headers["Location"]) == (302, "https://cdn.example.com/a%20b?x=1")
            assert "no-store" in response.headers["Cache-Control"]
            assert response.headers["Referrer-Policy"] == "no-referrer"
    assert await get(gateway, token, by(SECOND)) == (410, "limit.downloads")
    assert await get(gateway, token, by(FIRST), "/2") == (403, "token.claims")
    events = await gateway.settled()
    allowed = [event for event in events if event["type"] == "download.allowed"]
    assert [event["counted"] for event in allowed] == ["1", "0", "0"]
    assert {event["http.response.status_code"] for event in allowed} == {"302"}
    assert {event["outcome"] for event in events if event["type"] == "download.finished"} == {"complete"}
    await asyncio.sleep(2.1)
    assert await get(gateway, token, by(FIRST, Range="bytes=5-")) == (410, "limit.downloads")


async def test_revoking_refuses_and_cuts_what_runs(gateway) -> None:
    gateway.file("a.bin", LARGE)
    token = gateway.token("a.bin", token_id="t1", limits=Limits(rate=1_000_000))
    began = time.monotonic()
    async with gateway.client.get(f"{gateway.base}/d/{token}", headers=by(FIRST)) as running:
        await running.content.readany()
        await gateway.command(Command("revoke", int(time.time()), order_id="10001"))
        with pytest.raises(ClientError):
            await running.read()
    assert time.monotonic() - began < 5
    assert await get(gateway, token, by(FIRST)) == (410, "token.revoked")
    assert (await get(gateway, token, by(FIRST), "/1"))[0] == 410
    events = await gateway.settled()
    closing = next(event for event in events if event["type"] == "download.finished")
    assert (closing["outcome"], closing["reason"]) == ("cut", "token.revoked")


async def test_extending_overrides_the_expiry(gateway) -> None:
    gateway.file("a.bin", SIZE)
    token = gateway.token("a.bin", expires_at=int(time.time()) - 5, issued_at=int(time.time()) - 50)
    assert await get(gateway, token, by(FIRST)) == (410, "token.expired")
    await gateway.command(Command("extend", int(time.time()), order_id="10001", expires_at=int(time.time()) + 60))
    for _ in range(100):
        if (await get(gateway, token, by(FIRST)))[0] == 200:
            break
        await asyncio.sleep(0.05)
    assert await gateway.used() == 1


async def test_a_plan_shortens_a_link_that_is_valid_for_longer(gateway) -> None:
    gateway.file("a.bin", SIZE)
    await gateway.rules(RULES)
    now = int(time.time())
    old = gateway.token("a.bin", plan="read", issued_at=now - 7200)
    assert await get(gateway, old, by(FIRST)) == (410, "token.expired")
    assert (await get(gateway, gateway.token("a.bin", plan="read", issued_at=now), by(FIRST)))[0] == 200


async def test_a_tokens_own_networks(gateway) -> None:
    gateway.file("a.bin", SIZE)
    token = gateway.token("a.bin", ip=(ip_network("203.0.113.0/24"),))
    assert (await get(gateway, token, by(FIRST)))[0] == 200
    assert await get(gateway, token, by(SECOND)) == (403, "token.ip")


async def test_one_file_after_another_is_never_too_many_at_once(gateway) -> None:
    names = [f"{number}.bin" for number in range(8)]
    for name in names:
        gateway.file(name, SIZE)
    token = gateway.token(*names, limits=Limits(concurrent=1))
    answers = [(await get(gateway, token, by(FIRST), f"/{number}"))[0] for number in range(1, 9)]
    assert answers == [200] * 8
    assert not [event for event in await gateway.settled() if event["type"] == "download.denied"]


async def test_the_page_lists_what_may_be_had_from_here(gateway) -> None:
    for name in ("a.bin", "masters/b.wav", "c.bin"):
        gateway.file(name, SIZE)
    await gateway.rules(RULES)
    token = gateway.token("a.bin", "masters/b.wav", "c.bin")
    async with gateway.client.get(f"{gateway.base}/l/{token}?view=1", headers=by(SECOND)) as response:
        listed = (await response.json())["files"]
    assert [(file["number"], file["name"]) for file in listed] == [(1, "a.bin"), (3, "c.bin")]


async def test_an_external_addresss_query_is_no_ones_business(gateway) -> None:
    token = gateway.token(files=(FileEntry(None, "https://cdn.example.com/x.zip?Signature=TOPSECRET"),))
    async with gateway.client.get(f"{gateway.base}/l/{token}", allow_redirects=False) as response:
        assert response.headers["Location"].endswith("/1/x.zip")
    async with gateway.client.get(f"{gateway.base}/d/{token}", allow_redirects=False) as response:
        assert response.headers["Location"] == "https://cdn.example.com/x.zip?Signature=TOPSECRET"
    events = await gateway.settled()
    assert "TOPSECRET" not in str(events)
    assert {event["file.key"] for event in events if event["type"] == "download.allowed"} == {
        "url:https://cdn.example.com/x.zip"
    }


async def test_a_token_without_iat_cannot_outlive_its_plan(gateway) -> None:
    gateway.file("a.bin", SIZE)
    await gateway.rules(RULES)
    now = int(time.time())
    assert await get(gateway, gateway.token("a.bin", plan="read", expires_at=now + 7200), by(FIRST)) == (
        403,
        "token.claims",
    )
    assert (await get(gateway, gateway.token("a.bin", plan="read", expires_at=now + 3000), by(FIRST)))[0] == 200
