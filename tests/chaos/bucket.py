"""An honest S3 store in a process of its own, for loads: a folder's files by GET and HEAD with Range and If-Match.

It checks no signature. Bodies go out as slowly as they are taken, so that thousands of stalled readers cost it little.
"""

from __future__ import annotations

import asyncio
import re
import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlsplit

from child import Child

PIECE = 64 * 1024
NAME = "shop"
_RANGE = re.compile(rb"\r\nrange: bytes=(\d+)-(\d+)\r\n", re.IGNORECASE)
_IF_MATCH = re.compile(rb"\r\nif-match: ([^\r]+)\r\n", re.IGNORECASE)


class Bucket(Child):
    """The store's process. `origin` is what the gateway's settings say of it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port = 0

    async def __aenter__(self) -> Self:
        await self._begin(__file__, str(self._folder), stdout=asyncio.subprocess.PIPE)
        assert self._process.stdout is not None
        self.port = int(await asyncio.wait_for(self._process.stdout.readline(), 10))
        return self

    @property
    def origin(self) -> str:
        return f"{{url: s3://{NAME}, endpoint: 'http://127.0.0.1:{self.port}', access_key: chaos, secret_key: chaos}}"


class _Store:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.set_write_buffer_limits(high=0)
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                await self._answer(await reader.readuntil(b"\r\n\r\n"), writer)
        writer.transport.abort()

    async def _answer(self, head: bytes, writer: asyncio.StreamWriter) -> None:
        method, target, _ = head.split(b"\r\n", 1)[0].split(b" ")
        path = self._folder / unquote(urlsplit(target.decode()).path).removeprefix(f"/{NAME}/")
        if not path.is_file():
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            return
        size = path.stat().st_size
        etag = f'"{path.stat().st_mtime_ns:032x}"'.encode()
        wanted = _IF_MATCH.search(head)
        if wanted and wanted[1] != etag:
            writer.write(b"HTTP/1.1 412 Precondition Failed\r\nContent-Length: 0\r\n\r\n")
            return
        part = _RANGE.search(head)
        start, stop = (int(part[1]), min(int(part[2]) + 1, size)) if part else (0, size)
        status = (
            b"206 Partial Content\r\nContent-Range: bytes %d-%d/%d" % (start, stop - 1, size) if part else b"200 OK"
        )
        writer.write(
            b"HTTP/1.1 %s\r\nETag: %s\r\nContent-Length: %d\r\nLast-Modified: Wed, 21 Oct 2026 07:28:00 GMT\r\n\r\n"
            % (status, etag, stop - start)
        )
        if method == b"HEAD":
            return
        with path.open("rb") as file:
            file.seek(start)
            while start < stop:
                piece = file.read(min(PIECE, stop - start))
                writer.write(piece)
                await writer.drain()
                start += len(piece)


async def _main(folder: Path) -> None:
    server = await asyncio.start_server(_Store(folder).serve, "127.0.0.1", 0, backlog=1024)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(_main(Path(sys.argv[1])))
