"""The control stream on a real server: nothing skipped, nothing missed, also where the server forgets or goes away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import pytest

from gateway.backends.embedded_redis import EmbeddedRedis
from gateway.backends.redis_client import Wire, connect
from gateway.backends.redis_control import PAGE, STREAM, RedisControl
from gateway.errors import GatewayError, LedgerDown, LedgerFault
from gateway.policy.model import Claims, FileEntry
from gateway.policy.standing import Command, write_command

Pages = AsyncGenerator[tuple[str, list[Command]], None]


def command(number: int) -> Command:
    return Command("revoke", number, order_id=f"zażółć {number}")


def flat(number: int) -> list[str]:
    return [text for pair in write_command(command(number)).items() for text in pair]


async def until_empty(pages: Pages) -> tuple[str, list[Command]]:
    """All commands up to the first empty page, and the id at which it stands."""
    commands: list[Command] = []
    async with asyncio.timeout(5):
        while True:
            last, page = await anext(pages)
            if page == []:
                return last, commands
            commands += page or ()


@pytest.mark.parametrize("count", [0, 1, PAGE - 1, PAGE, PAGE + 1, PAGE + 2, 2 * PAGE + 1])
async def test_pages_lose_and_repeat_nothing(wire: Wire, count: int) -> None:
    control = RedisControl(wire)
    await asyncio.gather(*(control.append(command(number)) for number in range(count)))
    async with aclosing(control.follow("0")) as pages:
        last, commands = await until_empty(pages)
        assert commands == [command(number) for number in range(count)]
        await control.append(command(count))
        assert (await until_empty(pages))[1] == [command(count)]
    async with aclosing(control.follow(last)) as pages:
        assert (await until_empty(pages))[1] == [command(count)]


async def test_an_idle_stream_is_heard_of_more_than_once_a_second(wire: Wire) -> None:
    async with aclosing(RedisControl(wire).follow("0")) as pages, asyncio.timeout(1.9):
        assert [await anext(pages) for _ in range(3)] == [("0", [])] * 3


async def test_a_stream_that_was_emptied_is_read_again(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    control = RedisControl(wire)
    await wire.execute("XADD", STREAM, "9999999999999-0", *flat(1))
    async with aclosing(control.follow("0")) as pages:
        await until_empty(pages)
        await wire.execute("FLUSHALL")
        assert await until_empty(pages) == ("0", [])
        assert caplog.text.count("has lost entries") == 1
        await control.append(command(2))  # its id lies before the one that was read last
        assert (await until_empty(pages))[1] == [command(2)]
        await until_empty(pages)
    assert caplog.text.count("has lost entries") == 1


async def test_an_older_copy_with_new_entries_is_read_again(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    """A replica that had not the last entry becomes master, and its clock is behind."""
    control = RedisControl(wire)
    await wire.execute("XADD", STREAM, "5-0", *flat(1))
    await wire.execute("XADD", STREAM, "9-0", *flat(2))
    async with aclosing(control.follow("0")) as pages:
        await until_empty(pages)
        pipe = [wire.execute("XDEL", STREAM, "9-0"), wire.execute("XADD", STREAM, "9-1", *flat(3))]
        await asyncio.gather(*pipe)
        assert (await until_empty(pages))[1] == [command(1), command(3)]
    assert caplog.text.count("has lost entries") == 1


async def test_what_cannot_be_read_stops_everybody_until_it_is_gone(wire: Wire) -> None:
    control = RedisControl(wire)
    await wire.execute("XADD", STREAM, "1-0", *flat(1))
    await wire.execute("XADD", STREAM, "2-0", "v", "2", "verb", "revoke", "order.id", "secret-order")
    await wire.execute("XADD", STREAM, "3-0", *flat(3))
    async with aclosing(control.follow("0")) as pages:
        assert await anext(pages) == ("1-0", [command(1)])
        with pytest.raises(LedgerFault, match=r"entry 2-0 of gw:\{0\}:control cannot be read") as told:
            await anext(pages)
    assert "secret-order" not in str(told.value)
    async with aclosing(control.follow("1-0")) as pages:
        with pytest.raises(LedgerFault):
            await anext(pages)
    with pytest.raises(GatewayError, match="entry 2-0") as told:
        await control.read_all()
    assert not isinstance(told.value, LedgerDown)
    await wire.execute("XDEL", STREAM, "2-0")
    async with aclosing(control.follow("1-0")) as pages:
        assert await until_empty(pages) == ("3-0", [command(3)])


async def test_a_key_that_is_no_stream_is_a_fault(wire: Wire) -> None:
    await wire.execute("SET", STREAM, "no stream")
    async with aclosing(RedisControl(wire).follow("0")) as pages:
        with pytest.raises(LedgerFault):
            await anext(pages)


async def test_bytes_that_are_no_text_are_down(wire: Wire) -> None:
    await wire.execute("XADD", STREAM, "*", "v", b"\xff\xfe")
    async with aclosing(RedisControl(wire).follow("0")) as pages:
        with pytest.raises(LedgerDown):
            await anext(pages)


async def test_what_nobody_could_read_is_not_written(wire: Wire) -> None:
    with pytest.raises(ValueError, match=r"order\.id"):
        await RedisControl(wire).append(Command("revoke", 1, order_id="a\nb"))
    assert await wire.execute("EXISTS", STREAM) == 0


async def test_read_all_gives_how_it_stands(wire: Wire) -> None:
    control = RedisControl(wire)
    claims = Claims("shop", "t", 100, (FileEntry("a"),), order_id=command(0).order_id)
    assert not (await control.read_all()).is_revoked(claims)
    await control.append(command(0))
    await control.append(Command("extend", 1, token_key=claims.token_key, expires_at=500))
    standing = await control.read_all()
    assert standing.is_revoked(claims)
    assert standing.extended_to(claims) == 500


async def test_it_goes_on_with_the_last_id_when_the_server_is_back(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path / "redis")
    wire = Wire(connect(await asyncio.to_thread(server.start)))
    control = RedisControl(wire)
    try:
        await control.append(command(1))
        async with aclosing(control.follow("0")) as pages:
            last, _ = await until_empty(pages)
            await asyncio.to_thread(server.stop)
            with pytest.raises(LedgerDown):
                await until_empty(pages)
        await asyncio.to_thread(server.start)
        await asyncio.sleep(0.3)
        await control.append(command(2))
        async with aclosing(control.follow(last)) as pages:
            assert (await until_empty(pages))[1] == [command(2)]
    finally:
        await wire.close()
        await asyncio.to_thread(server.stop)
