"""How the store misbehaves: each play answers one request, and says nothing of what the gateway should make of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from faulty_bucket import Play, Visit

ERROR = b"<?xml version='1.0'?><Error><Code>InternalError</Code></Error>"


def sends(
    status: str = "",
    *,
    body: bytes | None = None,
    share: float = 1.0,
    then: str = "",
    extra: bytes = b"",
    **changed: str | None,
) -> Play:
    """A head with changed fields, that share of the body (all of `body`, with its length, where given), and an end."""
    if body is not None:
        changed = {"Content_Length": str(len(body)), **changed}

    async def play(visit: Visit) -> None:
        content = visit.body if body is None or visit.method != "GET" else body
        await visit.send(visit.head(status, **changed), content[: int(len(content) * share)] + extra)
        if then:
            await getattr(visit, then)()

    return play


def ends(how: str) -> Play:
    """No answer at all."""

    async def play(visit: Visit) -> None:
        await getattr(visit, how)()

    return play


def gets(play: Play, times: int | None = None) -> Play:
    """The play on GETs only, on the first `times` of them."""

    async def some(visit: Visit) -> None:
        await (play(visit) if visit.method == "GET" and (times is None or visit.get <= times) else visit.honest())

    return some


def first(play: Play, times: int = 1) -> Play:
    """The play on the key's first requests only, be they HEAD or GET."""

    async def some(visit: Visit) -> None:
        await (play(visit) if visit.number <= times else visit.honest())

    return some


def at_byte(at: int, then: str) -> Play:
    """The body up to its byte `at` (from its end where negative), and an end."""

    async def play(visit: Visit) -> None:
        await visit.send(visit.head(), visit.body[:at])
        await getattr(visit, then)()

    return play


def chunked(*, cut: float = 1.0, end: bytes = b"0\r\n\r\n", then: str = "") -> Play:
    async def play(visit: Visit) -> None:
        content = visit.body[: int(len(visit.body) * cut)]
        await visit.send(visit.head(Content_Length=None, Transfer_Encoding="chunked"))
        for at in range(0, len(content), 60_000):
            piece = content[at : at + 60_000]
            await visit.send(b"%x\r\n" % len(piece), piece)
            await visit.send(b"\r\n")
        await visit.send(end)
        if then:
            await getattr(visit, then)()

    return play


def dripping(seconds: float, size: int) -> Play:
    async def play(visit: Visit) -> None:
        await visit.send(visit.head())
        for at in range(0, len(visit.body), size):
            await asyncio.sleep(seconds)
            await visit.send(visit.body[at : at + size])

    return play


def lengths(text: str) -> Play:
    """Content-Length as `text` has it: any number of lines."""

    async def play(visit: Visit) -> None:
        head = visit.head(Content_Length=None)
        await visit.send(head.replace(b"\r\n\r\n", f"\r\n{text}\r\n\r\n".encode()), visit.body)
        await visit.close()

    return play


async def informs(visit: Visit) -> None:
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    await visit.send(early + visit.head(), visit.body)


async def invalid_line(visit: Visit) -> None:
    await visit.send(visit.head().replace(b"\r\n", b"\r\nthis is no header\r\n", 1), visit.body)


async def closes_reused(visit: Visit) -> None:
    await (visit.close() if visit.reused else visit.honest())


def between(replaced: Callable[[Visit], object]) -> Play:
    """The object is another one as soon as its HEAD has been answered."""

    async def play(visit: Visit) -> None:
        if visit.number == 2:
            replaced(visit)
            visit = visit.bucket.again(visit)
        await visit.honest()

    return play


def inside(replaced: Callable[[Visit], object], clients: int, *, unheeded: bool = False) -> Play:
    """Half of its body to each client, then the object is another one; `unheeded`: in a store without If-Match."""
    begun = 0
    is_replaced = asyncio.Event()

    async def play(visit: Visit) -> None:
        nonlocal begun
        if visit.method == "GET" and visit.part[0] == 0:
            await visit.send(visit.head(), visit.body[: len(visit.body) // 2])
            begun += 1
            if begun == clients:
                replaced(visit)
                is_replaced.set()
            await is_replaced.wait()
            await visit.close()
        elif visit.method == "GET" and unheeded:
            await visit.send(visit.head(), visit.body)
        else:
            await visit.honest()

    return play
