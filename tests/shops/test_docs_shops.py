"""docs/shops.md: its examples are taken, and nothing of the form or of the topics is missing."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
import time
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from gateway.policy.orders import Line, Notice
from gateway.services.intake import AGE_MAX
from gateway.shops import SHOPS, shoper, shopify, woocommerce
from gateway.shops.signed import _Form

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/shops.md").read_text(encoding="utf-8")
SIGNED = PAGE.partition("## Any other shop")[2]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_the_age_that_a_signature_may_have_is_told() -> None:
    assert AGE_MAX == 3600
    assert "`t` may lie an\nhour" in SIGNED


def test_every_field_of_the_form_is_told_and_no_other() -> None:
    told = re.findall(r"^\| `(\w+)` \| (required)?", SIGNED, re.MULTILINE)
    fields = {name: "required" if field.is_required() else "" for name, field in _Form.model_fields.items()}
    assert dict(told) == fields


@pytest.mark.parametrize(
    "topic",
    [
        *sorted(shopify.ORDERS),
        *sorted(shopify.DISPUTES),
        *sorted(woocommerce.ORDERS),
        *sorted(shoper.ORDERS),
        *(shopify.REFUND, woocommerce.DELETED, shoper.DELETED),
    ],
)
def test_every_topic_is_told(topic: str) -> None:
    assert f"`{topic}`" in PAGE


@pytest.mark.parametrize("number", [0, 1])
def test_the_notices_are_read(number: int) -> None:
    notice = SHOPS["signed"].read({}, blocks("json")[number].encode(), 0)
    assert isinstance(notice, Notice)
    assert notice.shop_order_id == "1042"
    assert len(blocks("json")) == 2


@pytest.mark.skipif(
    sys.platform == "win32" or not shutil.which("openssl") or not shutil.which("curl"),
    reason="openssl or curl is not here",
)
async def test_the_example_signs_as_the_gateway_verifies() -> None:
    heard: list[Notice] = []

    async def take(request: web.Request) -> web.Response:
        body = await request.read()
        headers = {name.lower(): (value,) for name, value in request.headers.items()}
        shop = SHOPS["signed"]
        assert shop.verify(headers, body, [b"a secret; with $signs"]) == ""
        assert abs((shop.signed_at(headers) or 0) - time.time()) < 60
        notice = shop.read({}, body, 0)
        assert isinstance(notice, Notice)
        heard.append(notice)
        return web.Response(text="taken")

    app = web.Application()
    app.router.add_post("/hooks/main", take)
    (script,) = blocks("sh")
    async with TestServer(app) as server:
        environ = {
            **os.environ,
            "SHOP_WEBHOOK_SECRET": "a secret; with $signs",
            "TO": str(server.make_url("/hooks/main")),
        }
        pipe = asyncio.subprocess.PIPE
        child = await asyncio.create_subprocess_exec("sh", "-euc", script, env=environ, stdout=pipe, stderr=pipe)
        said, complained = await child.communicate()
    assert (child.returncode, said, complained) == (0, b"taken", b"")
    assert [(each.paid, each.lines) for each in heard] == [(True, (Line("1", sku="SEA-EPUB"),))]
