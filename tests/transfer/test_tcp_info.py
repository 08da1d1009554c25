"""The kernel's readings of real connections."""

from __future__ import annotations

import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from gateway.transfer import tcp_info

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="TCP_INFO and SIOCOUTQ are Linux's")


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    server.setblocking(False)
    with client, server:
        yield server, client


def soon(true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 3
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def fill(sock: socket.socket) -> None:
    with suppress(BlockingIOError):
        while sock.send(b"x" * 65536):
            pass


def acked(sock: socket.socket) -> int:
    info = tcp_info.tcp_info(sock)
    assert info is not None
    return info.bytes_acked


def test_acknowledged_bytes_grow_by_what_was_sent(pair: tuple[socket.socket, socket.socket]) -> None:
    server, _ = pair
    start = acked(server)
    assert tcp_info.end_of_queue(server) == start
    server.send(b"x" * 1000)
    assert soon(lambda: acked(server) == start + 1000)
    assert tcp_info.queued(server) == 0


def test_end_of_queue_is_where_the_acknowledged_bytes_will_end(pair: tuple[socket.socket, socket.socket]) -> None:
    server, client = pair
    fill(server)
    assert (tcp_info.queued(server) or 0) > 0
    end = tcp_info.end_of_queue(server)
    assert end is not None
    assert end > acked(server)
    client.setblocking(False)

    def drained() -> bool:
        try:
            while client.recv(1 << 20):
                pass
        except BlockingIOError:
            return tcp_info.queued(server) == 0
        return False

    assert soon(drained)
    assert acked(server) == end


def test_a_reset_ends_all_and_still_answers(pair: tuple[socket.socket, socket.socket]) -> None:
    server, client = pair
    server.send(b"x" * 5000)
    assert soon(lambda: tcp_info.queued(server) == 0)
    before = acked(server)
    assert not tcp_info.nothing_more_to_come(server)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    assert soon(lambda: tcp_info.nothing_more_to_come(server))
    assert acked(server) == before


def test_a_half_closed_peer_may_still_acknowledge(pair: tuple[socket.socket, socket.socket]) -> None:
    server, client = pair
    fill(server)
    client.shutdown(socket.SHUT_WR)
    time.sleep(0.05)
    assert not tcp_info.nothing_more_to_come(server)


def test_what_cannot_be_read_is_none() -> None:
    left, right = socket.socketpair()
    with left, right:
        assert tcp_info.tcp_info(left) is None
        assert tcp_info.end_of_queue(left) is None
        assert not tcp_info.nothing_more_to_come(left)
    assert tcp_info.tcp_info(left) is None
    assert tcp_info.queued(left) is None


def test_a_kernel_with_a_shorter_struct_is_none(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    class OldKernel(socket.socket):
        def getsockopt(self, *_: object) -> bytes:
            return bytes(104)

    with OldKernel() as old:
        assert tcp_info.tcp_info(old) is None
    monkeypatch.setattr(tcp_info, "_READABLE", False)
    assert tcp_info.tcp_info(pair[0]) is None
    assert tcp_info.queued(pair[0]) is None
