"""Sends one webhook over HTTP: TLS verified, no redirect followed, no body read, no retry. See Sender for the contract.

Law: nothing of the address but its scheme and host is ever in a text: the rest may hold the shop's secret.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from types import TracebackType
from typing import Self

from aiohttp import (
    ClientConnectorCertificateError,
    ClientConnectorDNSError,
    ClientConnectorError,
    ClientError,
    ClientSession,
    ClientSSLError,
    ClientTimeout,
    DummyCookieJar,
    TCPConnector,
)
from yarl import URL

from gateway.policy.webhooks import Answer, Webhook

AT_ONCE = 8
TIMEOUT = 10.0
"""Seconds from the first byte of the connection to the last one of the answer's head."""
KEPT = 3.0
"""Seconds for which an idle connection may be used again."""
_GOOD = range(200, 300)


class HttpSender:
    """services.webhooks.Sender for one address."""

    def __init__(self, url: str, *, timeout: float = TIMEOUT) -> None:
        """`url` as in the settings; nothing is connected yet. `timeout` in seconds."""
        # Signed addresses are spoilt by another spelling of the same, and the settings allow only ASCII.
        self._url = URL(url, encoded=True)
        self._timeout = timeout
        self._session: ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = ClientSession(
            # Servers close idle connections after 5 s at the earliest; a webhook that meets that is one more try.
            connector=TCPConnector(limit=AT_ONCE, keepalive_timeout=KEPT),
            cookie_jar=DummyCookieJar(),
            timeout=ClientTimeout(total=self._timeout),
            headers={"User-Agent": "download-gateway"},
            auto_decompress=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def send(self, webhook: Webhook) -> Answer:
        """See Sender.send."""
        if self._session is None:
            raise TypeError("enter the sender before it sends")
        try:
            # Also where a name look-up or a TLS handshake hangs, which aiohttp's own limit may not reach.
            async with asyncio.timeout(self._timeout):
                answer = await self._session.post(
                    self._url, data=webhook.body, headers=webhook.headers, allow_redirects=False
                )
        except (ClientError, OSError, TimeoutError, ValueError) as error:
            return Answer("failed", _why(error))
        status = answer.status
        # Its body is nobody's affair: a short one has come with the head, and the connection is used again.
        if answer.content.at_eof():
            answer.release()
        else:
            answer.close()
        if status in _GOOD:
            return Answer("taken", str(status))
        return Answer("gone" if status == HTTPStatus.GONE else "failed", str(status))


def host_of(url: str) -> str:
    """Host of an address, and port where it is not the usual one: all that may be shown of it."""
    return URL(url, encoded=True).host_port_subcomponent or ""


def _why(error: Exception) -> str:
    """What went wrong, without the error's text, which may quote the address."""
    match error:
        case TimeoutError():
            return "no answer in time"
        case ClientConnectorCertificateError() | ClientSSLError():
            return "its TLS certificate is not good"
        case ClientConnectorDNSError():
            return "its host name is not known"
        case ClientConnectorError():
            return "no connection"
        case _:
            return f"the connection broke ({type(error).__name__})"
