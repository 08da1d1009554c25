"""Thousands of clients in one child process, each a raw socket: stalled readers, half-sent heads, storms of connects.

It is told one JSON line at a time and answers each with one; what a client saw is counted here, by its own bytes.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import resource
import socket
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from child import Child

RECEIVE_BUFFER = 16 * 1024
CHUNK = 256 * 1024
HEAD_MAX = 16 * 1024
AT_ONCE = 40
LINE_MAX = 1 << 26
Told = dict[str, Any]


class Crowd(Child):
    """The child process, from the runner's side. `async with Crowd() as crowd: await crowd.ask("stall", …)`."""

    async def __aenter__(self) -> Self:
        pipe = asyncio.subprocess.PIPE
        await self._begin(__file__, stdin=pipe, stdout=pipe, limit=LINE_MAX)
        return self

    async def ask(self, what: str, within: float = 120.0, **how: object) -> Told:
        """The answer to one command, a method of `Clients` with its arguments. Raises TimeoutError, RuntimeError."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"what": what, **how}).encode() + b"\n")
        line = await asyncio.wait_for(self._process.stdout.readline(), within)
        if not line:
            raise RuntimeError("the crowd's process ended")
        told: Told = json.loads(line)
        if "failed" in told:
            raise RuntimeError(f"the crowd failed: {told['failed']}")
        return told


@dataclass(eq=False)
class Client:
    """One connection. `status` 0: no answer came; `fault` says how it ended otherwise."""

    sock: socket.socket
    path: str
    status: int = 0
    reason: str = ""
    request_id: str = ""
    length: int = 0
    received: int = 0
    fault: str = ""
    began: float = 0.0
    took: float = 0.0
    digest: Any = field(default_factory=hashlib.sha256)

    @property
    def outcome(self) -> str:
        """Status and reason, or what went wrong, in a word that can be counted."""
        return f"{self.status} {self.reason}".strip() if self.status else self.fault

    def seen(self) -> Told:
        """What its client knows in the end, for the log."""
        names = ("path", "status", "reason", "request_id", "length", "received", "fault", "began", "took")
        return {name: getattr(self, name) for name in names} | {"sha256": self.digest.hexdigest()}


class Clients:
    """What the child does. Each method is a command; `paths` are request targets, one client each."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._held: list[Client] = []

    async def stall(self, port: int, paths: Sequence[str], read: int = 1024) -> Told:
        """Ask for each, take `read` bytes of the body at least, and hold the connection. What was refused is closed,
        and in `seen`; the others are there when they `finish` or `leave`.
        """

        async def one(client: Client, path: str) -> None:
            await self._request(client, path, read)

        clients = await self._each(port, paths, one)
        ended = self._keep(clients)
        return _counted(clients) | {"seen": [client.seen() for client in ended]}

    async def finish(self, patience: float = 60.0) -> Told:
        """Read every held body to its end."""
        clients, self._held = self._held, []
        await asyncio.gather(*(self._bounded(each, patience, self._read_body(each, each.length)) for each in clients))
        _close(clients)
        return {"seen": [client.seen() for client in clients]}

    async def half(self, port: int, count: int, patience: float) -> Told:
        """Send half a head and wait: how many the server ended, and how late the last one was."""

        async def one(client: Client, _path: str) -> None:
            await self._loop.sock_sendall(client.sock, b"GET /d/x HTTP/1.1\r\nHost: a\r\nUser-Agent: hal")
            await self._until_closed(client)

        return _counted(await self._each(port, [""] * count, one, patience=patience, at_once=count))

    async def burst(self, port: int, paths: Sequence[str], patience: float = 60.0) -> Told:
        """All at once: connect, ask (an empty path: nothing), read the whole answer, close."""

        async def one(client: Client, path: str) -> None:
            if path:
                await self._request(client, path, 1 << 62)

        clients = await self._each(port, paths, one, patience=patience, at_once=len(paths))
        _close(clients)
        return _counted(clients) | {"seen": [client.seen() for client in clients]}

    async def hold(self, port: int, count: int) -> Told:
        """Open connections and say nothing on them."""

        async def one(_client: Client, _path: str) -> None:
            return

        clients = await self._each(port, [""] * count, one)
        self._keep(clients)
        return _counted(clients)

    async def drip(self, port: int, path: str, count: int, patience: float) -> Told:
        """POST a body a byte a second, which nobody asked for, until the server ends it."""

        async def one(client: Client, _path: str) -> None:
            head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"
            await self._loop.sock_sendall(client.sock, head.encode())
            while True:
                await asyncio.sleep(1)
                await self._loop.sock_sendall(client.sock, b"x")

        clients = await self._each(port, [""] * count, one, patience=patience, at_once=count)
        _close(clients)
        return _counted(clients)

    async def push(self, paths: Sequence[str], port: int, size: int, seconds: float) -> Told:
        """Ask for each with a body of `size` bytes, push as much of it as the other side takes, and hold it."""

        async def one(client: Client, path: str) -> None:
            head = f"GET {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n"
            await self._loop.sock_sendall(client.sock, head.encode() + bytes(size))

        clients = await self._each(port, paths, one, patience=seconds, at_once=len(paths))
        self._held += clients
        return _counted(clients)

    async def pulse(self, port: int, path: str, seconds: float, every: float) -> Told:
        """Ask for something tiny again and again, on a new connection each time: how late the answers are."""
        clients: list[Client] = []
        overslept: list[float] = []
        until = time.monotonic() + seconds

        async def one(client: Client, path: str) -> None:
            await self._request(client, path, 1 << 62)

        while time.monotonic() < until:
            clients += await self._each(port, [path], one)
            clients[-1].sock.close()
            due = time.monotonic() + every
            await asyncio.sleep(every)
            overslept.append(time.monotonic() - due)
        return _counted(clients) | {"overslept_p99": sorted(overslept)[len(overslept) * 99 // 100]}

    async def alive(self) -> Told:
        """How many of the held connections the server has not ended. Nothing of a body is taken."""
        return {"alive": sum(not _ended(client.sock) for client in self._held), "held": len(self._held)}

    async def leave(self) -> Told:
        """Close every held connection."""
        clients, self._held = self._held, []
        _close(clients)
        return {"left": len(clients), "seen": [client.seen() for client in clients]}

    def _keep(self, clients: Sequence[Client]) -> list[Client]:
        """Hold those that go well; the others, which are closed."""
        well = [client.status in (0, 200, 206) and not client.fault for client in clients]
        self._held += [client for client, stays in zip(clients, well, strict=True) if stays]
        ended = [client for client, stays in zip(clients, well, strict=True) if not stays]
        _close(ended)
        return ended

    async def _each(
        self,
        port: int,
        paths: Sequence[str],
        act: Callable[[Client, str], Awaitable[None]],
        *,
        patience: float = 30.0,
        at_once: int = AT_ONCE,
    ) -> list[Client]:
        gate = asyncio.Semaphore(at_once)
        clients: list[Client] = []

        async def one(path: str) -> None:
            async with gate:
                sock = socket.socket()
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
                sock.setblocking(False)
                client = Client(sock, path, began=time.monotonic())
                clients.append(client)

                async def connect_and_act() -> None:
                    await self._loop.sock_connect(sock, ("127.0.0.1", port))
                    await act(client, path)

                await self._bounded(client, patience, connect_and_act())
                client.took = time.monotonic() - client.began

        await asyncio.gather(*(one(path) for path in paths))
        return clients

    @staticmethod
    async def _bounded(client: Client, patience: float, work: Awaitable[None]) -> None:
        try:
            await asyncio.wait_for(work, patience)
        except TimeoutError:
            client.fault = client.fault or "no end in time"
        except OSError as error:
            client.fault = client.fault or type(error).__name__

    async def _request(self, client: Client, path: str, read: int) -> None:
        await self._loop.sock_sendall(client.sock, f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        data = b""
        while b"\r\n\r\n" not in data and len(data) < HEAD_MAX:
            # Small reads: what is read of the body with the head is all that this client will take.
            part = await self._loop.sock_recv(client.sock, 2048)
            if not part:
                client.fault = "closed before the head"
                return
            data += part
        head, _, body = data.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:])
        client.status, client.length = int(head.split()[1]), int(fields.get(b"content-length", 0))
        client.request_id = fields.get(b"x-request-id", b"").strip().decode()
        client.received = len(body)
        client.digest.update(body)
        if client.status >= 400:
            while len(body) < client.length:
                part = await self._loop.sock_recv(client.sock, CHUNK)
                if not part:
                    client.fault = "refusal cut short"
                    return
                body += part
            client.reason = str(json.loads(body).get("reason", ""))
        elif client.received < min(read, client.length):
            await self._read_body(client, min(read, client.length))

    async def _read_body(self, client: Client, until: int) -> None:
        while client.received < until:
            part = await self._loop.sock_recv(client.sock, min(CHUNK, until - client.received))
            if not part:
                client.fault = "body cut short"
                return
            client.received += len(part)
            client.digest.update(part)

    async def _until_closed(self, client: Client) -> None:
        while await self._loop.sock_recv(client.sock, CHUNK):
            pass
        client.fault = "ended by the server"


def _counted(clients: Sequence[Client]) -> Told:
    took = sorted(client.took for client in clients)
    return {
        "clients": len(clients),
        "outcomes": _tally(client.outcome or "connected" for client in clients),
        "p50": took[len(took) // 2],
        "p99": took[len(took) * 99 // 100],
        "slowest": took[-1],
    }


def _tally(words: Any) -> dict[str, int]:
    return dict(Counter(word for word in words if word))


def _ended(sock: socket.socket) -> bool:
    """By TCP_INFO's state, so that no byte of an unread body is taken: only ESTABLISHED (1) is alive."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != 1


def _close(clients: Sequence[Client]) -> None:
    for client in clients:
        client.sock.close()


async def _main() -> None:
    clients = Clients()
    reader = asyncio.StreamReader(limit=LINE_MAX)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        command = json.loads(line)
        try:
            answer = await getattr(clients, command.pop("what"))(**command)
        except Exception as error:  # noqa: BLE001  whatever it is, the runner shows it
            answer = {"failed": repr(error)}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(_main())
