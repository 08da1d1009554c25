"""Mail scanners, previews and crawlers: whatever they do to a link, its buyer still has every download."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest
from aiohttp import ClientSession, ClientTimeout, DummyCookieJar

MATERIAL = Path(__file__).parents[2] / ".." / "shared" / "material" / "names_urls_ips"
EVERY = 8
SIZE = 400_000
HTML = "text/html,application/xhtml+xml,*/*;q=0.8"
pytestmark = [
    pytest.mark.skipif(not MATERIAL.is_dir(), reason="the outside material is not on this machine"),
    pytest.mark.timeout(120),
]


def scanners() -> dict[str, object]:
    return json.loads((MATERIAL / "link_scanners.json").read_text("utf-8"))


def user_agents() -> list[str]:
    """The scanners' own, the words that give them away, and a sample of all crawlers."""
    listed = scanners()
    crawlers = json.loads((MATERIAL / "crawler-user-agents.json").read_text("utf-8"))[::EVERY]
    found = [entry["ua"] for entry in listed["user_agents"]]
    found += [f"Mozilla/5.0 (compatible; {token})" for token in listed["tokens"]]
    found += [crawler["instances"][0] for crawler in crawlers if crawler["instances"]]
    return [agent for agent in dict.fromkeys(found) if agent.isascii() and agent.isprintable()]


@pytest.fixture
async def session() -> AsyncIterator[ClientSession]:
    async with ClientSession(
        cookie_jar=DummyCookieJar(), skip_auto_headers=("User-Agent",), timeout=ClientTimeout(30)
    ) as session:
        yield session


@pytest.fixture
def token(gateway) -> str:
    """A link to one file that may be downloaded once."""
    gateway.file("books/mailed.pdf", SIZE)
    return gateway.token("books/mailed.pdf", downloads=1)


async def ask(session: ClientSession, method: str, url: str, **headers: str) -> tuple[int, int]:
    """The status and the length of the body; redirects are shown, not followed."""
    async with session.request(method, url, headers=headers, allow_redirects=False) as response:
        return response.status, len(await response.read())


async def check_nothing_was_spent(gateway, session: ClientSession, token: str) -> None:
    """No event counts anything, and the one download is still there for the buyer."""
    assert not [event for event in gateway.events(token) if event.get("counted", "0") != "0"]
    assert not [event for event in gateway.events(token) if event["type"] == "download.allowed"]
    url = f"{gateway.base}/d/{token}"
    assert await ask(session, "GET", url, **{"X-Forwarded-For": "198.51.100.7"}) == (200, SIZE)
    assert gateway.used(token) == 1
    assert (await ask(session, "GET", url, **{"X-Forwarded-For": "203.0.113.7"}))[0] == 410


def network(number: int) -> str:
    """An address of its own network for each visitor."""
    return f"20.72.{number % 250}.79"


async def test_head_then_get_of_the_link(gateway, session: ClientSession, token: str) -> None:
    """What a scanner does within seconds of delivery: HEAD and GET of the link, as a browser and as a program."""
    agents = user_agents()
    assert len(agents) > 100

    async def visit(number: int, agent: str) -> None:
        told = {"User-Agent": agent, "X-Forwarded-For": network(number)}
        page, file = f"{gateway.base}/l/{token}", f"{gateway.base}/d/{token}"
        assert await ask(session, "HEAD", page, Accept=HTML, **told) == (200, 0)
        status, length = await ask(session, "GET", page, Accept=HTML, **told)
        assert status == 200
        assert length > 200
        assert (await ask(session, "GET", page, Accept="*/*", **told))[0] == 303
        assert await ask(session, "HEAD", file, **told) == (200, 0)
        assert await ask(session, "HEAD", f"{file}/1/mailed.pdf", Range="bytes=0-99", **told) in {(200, 0), (206, 0)}

    await in_turn(visit(number, agent) for number, agent in enumerate(agents))
    await check_nothing_was_spent(gateway, session, token)


async def test_other_methods_and_prefetches(gateway, session: ClientSession, token: str) -> None:
    signals = scanners()["other_signals"]
    page, file = f"{gateway.base}/l/{token}", f"{gateway.base}/d/{token}"
    for line in signals["headers"]:
        name, _, value = line.partition(": ")
        for method, url, expected in (("HEAD", page, 200), ("GET", page, 200), ("HEAD", file, 200)):
            assert (await ask(session, method, url, Accept=HTML, **{name: value}))[0] == expected, (line, method)
    for method in (*signals["methods"], "POST", "LOCK"):
        for url in (page, file):
            refused = 400 if method == "POST" and url == page else 405  # there it lacks the form of an act
            answered = refused if method != "HEAD" else 200 if url == file else 303
            assert (await ask(session, method, url))[0] == answered, method
    for referer in signals["wrapped_referers"]:
        assert (await ask(session, "GET", page, Accept=HTML, Referer=f"https://{referer}/?url=x"))[0] == 200
    await check_nothing_was_spent(gateway, session, token)


async def test_a_preview_of_the_file_is_given_back(gateway, session: ClientSession, token: str) -> None:
    """A preview that reads the file's first kilobyte has its charge given back."""
    for agent in ("Slackbot-LinkExpanding 1.0", "", "WhatsApp/2.23"):
        status, _ = await ask(
            session, "GET", f"{gateway.base}/d/{token}", Range="bytes=0-1023", **{"User-Agent": agent}
        )
        assert status == 206
        assert gateway.used(token) == 0
    assert await ask(session, "GET", f"{gateway.base}/d/{token}", **{"X-Forwarded-For": "198.51.100.8"}) == (200, SIZE)
    assert gateway.used(token) == 1


async def in_turn(visits: Iterable[object], at_once: int = 16) -> None:
    turn = asyncio.Semaphore(at_once)

    async def one(visit) -> None:
        async with turn:
            await visit

    await asyncio.gather(*(one(visit) for visit in visits))
