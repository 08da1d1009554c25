"""Forms: read within bounds, or none."""

from __future__ import annotations

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from gateway.web.forms import FORM_MAX, read_form

TYPE = "application/x-www-form-urlencoded"


async def read(body: bytes, content_type: str = TYPE) -> object:
    found: list[object] = []

    async def handle(request: web.Request) -> web.Response:
        found.append(await read_form(request))
        return web.Response()

    app = web.Application()
    app.router.add_post("/", handle)
    async with TestClient(TestServer(app)) as client:
        await client.post("/", data=body, headers={"Content-Type": content_type})
    return found[0]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", {}),
        (b"act=person&x=", {"act": "person", "x": ""}),
        (b"act=a&act=b", {"act": "a"}),
        (b"name=%C5%BB+%C3%B3", {"name": "Ż ó"}),
        (b"name=%ff", None),
        (b"\xff=1", None),
        (b"&".join(b"a%d=1" % n for n in range(21)), None),
        (b"a=" + b"x" * FORM_MAX, None),
    ],
)
async def test_a_form_is_read_within_bounds(body: bytes, expected: object) -> None:
    assert await read(body) == expected


async def test_what_is_no_form_is_none() -> None:
    assert await read(b"act=person", "application/json") is None
