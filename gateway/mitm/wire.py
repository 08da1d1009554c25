"""mitmproxy's flows in our words, and what its hooks have no way for: to answer at once, to end, to hold bytes back.

mitmproxy is untyped here: it is installed in an environment of its own alone.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from mitmproxy import connection, http
from multidict import CIMultiDict, MultiDict

from gateway.front.head import Head
from gateway.front.plain import Answer
from gateway.http.preconditions import http_date
from gateway.policy.model import ByteRange, StoredObject
from gateway.transfer.choose import NOTSENT_LOWAT

SMALL_BODY = 64 * 1024
"""Bytes of a request's body that may be read to get past it; mitmproxy keeps them in memory."""
ANSWERED = "gateway.answered"
"""A mark in a flow's metadata: its response is an answer of ours."""


def head_of(flow: http.HTTPFlow) -> Head:
    """The request's head as it came over the wire."""
    path, _, query = flow.request.data.path.decode("utf-8", "surrogateescape").partition("?")
    headers = CIMultiDict((_text(name), _text(value)) for name, value in flow.request.headers.fields)
    peer = flow.client_conn.peername
    return Head(
        _text(flow.request.data.method),  # `method` is its upper case, which is not what the store would be asked with
        path,
        MultiDict(parse_qsl(query, keep_blank_values=True)),
        headers,
        str(peer[0]) if peer else "",
    )


def body_of(head: Head) -> int | None:
    """The size of the body that the request brings, 0 where there is none; None where it is long, or not told."""
    length = head.header("Content-Length") or "0"
    if "Transfer-Encoding" in head.headers or "Expect" in head.headers or not length.isascii() or not length.isdigit():
        return None
    return int(length) if int(length) <= SMALL_BODY else None


def answer(flow: http.HTTPFlow, answered: Answer) -> None:
    """This answer, in place of asking anybody."""
    now = time.time()
    fields = [(name.encode(), value.encode()) for name, value in headers_of(answered).items()]
    reason = HTTPStatus(answered.status).phrase.encode()
    flow.metadata[ANSWERED] = True
    body = b"" if flow.request.method == "HEAD" else answered.body
    flow.response = http.Response(b"HTTP/1.1", answered.status, reason, http.Headers(fields), body, None, now, now)


def headers_of(answered: Answer) -> dict[str, str]:
    """Those of an answer, as the HTTP door sends them."""
    length = len(answered.body) if answered.body else answered.length
    return {
        **answered.headers,
        **({} if length is None else {"Content-Length": str(length)}),
        "Date": http_date(int(time.time())),
        "Server": "download-gateway",
    }


def ask_for(flow: http.HTTPFlow, url: str, stored: StoredObject, part: ByteRange) -> None:
    """Make the request one to the store, for exactly this part of this version; nothing of the client's goes along."""
    where = urlsplit(url)
    made = flow.request
    # Whether the client's connection stays open is read from this very request.
    closes = made.http_version == "HTTP/1.0" or "close" in made.headers.get("Connection", "").lower()
    made.headers.clear()
    made.authority = ""
    made.http_version = "HTTP/1.1"
    made.scheme = where.scheme
    made.host, made.port = place_of(url)
    made.data.path = url.removeprefix(f"{where.scheme}://{where.netloc}").encode()
    made.headers["Range"] = f"bytes={part.start}-{part.stop - 1}"
    made.headers["If-Match"] = stored.etag
    made.headers["Accept-Encoding"] = "identity"
    if closes:
        made.headers["Connection"] = "close"
    made.headers["Host"] = where.netloc  # last: host and port set it too, and this is what was signed


def place_of(url: str) -> tuple[str, int]:
    """Where to connect for this URL."""
    where = urlsplit(url)
    return where.hostname or "", where.port or (443 if where.scheme == "https" else 80)


def relay(
    flow: http.HTTPFlow, status: int, headers: Mapping[str, str], take: Callable[[bytes], bytes | list[bytes]]
) -> None:
    """The store's body under a head of ours; of the store's own head nothing is left."""
    response = flow.response
    response.http_version, response.status_code, response.reason = "HTTP/1.1", status, HTTPStatus(status).phrase
    response.headers.clear()
    for name, value in headers.items():
        response.headers[name] = value
    response.stream = take


def status_of(flow: http.HTTPFlow) -> int:
    """What the store answered."""
    return int(flow.response.status_code)


def store_headers(flow: http.HTTPFlow) -> CIMultiDict[str]:
    """The headers of the store's answer."""
    return CIMultiDict((_text(name), _text(value)) for name, value in flow.response.headers.fields)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


class Valve:
    """In place of a connection's own reading. Pausing the transport would not hold: what the reader has buffered is
    still handed on, and the reader resumes the transport by itself.
    """

    def __init__(self, reader: Any) -> None:
        self._read = reader.read
        self._turned = asyncio.Event()
        self._room: Callable[[], int | None] = lambda: None
        self.is_held = False
        reader.read = self.read

    def turn(self, room: Callable[[], int | None]) -> None:
        """`room`: bytes that may be read now, None: any number."""
        self._room = room
        self.look()

    def look(self) -> None:
        """There may be room again."""
        self._turned.set()

    async def read(self, most: int) -> bytes:
        """As StreamReader.read, once there is room."""
        while (room := self._room()) is not None and room <= 0:
            self._turned.clear()
            self.is_held = True
            try:
                await self._turned.wait()
            finally:
                self.is_held = False
        read: bytes = await self._read(most if room is None else min(most, room))
        return read


class Line:
    """The client's connection of a flow, and the store's behind it."""

    def __init__(self, flow: http.HTTPFlow, connections: Mapping[str, Any]) -> None:
        """`connections`: mitmproxy's own, by the client's id."""
        self._flow = flow
        self._connections = connections
        self._valve: Valve | None = None

    @property
    def client_gone(self) -> bool:
        """Whether the client no longer listens."""
        return not self._flow.client_conn.state & connection.ConnectionState.CAN_READ

    @property
    def unsent(self) -> int:
        """Bytes that wait here for a client that reads slowly."""
        writer = self._writer(self._flow.client_conn)
        return 0 if writer is None else int(writer.transport.get_write_buffer_size())

    def keep_little(self) -> None:
        """Let the kernel take little more than it can send, so that what has passed has nearly arrived."""
        writer = self._writer(self._flow.client_conn)
        if writer is not None and hasattr(socket, "TCP_NOTSENT_LOWAT"):
            writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOTSENT_LOWAT)

    def say(self, answered: Answer) -> None:
        """This answer at once, and no more. Where mitmproxy ends the client's TLS it can only be the end."""
        writer = self._writer(self._flow.client_conn)
        if writer is not None and not self._flow.client_conn.tls and not writer.is_closing():
            fields = {**headers_of(answered), "Connection": "close"}
            lines = [f"HTTP/1.1 {answered.status} {HTTPStatus(answered.status).phrase}"]
            lines += [f"{name}: {value}" for name, value in fields.items()]
            body = b"" if self._flow.request.method == "HEAD" else answered.body
            writer.write("\r\n".join((*lines, "", "")).encode() + body)
            writer.close()
        elif writer is not None:
            self.end()
        self.kill()

    def kill(self) -> None:
        """Nothing of the store's may go out."""
        if self._flow.killable:
            self._flow.kill()

    def end(self) -> None:
        """Drop the client, and what waits for it."""
        channel = self._channel(self._flow.client_conn)
        if channel is None:
            return
        if channel.writer is not None:
            channel.writer.transport.abort()
        if channel.handler is not None:
            channel.handler.cancel("ended")  # a reader that waits for room in the buffers

    def measure(self, room: Callable[[], int | None]) -> None:
        """Read no more from the store than there is room for; None: any number of bytes."""
        channel = self._channel(self._flow.server_conn)
        if channel is None or channel.reader is None:
            return
        made = getattr(channel.reader.read, "__self__", None)
        self._valve = made if isinstance(made, Valve) else Valve(channel.reader)
        self._valve.turn(room)

    def go_on(self) -> None:
        """There may be room again."""
        if self._valve is not None:
            self._valve.look()

    def let_go(self) -> None:
        """Read from the store as ever: the client's next request may come by the same connection."""
        valve, self._valve = self._valve, None
        if valve is not None:
            valve.turn(lambda: None)

    @property
    def is_held(self) -> bool:
        return self._valve is not None and self._valve.is_held

    def _channel(self, end: Any) -> Any:
        handler = self._connections.get(self._flow.client_conn.id)
        return None if handler is None else handler.transports.get(end)

    def _writer(self, end: Any) -> Any:
        channel = self._channel(end)
        return None if channel is None else channel.writer
