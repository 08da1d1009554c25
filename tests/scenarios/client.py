"""A client that sends a request byte for byte as it is told, from the address that it is told."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from multidict import CIMultiDict

PATIENCE = 20.0
_BUFFER = 1 << 20


@dataclass
class Answer:
    """`body` so far; `whole` where all of it came that was announced."""

    status: int
    headers: CIMultiDict[str]
    body: bytes = b""
    whole: bool = False


class Exchange:
    """One request on a connection of its own."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, method: str) -> None:
        self._reader = reader
        self._writer = writer
        self._method = method
        self.answer = Answer(0, CIMultiDict())

    @classmethod
    async def begin(
        cls,
        base: str,
        request_line: str,
        headers: Iterable[tuple[str, str]],
        *,
        address: str,
        body: bytes = b"",
        buffer: int | None = None,
    ) -> Exchange:
        """Send it and read the head of the answer. `request_line` without its protocol; `buffer`: so many bytes at
        most are taken in unread.
        """
        where = urlsplit(base)
        sock = socket.socket()
        if buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        sock.setblocking(False)
        sock.bind((address, 0))
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_connect(sock, (where.hostname, where.port))
        except BaseException:
            sock.close()
            raise
        reader, writer = await asyncio.open_connection(sock=sock, limit=buffer or _BUFFER)
        given = list(headers)
        named = {name.lower() for name, _ in given}
        usual = {"Host": where.netloc, "User-Agent": "scenario/1", "Accept": "*/*", "Connection": "close"}
        if body and "content-length" not in named:
            usual["Content-Length"] = str(len(body))
        lines = [f"{request_line} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in usual.items() if name.lower() not in named]
        lines += [f"{name}: {value}" for name, value in given]
        exchange = cls(reader, writer, request_line.partition(" ")[0])
        try:
            writer.write("\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + body)
            async with asyncio.timeout(PATIENCE):
                await exchange._head()
        except BaseException:
            exchange.abort()
            raise
        return exchange

    async def read(self, most: int | None = None) -> Answer:
        """The rest of the body, or its first `most` bytes; what was cut is not `whole`."""
        answer = self.answer
        length = answer.headers.get("Content-Length")
        async with asyncio.timeout(PATIENCE):
            try:
                if self._method == "HEAD" or answer.status in (204, 304):
                    answer.whole = True
                elif "chunked" in answer.headers.get("Transfer-Encoding", ""):
                    await self._chunks()
                elif length is not None:
                    await self._upto(int(length) if most is None else min(most, int(length)))
                    answer.whole = len(answer.body) == int(length)
                else:
                    answer.body += await self._reader.read()
                    answer.whole = True
            except (asyncio.IncompleteReadError, ConnectionError):
                pass
        return answer

    def abort(self) -> None:
        """End it at once, as one does who has gone."""
        self._writer.transport.abort()

    async def _head(self) -> None:
        status = 100
        while status // 100 == 1:
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
            status = int(first.split(" ")[1])
        self.answer.status = status
        for line in lines:
            name, _, value = line.partition(":")
            self.answer.headers.add(name, value.strip())

    async def _upto(self, length: int) -> None:
        parts = [self.answer.body]
        got = len(self.answer.body)
        try:
            while got < length and (part := await self._reader.read(min(length - got, 1 << 20))):
                parts.append(part)
                got += len(part)
        finally:
            self.answer.body = b"".join(parts)

    async def _chunks(self) -> None:
        while size := int((await self._reader.readuntil(b"\r\n")).split(b";")[0], 16):
            self.answer.body += await self._reader.readexactly(size)
            await self._reader.readexactly(2)
        self.answer.whole = True
