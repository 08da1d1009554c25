"""What the kernel knows of one TCP connection: bytes the peer acknowledged, bytes still queued, and its state.

Law: a reading that this platform or socket cannot give is None, never a guess.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import sys
import termios
from dataclasses import dataclass

# Linux struct tcp_info (include/uapi/linux/tcp.h): tcpi_state is its first byte; tcpi_bytes_acked is a u64 behind
# 8 single bytes, 24 u32 and 2 u64. A kernel or sandbox older than the field returns a shorter struct.
_BYTES_ACKED = struct.Struct("@120xQ")
_QUEUED = struct.Struct("@i")
_READABLE = sys.platform == "linux"

CLOSED = 7
"""TCP_CLOSE: reset, timed out, or closed by both sides and fully acknowledged."""
_PEER_CLOSED = frozenset({8, 9, 11})  # CLOSE_WAIT, LAST_ACK, CLOSING: the peer's FIN has arrived
_ATTEMPTS = 8


@dataclass(frozen=True, slots=True)
class TcpInfo:
    """One reading. `bytes_acked` counts from the connection's start (RFC 4898 tcpEStatsAppHCThruOctetsAcked)."""

    state: int
    bytes_acked: int


def tcp_info(sock: socket.socket) -> TcpInfo | None:
    """The kernel's view of the connection, also after a reset; None for what is not TCP on Linux ≥ 4.1."""
    if not _READABLE:
        return None
    try:
        raw = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED.size)
    except OSError:
        return None
    if len(raw) < _BYTES_ACKED.size:
        return None
    (acked,) = _BYTES_ACKED.unpack(raw)
    return TcpInfo(raw[0], acked)


def queued(sock: socket.socket) -> int | None:
    """Bytes in the kernel that the peer has not acknowledged (SIOCOUTQ, tcp(7)); None where it cannot be asked."""
    if not _READABLE:
        return None
    try:
        (count,) = _QUEUED.unpack(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(_QUEUED.size)))
    except (OSError, ValueError):
        return None
    return int(count)


def end_of_queue(sock: socket.socket) -> int | None:
    """What bytes_acked will be once all that the kernel holds now is acknowledged; None where unknown."""
    end = None
    before = tcp_info(sock)
    for _ in range(_ATTEMPTS):
        waiting = queued(sock)
        after = tcp_info(sock)
        if before is None or waiting is None or after is None:
            return None
        end = before.bytes_acked + waiting
        # An acknowledgement that came between the two readings is in neither of them: read again.
        if before.bytes_acked == after.bytes_acked:
            break
        before = after
    return end


def nothing_more_to_come(sock: socket.socket) -> bool:
    """Whether no further byte can be acknowledged: reset or closed, or the peer left and nothing is outstanding."""
    info = tcp_info(sock)
    if info is None:
        return False
    return info.state == CLOSED or (info.state in _PEER_CLOSED and queued(sock) == 0)
