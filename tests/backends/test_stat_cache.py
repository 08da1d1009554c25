"""StatCache: bounded, one question at a time per key, failures forgotten."""

from __future__ import annotations

import asyncio

import pytest

from gateway.backends.stat_cache import StatCache
from gateway.errors import FileMissing, OriginDown
from gateway.policy.model import StoredObject


class Store:
    def __init__(self) -> None:
        self.asked: list[str] = []
        self.error: Exception | None = None
        self.go = asyncio.Event()
        self.go.set()

    async def fetch(self, key: str) -> StoredObject:
        self.asked.append(key)
        await self.go.wait()
        if self.error is not None:
            raise self.error
        return StoredObject(key, len(self.asked), '"e"', 0, "text/plain")


async def test_an_answer_is_kept_until_it_is_old_or_fresh_is_asked_for():
    store = Store()
    cache = StatCache(store.fetch, keep=0.05)
    assert (await cache.get("a")).size == 1
    assert (await cache.get("a")).size == 1
    assert (await cache.get("a", fresh=True)).size == 2
    assert (await cache.get("a")).size == 2
    await asyncio.sleep(0.06)
    assert (await cache.get("a")).size == 3
    cache.forget("a")
    assert (await cache.get("a")).size == 4


async def test_the_least_recently_used_goes_first():
    store = Store()
    cache = StatCache(store.fetch, entries=2)
    for key in ("a", "b", "a", "c", "a", "b"):
        await cache.get(key)
    assert store.asked == ["a", "b", "c", "b"]


async def test_one_question_for_all_who_ask_and_one_who_leaves_does_not_end_it():
    store = Store()
    store.go.clear()
    cache = StatCache(store.fetch)
    first, *others = [asyncio.create_task(cache.get("a")) for _ in range(10)]
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    store.go.set()
    assert {(await other).size for other in others} == {1}
    assert first.cancelled()
    assert store.asked == ["a"]


async def test_failures_are_not_kept():
    store = Store()
    store.error = OriginDown("down")
    cache = StatCache(store.fetch)
    for _ in range(2):
        assert {type(e) for e in await asyncio.gather(cache.get("a"), cache.get("a"), return_exceptions=True)} == {
            OriginDown
        }
    assert len(store.asked) == 2
    store.error = None
    assert (await cache.get("a")).size == 3


async def test_missing_is_kept_for_a_moment():
    store = Store()
    store.error = FileMissing("no such key")
    cache = StatCache(store.fetch, keep_missing=0.05)
    for _ in range(3):
        with pytest.raises(FileMissing, match="no such key"):
            await cache.get("a")
    assert len(store.asked) == 1
    store.error = None
    await asyncio.sleep(0.06)
    assert (await cache.get("a")).size == 2


async def test_close_ends_the_questions_under_way():
    store = Store()
    store.go.clear()
    cache = StatCache(store.fetch)
    task = asyncio.create_task(cache.get("a"))
    await asyncio.sleep(0)
    await cache.close()
    with pytest.raises(asyncio.CancelledError):
        await task
