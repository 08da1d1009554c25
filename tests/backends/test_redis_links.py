from __future__ import annotations

import pytest

from gateway.backends.redis_client import Wire
from gateway.backends.redis_links import RedisLinks
from gateway.errors import GatewayError
from gateway.policy.links import Link
from gateway.policy.model import Claims, FileEntry, Limits

SHARDS = 4


@pytest.fixture
def links(wire: Wire) -> RedisLinks:
    return RedisLinks(wire, SHARDS)


def claims(token_id: str, order: str | None = None) -> Claims:
    files = (FileEntry("a/ż.pdf", name="Morze.pdf"), FileEntry("b"))
    return Claims("shop", token_id, 2_000_000_000, files, order_id=order, limits=Limits(downloads=5))


async def test_a_link_is_found_by_its_id_in_any_shard(links: RedisLinks) -> None:
    stored = [claims(f"t{number}", str(number) if number % 2 else None) for number in range(8)]
    for number, each in enumerate(stored):
        await links.add(each, number)
    assert [await links.get(f"t{number}") for number in range(8)] == [
        Link(each, number) for number, each in enumerate(stored)
    ]
    assert await links.get("t9") is None


async def test_the_links_of_an_order_come_oldest_first(links: RedisLinks) -> None:
    await links.add(claims("new", "{1}"), 2)
    await links.add(claims("old", "{1}"), 1)
    await links.add(claims("other", "2"), 1)
    await links.add(claims("old", "{1}"), 1)
    assert [link.claims.token_id for link in await links.of_order("{1}")] == ["old", "new"]
    assert await links.of_order("3") == []


async def test_all_links_once(links: RedisLinks) -> None:
    for number in range(1200):
        await links.add(claims(f"t{number}", str(number % 7)), number)
    found = [link.claims.token_id async for link in links.all()]
    assert sorted(found) == sorted(f"t{number}" for number in range(1200))


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"claims": {}, "created": 1}', '{"claims": {"iss": "a"}, "created": 1}']
)
async def test_a_foreign_entry_is_an_error_and_not_a_link(links: RedisLinks, wire: Wire, text: str) -> None:
    await wire.execute("HSET", "gw:{0}:links", "x", text)
    with pytest.raises(GatewayError, match="link registry"):
        await links.get("x")
