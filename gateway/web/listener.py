"""Listening sockets and TLS, from the settings' words. Every failure is one line that says what to do.

The supervisor opens the sockets and workers inherit them, so one port and one accept queue outlive every worker.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path

from gateway.errors import SettingsError

BACKLOG = 1024
RECEIVE_BUFFER = 32 * 1024
"""Bytes, which Linux doubles. Requests are small; without it a body that nobody asked for takes megabytes of kernel
memory a connection (tcp_rmem)."""


def open_sockets(host: str, port: int) -> tuple[socket.socket, ...]:
    """Listen on every address the host stands for; `::` takes IPv4 too. Raises SettingsError and leaves none open."""
    opened: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _type, _protocol, _name, place in dict.fromkeys(found):
            opened.append(_open(socket.AddressFamily(family), place))
    except OSError as error:
        close_all(opened)
        raise SettingsError(f"cannot listen on {_at(host, port)}: {_advice(error)}") from error
    return tuple(opened)


def close_all(sockets: Sequence[socket.socket]) -> None:
    """Close each; a closed one is left as it is."""
    for sock in sockets:
        sock.close()


def address_text(sock: socket.socket) -> str:
    """Host and port as they stand in a URL."""
    return _at(*sock.getsockname()[:2])


def tls_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """TLS ≥ 1.2 (RFC 9325 §3.1.1) with this chain and key, PEM. Raises SettingsError."""
    for name, path in (("certificate", certificate), ("key", key)):
        if not os.access(path, os.R_OK):
            raise SettingsError(f"tls.{name}: cannot read {path}: check the path and its permissions")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        # Without the callback OpenSSL would ask for a passphrase on the terminal and wait.
        context.load_cert_chain(certificate, key, password=lambda: "")
    except (ssl.SSLError, OSError, ValueError) as error:
        raise SettingsError(
            f"tls: {certificate} and {key} are not a certificate chain and its key without passphrase, both PEM"
        ) from error
    return context


def _at(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _open(family: socket.AddressFamily, place: tuple[object, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if place[0] == "::" else 1)
        # Before a connection is there: accepted ones inherit it.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        sock.setblocking(False)
        sock.bind(place)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _advice(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "another program listens there: stop it or set another address"
    if error.errno == errno.EACCES:
        return "not permitted: ports below 1024 need privileges; set a higher one"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address"
    return error.strerror or "the name cannot be resolved"
