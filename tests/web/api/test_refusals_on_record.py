"""Of what was refused the log keeps ids, and nothing that was pasted in the place of one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

import pytest
from redis.asyncio import Redis

from gateway.settings import Settings

Ask = Callable[..., Awaitable[Any]]
Acted = Callable[[], Awaitable[list[dict[str, str]]]]

UNTIL = {"until": "2099-01-31T18:00:00Z"}
SHORT = "eyJhbGciOiJIUzI1NiJ9.eyJqdGkiOiIxIn0.c2lnbmF0dXJl"
PRETTY = "ewogImFsZyI6ICJIUzI1NiIKfQ.ewogImp0aSI6ICIxIgp9.c2lnbmF0dXJlLW9mLWl0"


async def kept(settings: Settings) -> str:
    """Every byte of every event."""
    async with Redis.from_url(settings.redis.get_secret_value()) as client:
        return str([await client.xrange(f"gw:{{{shard}}}:events") for shard in range(settings.shards)])


@pytest.mark.parametrize("place", ["/links/{}/extend", "/orders/{}/extend"])
@pytest.mark.parametrize(
    "pasted",
    [
        SHORT,
        PRETTY,
        f"https://dl.example.com/l/{SHORT}",
        f"{SHORT.rpartition('.')[0]}.",
        f"{SHORT.partition('.')[2]}.",
        "eyJqdGkiOiIxIiwiZXhwIjoxfQ.c2lnbmF0dXJlLW9mLWl0LWFsbC1vZi1pdA",
        "buyer@example.com",
        "<buyer@example.com>",
        "buyer%40example.com",
    ],
)
async def test_no_token_and_no_address_is_ever_in_an_event(
    place: str, pasted: str, ask: Ask, acted: Acted, settings: Settings
) -> None:
    call = "link.extend" if "links" in place else "order.extend"
    answer = await ask("support", "POST", place.format(quote(pasted, safe="")), UNTIL)
    assert answer.status == 404
    assert await acted() == [{"staff.name": "sam", "staff.action": call, "http.response.status_code": "404"}]
    text = await kept(settings)
    assert [part for part in (pasted, "eyJ", "ewog", "example.com") if part in text] == []


async def test_a_whole_link_of_ours_is_in_no_event_either(ask: Ask, acted: Acted, settings: Settings) -> None:
    made = (await ask("ops", "POST", "/links", {"files": [{"key": "a"}]})).body
    token = made["link"].rpartition("/")[2]
    for path in (f"/links/{token}/extend", f"/orders/{token}/extend"):
        assert (await ask("support", "POST", path, UNTIL)).status == 404
        assert (await ask("read-only", "POST", path, UNTIL)).status == 403
    assert token not in await kept(settings)
    assert [each.get("token.id") for each in await acted()] == [made["token_id"], *[None] * 4]


@pytest.mark.parametrize("token_id", ["5f2b8c1d9e0a7b6c5d4e3f21", "shop.2026.7", "ey.7"])
async def test_what_may_be_an_id_is_kept(token_id: str, ask: Ask, acted: Acted) -> None:
    await ask("ops", "POST", f"/links/{token_id}/revoke")
    await ask("ops", "POST", f"/orders/{token_id}/revoke")
    said = {"staff.name": "otto", "http.response.status_code": "404"}
    told = sorted(await acted(), key=lambda each: each["staff.action"])
    assert told == [
        {**said, "staff.action": "link.revoke", "token.id": token_id},
        {**said, "staff.action": "order.revoke", "order.id": token_id},
    ]


@pytest.mark.parametrize("name", ["%C3%BC-7%20", "%20", "a%0Ab", "a%E2%80%A8b", "x" * 256])
async def test_what_no_order_can_be_called_is_not_kept(name: str, ask: Ask, acted: Acted) -> None:
    assert (await ask("ops", "POST", f"/orders/{name}/revoke")).status == 404
    assert await acted() == [
        {"staff.name": "otto", "staff.action": "order.revoke", "http.response.status_code": "404"},
    ]
