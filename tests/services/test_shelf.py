"""Which version was sold, over a real folder and over stores that fail: never an exception, and never late."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from gateway.backends.files import FolderStore
from gateway.errors import FileMissing, GatewayError, OriginChanged, OriginDown, OriginTimeout
from gateway.policy.model import ByteRange, FileEntry, StoredObject
from gateway.policy.orders import Entitlement, Order, SoldFile
from gateway.services import shelf
from gateway.services.shelf import AT_ONCE, Changed, look, sold
from gateway.store_ports import Body

ELSEWHERE = FileEntry(None, "https://cdn.example.com/a?signature=secret")
Answer = Callable[[str], Awaitable[StoredObject]]


class Store:
    """A store whose answers are the test's."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[str] = []
        self.live = 0
        self.most = 0

    async def stat(self, key: str, *, fresh: bool = False) -> StoredObject:
        self.asked.append(key)
        self.live += 1
        self.most = max(self.most, self.live)
        try:
            return await self.answer(key)
        finally:
            self.live -= 1

    async def open(self, stored: StoredObject, part: ByteRange) -> Body:
        raise AssertionError("nothing is read")

    async def close(self) -> None:
        raise AssertionError("the store is not the shelf's")


def stored(key: str) -> StoredObject:
    return StoredObject(key, len(key), f'"{key}"', 0, "")


def order(*files: SoldFile, line_id: str = "1") -> Order:
    return Order("main-1", "main", "1", entitlements=(Entitlement(line_id, "", files, 0),))


@pytest.fixture
async def folder(tmp_path: Path) -> AsyncIterator[FolderStore]:
    store = FolderStore(tmp_path, keep=0)
    yield store
    await store.close()


async def test_what_is_in_a_folder_is_sold_as_it_is(folder: FolderStore, tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(b"12345")
    (tmp_path / "folder").mkdir()
    files = [FileEntry("a.pdf"), FileEntry("gone.pdf"), ELSEWHERE, FileEntry("folder"), FileEntry("a.pdf", name="A")]
    first, *others, again = await sold(files, folder)
    assert (first.file, first.size, first.etag) == (files[0], 5, (await folder.stat("a.pdf")).etag)
    assert others == [SoldFile(file, "", -1) for file in files[1:4]]
    assert again == SoldFile(files[4], first.etag, 5)


async def test_what_was_replaced_and_what_is_gone_is_told(folder: FolderStore, tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).write_bytes(b"12345")
    bought = order(*await sold([*map(FileEntry, "abc"), ELSEWHERE], folder))
    assert await look(bought, folder) == []
    (tmp_path / "new").write_bytes(b"123456")
    (tmp_path / "new").replace(tmp_path / "b")
    (tmp_path / "c").unlink()
    files = bought.entitlements[0].files
    assert await look(bought, folder) == [
        Changed("1", files[1], "replaced", await folder.stat("b")),
        Changed("1", files[2], "missing"),
    ]


async def test_each_line_is_compared_with_what_it_bought() -> None:
    async def answer(key: str) -> StoredObject:
        return stored(key)

    file = FileEntry("a")
    old, new, unknown = SoldFile(file, '"old"', 3), SoldFile(file, '"a"', 1), SoldFile(file)
    entitlements = tuple(Entitlement(str(number), "", (each,), 0) for number, each in enumerate((old, new, unknown)))
    store = Store(answer)
    assert await look(Order("main-1", "main", "1", entitlements=entitlements), store) == [
        Changed("0", old, "replaced", stored("a"))
    ]
    assert store.asked == ["a"], "each object is asked for once"


@pytest.mark.parametrize("error", [OriginDown("x"), OriginTimeout("x"), OriginChanged("x"), GatewayError("x")])
async def test_of_a_store_that_is_down_nothing_is_known(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    async def answer(key: str) -> StoredObject:
        if key == "b":
            return stored(key)
        raise error

    store = Store(answer)
    files = [FileEntry("a"), FileEntry("b")]
    assert await sold(files, store) == (SoldFile(files[0]), SoldFile(files[1], '"b"', 1))
    assert await look(order(SoldFile(files[0], '"a"', 1)), store) == []
    assert caplog.text == ""


@pytest.mark.parametrize("error", [ValueError("secret"), TimeoutError("secret"), ExceptionGroup("secret", [OSError()])])
async def test_a_store_that_breaks_is_told_without_its_words(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def answer(key: str) -> StoredObject:
        if key == "b":
            return stored(key)
        raise error

    store = Store(answer)
    files = [FileEntry("a"), FileEntry("b")]
    assert await sold(files, store) == (SoldFile(files[0]), SoldFile(files[1], '"b"', 1))
    assert type(error).__name__ in caplog.text
    assert "secret" not in caplog.text


async def test_a_store_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PATIENCE", "SALE_PATIENCE"):
        monkeypatch.setattr(shelf, name, 0.2)
    never = asyncio.Event()

    async def answer(key: str) -> StoredObject:
        if key.startswith("slow"):
            await never.wait()
        if key == "gone":
            raise FileMissing("gone")
        return stored(key)

    store = Store(answer)
    files = [FileEntry(name) for name in ("a", "slow", "gone", "b")]
    began = time.monotonic()
    assert await sold(files, store) == (
        SoldFile(files[0], '"a"', 1),
        SoldFile(files[1]),
        SoldFile(files[2]),
        SoldFile(files[3], '"b"', 1),
    )
    bought = order(*(SoldFile(file, '"x"', 1) for file in files))
    assert [(each.sold.file.key, each.state) for each in await look(bought, store)] == [
        ("a", "replaced"),
        ("gone", "missing"),
        ("b", "replaced"),
    ]
    assert 0.3 < time.monotonic() - began < 3
    assert store.live == 0, "nobody goes on asking"


async def test_a_thousand_files_are_asked_for_a_few_at_once() -> None:
    async def answer(key: str) -> StoredObject:
        await asyncio.sleep(0)
        return stored(key)

    store = Store(answer)
    found = await sold([FileEntry(f"{number % 500}") for number in range(1000)], store)
    assert all(each.etag == f'"{each.file.key}"' for each in found)
    assert len(found) == 1000
    assert len(store.asked) == 500
    assert store.most == AT_ONCE


async def test_who_is_cancelled_stops_asking() -> None:
    asked = asyncio.Event()

    async def answer(key: str) -> StoredObject:
        asked.set()
        await asyncio.Event().wait()
        return stored(key)

    store = Store(answer)
    task = asyncio.create_task(sold([FileEntry("a")], store))
    await asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert store.live == 0


async def test_nothing_to_ask() -> None:
    async def answer(key: str) -> StoredObject:
        raise AssertionError(key)

    assert await sold([], Store(answer)) == ()
    assert await sold([ELSEWHERE], Store(answer)) == (SoldFile(ELSEWHERE),)
    assert await look(order(SoldFile(ELSEWHERE)), Store(answer)) == []
