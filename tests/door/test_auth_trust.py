"""Whom `/auth` believes, and which of the told requests is meant: no client may ask there, nor choose what is asked."""

from __future__ import annotations

import json

import pytest
from aiohttp import ClientSession, TCPConnector

STRANGER = "127.0.0.2"


@pytest.fixture
async def gateway(open_gateway):
    async with open_gateway(GATEWAY_TRUSTED_PROXIES="[127.0.0.1/32]") as running:
        yield running


@pytest.fixture
def asked(gateway):
    """Asks /auth for a file's first link as the proxy at `peer`, with these headers besides the address."""

    async def ask(token: str, peer: str = "127.0.0.1", **headers: str):
        told = {"X-Original-Uri": f"/d/{token}/1", "X-Forwarded-For": "203.0.113.9"}
        told |= {name.replace("_", "-"): text for name, text in headers.items()}
        connector = TCPConnector(local_addr=(peer, 0))
        async with (
            ClientSession(connector=connector) as client,
            client.get(f"{gateway.base}/auth", headers=told) as answer,
        ):
            return answer.status, answer.headers, await answer.read()

    return ask


async def test_who_is_no_trusted_proxy_learns_and_charges_nothing(gateway, asked) -> None:
    gateway.file("a.bin", 1000)
    token = gateway.token("a.bin", downloads=1)
    status, headers, body = await asked(token, peer=STRANGER)
    assert status == 403
    assert json.loads(body)["reason"] == "auth.untrusted"
    assert not [name for name in headers if name.lower() in ("x-gateway-file", "x-gateway-origin", "x-accel-redirect")]
    assert await gateway.events() == []
    status, headers, _ = await asked(token)
    assert (status, headers["X-Gateway-Status"]) == (200, "200")
    assert await gateway.used() == 1


async def test_the_method_is_the_buyers_and_not_the_asking_proxys(gateway, asked) -> None:
    gateway.file("a.bin", 1000)
    token = gateway.token("a.bin", downloads=1)
    for _ in range(3):
        assert (await asked(token, X_Original_Method="HEAD"))[0] == 200
    assert await gateway.used() == 0
    status, headers, _ = await asked(token, X_Original_Method="HEAD", X_Forwarded_Method="GET")
    assert (status, headers.get("X-Gateway-Reason")) == (403, "auth.request")
    assert (await asked(token, X_Original_Method="GET"))[0] == 200
    assert await gateway.used() == 1


async def test_what_is_told_in_two_voices_is_not_answered(gateway, asked) -> None:
    gateway.file("a.bin", 1000)
    one, other = (gateway.token("a.bin", downloads=1, token_id=name) for name in ("one", "other"))
    status, headers, _ = await asked(one, X_Forwarded_Uri=f"/d/{other}/1")
    assert (status, headers["X-Gateway-Status"], headers.get("X-Gateway-Reason")) == (403, "400", "auth.request")
    assert await gateway.events() == []
