"""One request to the store and its few retries. What leaves here is an answer's head or one of our errors.

aiohttp's exceptions hold the signed address in their text, so they are never raised on, chained or logged.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import socket
import time
from dataclasses import dataclass
from http import HTTPStatus

import aiohttp
from aiohttp.http import HttpProcessingError
from yarl import URL

from gateway.backends.s3_answers import refusal
from gateway.backends.s3_names import Names
from gateway.backends.s3_signing import Signer
from gateway.backends.s3_tries import Tries
from gateway.errors import GatewayError, OriginDown, OriginError, OriginTimeout

# Everything aiohttp lets through while it connects, reads a head or reads a body.
LIBRARY_ERRORS = (aiohttp.ClientError, HttpProcessingError, OSError, RuntimeError)

_PASSING = {
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}
_REFUSED = {HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
_BACK_OFF_S = 0.1
SLOW = 1024
_LONGEST_WAIT_S = 2.0
_RETRY_AFTER = re.compile(r"[0-9]{1,4}")
_RETRY_AFTER_MAX_S = 30.0
_HEADERS = {"Accept-Encoding": "identity", "User-Agent": "download-gateway"}


@dataclass(frozen=True, slots=True)
class Wire:
    """How connections to the store behave. Times in seconds, sizes in bytes.

    `receive_buffer` bounds what the kernel holds of a body whose reader is slow; it also bounds one download's speed
    to about buffer ÷ round trip, so a store far away may want more. 0 leaves it to the kernel (tcp_rmem).
    A body that brings less than 1 KiB/s in `slow_after` seconds of waiting for it (twice `read_timeout`) has stalled.
    """

    connect_timeout: float = 5.0
    read_timeout: float = 30.0
    receive_buffer: int = 256 * 1024
    read_size: int = 64 * 1024
    slow_after: float | None = None

    @property
    def stretch(self) -> float:
        """So long a body is waited for before its speed is judged."""
        return 2 * self.read_timeout if self.slow_after is None else self.slow_after


@dataclass(frozen=True, slots=True)
class _Failure:
    error: GatewayError
    passing: bool = False
    refused: bool = False
    quiet: float = 0.0


class S3Client:
    """Sends signed requests; unbounded connections (the caller bounds the downloads), kept alive."""

    def __init__(self, signer: Signer, wire: Wire) -> None:
        self.signer = signer
        self._wire = wire
        self._kept: aiohttp.ClientSession | None = None
        self._fresh: aiohttp.ClientSession | None = None
        self._names: Names | None = None

    async def ask(
        self, method: str, key: str, headers: dict[str, str], tries: Tries, *, spare: int = 0
    ) -> aiohttp.ClientResponse:
        """The 200 or 206 to `method` `key`, its body unread; the caller closes it.

        One request, and more while more than `spare` tries are left. Raises FileMissing, OriginChanged, OriginDown,
        OriginTimeout.
        """
        attempt = 1
        while True:
            url, known = await self.signer.address(method, key)
            tries.take()
            answer = await self._once(method, url, headers, fresh=tries.failed)
            if isinstance(answer, aiohttp.ClientResponse):
                return answer
            tries.failed = True
            tries.quiet_until = time.monotonic() + answer.quiet
            if answer.refused:
                self.signer.forget(method, key)
            # Refused, perhaps only the address is no longer good: the keys were changed, or a clock was set.
            if tries.left <= spare or not (answer.passing or (answer.refused and known)):
                raise answer.error
            if answer.passing:
                if tries.quiet_until - time.monotonic() > _LONGEST_WAIT_S:
                    raise answer.error
                await self.back_off(tries, 3 ** (attempt - 1))
            attempt += 1

    async def back_off(self, tries: Tries, steps: int) -> None:
        """Wait before asking again, not in step with others nor before the store's Retry-After; it may have moved."""
        if self._names is not None:
            self._names.doubt()
        quiet = max(0.0, tries.quiet_until - time.monotonic())
        await asyncio.sleep(quiet + _BACK_OFF_S * steps * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, no secret

    async def close(self) -> None:
        """Close every connection."""
        for session in (self._kept, self._fresh):
            if session is not None:
                await session.close()
        if self._names is not None:
            await self._names.close()

    async def _once(
        self, method: str, url: URL, headers: dict[str, str], *, fresh: bool
    ) -> aiohttp.ClientResponse | _Failure:
        if self._kept is None or self._fresh is None or self._names is None:
            self._names = Names(self._wire.connect_timeout)
            self._kept = _session(self._wire, self._names, keep=True)
            # Where one kept connection turned out to be dead, the others are likely to be: a new try gets a new one.
            self._fresh = _session(self._wire, self._names, keep=False)
        session = self._fresh if fresh else self._kept
        try:
            # sock_read begins anew with each byte: this bounds the head.
            async with asyncio.timeout(self._wire.connect_timeout + self._wire.read_timeout):
                answer = await session.request(method, url, headers=headers, allow_redirects=False)
        except LIBRARY_ERRORS as error:
            if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
                self._names.doubt()
            failure = broken(error)
            return _Failure(failure, passing=not isinstance(failure, OriginTimeout))
        if answer.status in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
            return answer
        answer.close()
        after = answer.headers.get("Retry-After", "")
        return _Failure(
            refusal(answer.status, answer.headers),
            passing=answer.status in _PASSING,
            refused=answer.status in _REFUSED,
            quiet=min(float(after), _RETRY_AFTER_MAX_S) if _RETRY_AFTER.fullmatch(after) else 0.0,
        )


def broken(error: Exception) -> OriginError:
    """Our error for one of LIBRARY_ERRORS, with a text that is safe to log."""
    if isinstance(error, TimeoutError):
        return OriginTimeout("the store did not answer in time")
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError):
        return OriginDown("no secure connection to the store: its certificate or TLS settings are wrong")
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return OriginDown("the store's name cannot be resolved")
    if isinstance(error, OSError) and error.errno:
        return OriginDown(f"the connection to the store failed: {os.strerror(error.errno)}")
    return OriginDown(f"the store's answer was cut or is no HTTP ({type(error).__name__})")


def _session(wire: Wire, names: Names, *, keep: bool) -> aiohttp.ClientSession:
    def open_socket(address: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, _ = address
        sock = socket.socket(family, kind, protocol)
        if wire.receive_buffer:
            # Before connect(): the window scale is settled in the handshake.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, wire.receive_buffer)
        return sock

    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=0, socket_factory=open_socket, resolver=names, use_dns_cache=False, force_close=not keep
        ),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=wire.connect_timeout, sock_read=wire.read_timeout),
        headers=_HEADERS,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        read_bufsize=wire.read_size,
        middlewares=(_no_hidden_retry,),
    )


async def _no_hidden_retry(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    # aiohttp sends an idempotent request twice where the connection breaks, on top of our own attempts; there is no
    # setting against it (aio-libs/aiohttp#10790), but it only does so for these two.
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise aiohttp.ClientConnectionError(type(error).__name__) from error
