"""The store's addresses while name servers fail, are silent or say something new. The system's call is patched."""

from __future__ import annotations

import asyncio
import socket
from types import SimpleNamespace

import pytest

from gateway.backends import s3_names
from gateway.backends.s3_names import KEEP_S, KEEP_WHILE_SILENT_S, Names

OLD, NEW = "192.0.2.1", "192.0.2.2"


class NameServer:
    """What `getaddrinfo` does: `says` an address, an error, or "silence". `asked` counts, `now` is the clock."""

    def __init__(self) -> None:
        self.says: str | int = OLD
        self.asked = 0
        self.now = 1000.0

    async def getaddrinfo(self, _host: str, port: int, **_how: object) -> list[tuple[object, ...]]:
        self.asked += 1
        await asyncio.sleep(60 if self.says == "silence" else 0)
        if isinstance(self.says, int):
            raise socket.gaierror(self.says, "told so")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (self.says, port))]


@pytest.fixture
async def server(monkeypatch):
    server = NameServer()
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", server.getaddrinfo)
    monkeypatch.setattr(s3_names, "time", SimpleNamespace(monotonic=lambda: server.now))
    monkeypatch.setattr(s3_names, "_HURRY_S", 0.02)
    return server


@pytest.fixture
async def names(server):
    names = Names(0.05)
    yield names
    await names.close()


async def look(names: Names) -> str:
    return (await names.resolve("s3.example", 443))[0]["host"]


async def test_one_look_up_for_all_who_ask_and_for_seconds(server, names):
    assert set(await asyncio.gather(*(look(names) for _ in range(50)))) == {OLD}
    server.now += KEEP_S - 0.1
    assert await look(names) == OLD
    assert server.asked == 1
    server.says = NEW
    server.now += 0.2
    assert await look(names) == NEW


@pytest.mark.parametrize(
    ("says", "error"),
    [(socket.EAI_NONAME, socket.gaierror), (socket.EAI_AGAIN, socket.gaierror), ("silence", TimeoutError)],
)
async def test_where_nothing_is_known_it_fails_in_time_and_is_asked_again(says, error, server, names):
    server.says = says
    async with asyncio.timeout(1):
        results = await asyncio.gather(*(look(names) for _ in range(5)), return_exceptions=True)
    assert {type(result) for result in results} == {error}
    assert server.asked == 1
    if says != "silence":  # the question under way is still the only one
        server.says = OLD
        assert await look(names) == OLD


@pytest.mark.parametrize("says", [socket.EAI_AGAIN, "silence"])
async def test_what_was_known_is_kept_while_no_server_answers_but_not_for_ever(says, server, names):
    assert await look(names) == OLD
    server.says = says
    server.now += KEEP_S + 1
    for _ in range(3):
        assert await look(names) == OLD
    assert server.asked == 2, "asked again only after some seconds"
    server.now += KEEP_WHILE_SILENT_S
    with pytest.raises((socket.gaierror, TimeoutError)):
        await look(names)


async def test_a_name_that_is_gone_is_gone(server, names):
    assert await look(names) == OLD
    server.says = socket.EAI_NONAME
    server.now += KEEP_S + 1
    with pytest.raises(socket.gaierror):
        await look(names)


async def test_an_address_at_which_nobody_answers_is_looked_up_anew(server, names):
    assert await look(names) == OLD
    server.says = NEW
    assert await look(names) == OLD
    names.doubt()
    assert await look(names) == NEW


async def test_who_leaves_does_not_end_the_question_of_the_others(server, names):
    leaving, staying = asyncio.create_task(look(names)), asyncio.create_task(look(names))
    await asyncio.sleep(0)
    leaving.cancel()
    assert await staying == OLD
    assert server.asked == 1
