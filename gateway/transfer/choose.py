"""The cheapest way that the two ends of a download allow: sendfile, or copy.

Law: the choice is made here and nowhere else; splice, from a plain-HTTP origin to a SocketChannel, belongs here too.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import Protocol

from aiohttp import web

from gateway.errors import ClientGone
from gateway.store_ports import Body, FileBody
from gateway.transfer.channel import Channel
from gateway.transfer.copy import CopyMover, FileStream
from gateway.transfer.sendfile import SendfileMover
from gateway.transfer.socket_channel import SocketChannel
from gateway.transfer.transport_channel import TransportChannel

NOTSENT_LOWAT = 128 * 1024
"""Unsent bytes that the kernel holds for one client (tcp(7)): a slow reader then costs kilobytes, at full speed."""


class Mover(Protocol):
    """Moves one body to one channel, window by window."""

    async def move(self, count: int) -> None:
        """Move exactly the next `count` bytes. Raises ClientGone, OriginDown, OriginTimeout, OriginChanged."""


def mover_for(body: Body, channel: Channel) -> Mover:
    """The cheapest mover for these two ends."""
    if not isinstance(body, FileBody):
        return CopyMover(body, channel)
    if isinstance(channel, SocketChannel):
        return SendfileMover(body, channel)
    return CopyMover(FileStream(body), channel)


async def open_channel(request: web.BaseRequest, response: web.StreamResponse) -> Channel:
    """The cheapest channel for the body of `response`, whose Content-Length is set; sends its head if need be.

    Returns once the head has left user space. Raises ClientGone. The caller calls `release` exactly once.
    """
    transport = request.transport
    if transport is None or transport.is_closing():
        raise ClientGone("the client's connection is closed")
    tls = transport.get_extra_info("sslcontext") is not None
    # asyncio's TLS transport pauses at `size >= high` and would never resume with 0, the others pause above it.
    transport.set_write_buffer_limits(high=int(tls), low=0)
    try:
        writer = await response.prepare(request)
        if writer is None:
            raise ClientGone("the response has ended already")
        writer.send_headers()
        await writer.drain()
    except ConnectionError as error:
        raise ClientGone("the client closed its connection") from error
    dup = _dup(transport)
    if dup is None or tls or transport.get_write_buffer_size():
        return TransportChannel(response, writer, transport, dup)
    return SocketChannel(response, writer, transport, dup)


def _dup(transport: asyncio.Transport) -> socket.socket | None:
    """The transport's socket under a descriptor of our own, which the loop lets us watch; None where there is none."""
    try:
        dup: socket.socket = transport.get_extra_info("socket").dup()
    except (OSError, AttributeError):
        return None
    with suppress(OSError):  # not TCP
        dup.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOTSENT_LOWAT)
    return dup
