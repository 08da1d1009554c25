"""Mail scanners before people: nothing burned, nobody refused or delayed, and at most one download gained by it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from gateway.bootstrap import services
from gateway.cli.demo_geo import build_demo_databases
from gateway.policy.model import Limits
from gateway.policy.orders import Holding
from gateway.services.sessions import Sessions

SIZE = 300_000
CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/146.0.0.0 Safari/537.36"
HTML = {"Accept": "text/html", "User-Agent": CHROME, "Accept-Language": "en"}
ARRIVES = HTML | {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "none", "Sec-Fetch-User": "?1"}
REFRESHED = HTML | {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "same-origin"}
CLICKED = REFRESHED | {"Sec-Fetch-User": "?1"}
HOSTING, VPN, OFFICE, HOME = "192.0.2.{}", "192.0.2.{}", "203.0.113.{}", "198.51.100.{}"
ONE = Limits(downloads=1, networks=1, devices=1, concurrent=1, valid_after_first=3600)


@pytest.fixture
async def gateway(open_gateway, tmp_path: Path) -> AsyncIterator:
    folder = tmp_path / "geo"
    folder.mkdir()
    paths = build_demo_databases(folder)
    async with open_gateway("geo: {" + ", ".join(f"{name}: {path}" for name, path in paths.items()) + "}\n") as running:
        running.file("a.bin", SIZE)
        yield running


@pytest.fixture
def mailed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each order's links were mailed 20 s ago."""

    async def holding(order_id: str | None) -> Holding:
        return Holding(True, {"a.bin": None}, mailed_at=int(time.time() * 1000) - 20_000)

    monkeypatch.setattr(services, "_no_orders", holding)


class Client:
    """A browser, or what acts like one: it keeps its cookies."""

    def __init__(self, gateway, address: str) -> None:
        self._gateway = gateway
        self._address = address
        self._cookies: dict[str, str] = {}
        self.seconds = 0.0

    async def ask(self, method: str, path: str, headers: Mapping[str, str], **more) -> tuple[int, bytes]:
        cookie = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
        own = {"X-Forwarded-For": self._address, **({"Cookie": cookie} if cookie else {})}
        began = time.monotonic()
        url = self._gateway.base + path
        async with self._gateway.client.request(method, url, headers={**headers, **own}, **more) as response:
            body = await response.read()
            self._cookies |= {name: morsel.value for name, morsel in response.cookies.items()}
        self.seconds = max(self.seconds, time.monotonic() - began)
        return response.status, body

    async def scan(self, token: str) -> list[int]:
        """HEAD, the page, and all of the file; its script runs, and sees no gesture."""
        asked = [("HEAD", f"/l/{token}"), ("GET", f"/l/{token}"), ("HEAD", f"/d/{token}"), ("GET", f"/d/{token}")]
        return [(await self.ask(method, path, ARRIVES))[0] for method, path in asked]

    async def visit(self, token: str) -> int:
        """A person opens the page, which starts the download, and moves the mouse."""
        assert (await self.ask("GET", f"/l/{token}", ARRIVES))[0] == 200
        status, body = await self.ask("GET", f"/d/{token}", REFRESHED)
        assert status != 200 or len(body) == SIZE
        assert (await self.gesture(token))[0] == 204
        return status

    async def gesture(self, token: str) -> tuple[int, bytes]:
        return await self.ask("POST", f"/l/{token}", HTML, data={"act": "person"})

    async def click(self, token: str) -> int:
        return (await self.ask("GET", f"/d/{token}", CLICKED))[0]


async def used(gateway) -> Counter[str]:
    counted: Counter[str] = Counter()
    for event in await gateway.settled():
        counted[event.get("order.id", "")] += int(event.get("counted", 0))
    return counted


@pytest.mark.usefixtures("mailed")
async def test_scanners_first_then_people(gateway) -> None:
    tokens = {f"{n}": gateway.token("a.bin", order_id=f"{n}", limits=ONE) for n in range(12)}
    scanners = {name: Client(gateway, HOSTING.format(int(name) + 1)) for name in tokens}
    scanners["3"] = Client(gateway, OFFICE.format(77))
    scanned = await asyncio.gather(*(scanners[name].scan(token) for name, token in tokens.items()))
    assert scanned == [[200, 200, 200, 200]] * len(tokens)
    assert not (await used(gateway)).total(), "burned"

    addresses = {"3": OFFICE.format(5), "4": HOSTING.format(9), **{f"{n}": VPN.format(130 + n) for n in range(5, 9)}}
    people = {name: Client(gateway, addresses.get(name, HOME.format(int(name) + 1))) for name in tokens}
    assert [await people[name].visit(token) for name, token in tokens.items()] == [200] * len(tokens)
    assert max(person.seconds for person in people.values()) < 0.5, "delayed"
    # Who shares a network with the scanner is in its look, for which he pays in the end.
    assert set((await used(gateway)).values()) == {1}

    confirmed = [event for event in await gateway.events() if event["type"] == "download.confirmed"]
    assert {event["order.id"] for event in confirmed} == set("345678")
    suspected = [event for event in await gateway.events() if event.get("signal") == "suspected_scanner"]
    assert all("soon" in event["signal.why"] for event in suspected)
    assert {event["type"] for event in suspected} == {"link.opened", "download.allowed", "download.finished"}


@pytest.mark.usefixtures("mailed")
async def test_a_person_alone_is_charged_once_whatever_he_does(gateway) -> None:
    for n, doing in enumerate((Client.visit, Client.click)):
        token = gateway.token("a.bin", order_id=f"{n}", limits=Limits(downloads=2))
        person = Client(gateway, HOME.format(7 + n))
        assert await doing(person, token) == 200
        assert await person.click(token) == 200
        assert (await person.gesture(token))[0] == 204
        assert (await used(gateway))[f"{n}"] == 1
    confirmed = [event for event in await gateway.events() if event["type"] == "download.confirmed"]
    assert [(event["counted"], event["file.key"], "signal" in event) for event in confirmed] == [("1", "a.bin", False)]


@pytest.mark.usefixtures("mailed")
async def test_imitating_a_scanner_gains_one_download(gateway) -> None:
    token = gateway.token("a.bin", order_id="1", limits=ONE)
    had = [(await Client(gateway, HOSTING.format(1)).ask("GET", f"/d/{token}", ARRIVES))[0]]
    await gateway.settled()
    for address in (HOME.format(3), "203.0.113.200", "2001:db8:9::1"):
        had.append((await Client(gateway, address).ask("GET", f"/d/{token}", REFRESHED))[0])
        await gateway.settled()
    assert had == [200, 200, 410, 410]


async def test_a_link_that_was_only_made(gateway) -> None:
    """Nobody knows that it was mailed: only who comes from where no buyer sits is suspected."""
    now = int(time.time())
    for n, (address, headers, expected) in enumerate(
        (
            (HOSTING.format(1), ARRIVES, 0),
            (VPN.format(130), REFRESHED, 0),
            (HOSTING.format(1), {"User-Agent": "curl/8.5.0"}, 1),
            (HOME.format(1), ARRIVES, 1),
        )
    ):
        token = gateway.token("a.bin", order_id=f"{n}", limits=ONE, issued_at=now)
        assert (await Client(gateway, address).ask("GET", f"/d/{token}", headers))[0] == 200
        assert (await used(gateway))[f"{n}"] == expected


@pytest.mark.usefixtures("mailed")
async def test_what_holds_for_everybody_holds_for_a_look(gateway) -> None:
    await gateway.rules(
        "version: 1\notherwise: allow\nrules:\n  - {name: no-cloud, when: {network: [hosting]}, then: deny}\n"
    )
    token = gateway.token("a.bin", order_id="1", limits=ONE)
    assert (await Client(gateway, HOSTING.format(1)).ask("GET", f"/d/{token}", ARRIVES))[0] == 403
    denied = [event for event in await gateway.events() if event["type"] == "download.denied"]
    assert denied[0]["signal"] == "suspected_scanner"
    expired = gateway.token("a.bin", order_id="1", limits=ONE, expires_at=int(time.time()) - 5)
    assert (await Client(gateway, HOME.format(1)).ask("GET", f"/d/{expired}", ARRIVES))[0] == 410


async def test_the_act_needs_a_genuine_link_and_counts_nothing_by_itself(gateway) -> None:
    token = gateway.token("a.bin", order_id="1", limits=ONE)
    person = Client(gateway, HOME.format(1))
    assert (await person.gesture(token))[0] == 204
    assert (await person.gesture("nonsense"))[0] in (403, 404)
    assert not (await used(gateway)).total()


@pytest.mark.usefixtures("mailed")
async def test_who_has_signed_in_is_a_person(open_gateway) -> None:
    secret = "of sessions, for tests only, 40 characters"
    oidc = "{issuer: 'http://127.0.0.1:1', client_id: us}"
    more = f'public_url: "http://127.0.0.1:9"\naccounts: {{secret: "{secret}", oidc: {oidc}}}\n'
    cookie = Sessions(secret, seconds=600).begin("c-7").partition(";")[0]
    async with open_gateway(more) as running:
        running.file("a.bin", SIZE)
        token = running.token("a.bin", order_id="1", customer_id="c-7", account=True)
        for sent, status in (({}, 401), ({"Cookie": cookie}, 200)):
            async with running.client.get(f"{running.base}/d/{token}", headers={**REFRESHED, **sent}) as answer:
                await answer.read()
                assert answer.status == status
        assert (await used(running))["1"] == 1
