"""Checksums: of a folder's files, of objects as S3 tells them, and of what was sent, in a real Redis."""

from __future__ import annotations

import asyncio
import hashlib
import os
import zlib
from base64 import b64encode
from pathlib import Path

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from gateway.backends import file_sums
from gateway.backends.files import FolderStore
from gateway.backends.redis_client import Wire, connect
from gateway.backends.redis_sums import RedisSums
from gateway.backends.s3 import S3Store
from gateway.backends.s3_answers import stored_object
from gateway.policy.model import StoredObject, Sums
from gateway.ports import Summed

DATA = os.urandom(3_000_000)
GOOD = Sums(hashlib.sha256(DATA).hexdigest(), zlib.crc32(DATA))


@pytest.fixture
async def store(tmp_path: Path):
    (tmp_path / "a.bin").write_bytes(DATA)
    opened = FolderStore(tmp_path)
    yield opened
    await opened.close()


async def known(store: FolderStore, stored: StoredObject, patience: float = 3.0) -> Sums:
    for _ in range(int(patience / 0.02)):
        if (sums := store.sums(stored)) != Sums():
            return sums
        await asyncio.sleep(0.02)
    return Sums()


async def test_a_folder_knows_them_after_a_while(store: FolderStore, tmp_path: Path) -> None:
    stored = await store.stat("a.bin")
    assert store.sums(stored) == Sums(), "nobody waits for it"
    assert await known(store, stored) == GOOD
    (tmp_path / "a.bin").write_bytes(b"other")
    again = await store.stat("a.bin", fresh=True)
    assert (await known(store, again)).sha256 == hashlib.sha256(b"other").hexdigest()
    assert store.sums(stored) == GOOD, "which is what was asked: of that version"


async def test_of_a_file_that_was_replaced_or_is_long_there_are_none(
    store: FolderStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = await store.stat("a.bin")
    (tmp_path / "a.bin").write_bytes(b"other")
    assert await known(store, stored, 0.2) == Sums()
    monkeypatch.setattr(file_sums, "SIZE_MAX", 3)
    assert await known(store, await store.stat("a.bin", fresh=True), 0.2) == Sums()


async def test_only_so_many_wait_and_are_remembered(
    store: FolderStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_sums, "ENTRIES", 2)
    found = []
    for name in ("1", "2", "3"):
        (tmp_path / name).write_bytes(name.encode())
        found.append(await store.stat(name))
        assert await known(store, found[-1]) != Sums()
    monkeypatch.setattr(file_sums, "PENDING_MAX", 0)
    assert [store.sums(each) != Sums() for each in found] == [False, True, True]


def told(**headers: str) -> Sums:
    given = {"Content-Length": "5", "Last-Modified": "Tue, 14 Nov 2023 22:13:20 GMT", "ETag": '"e"'}
    more = {f"x-amz-checksum-{name}": value for name, value in headers.items()}
    return stored_object("a", CIMultiDictProxy(CIMultiDict({**given, **more}))).sums


def test_s3_tells_those_of_the_whole_object() -> None:
    sha256, crc32 = b64encode(hashlib.sha256(b"hello").digest()).decode(), b64encode(zlib.crc32(b"hello").to_bytes(4))
    good = Sums(hashlib.sha256(b"hello").hexdigest(), zlib.crc32(b"hello"))
    assert told() == Sums()
    assert told(sha256=sha256, crc32=crc32.decode()) == good
    assert told(sha256=sha256, crc32=crc32.decode(), type="FULL_OBJECT") == good
    assert told(sha256=sha256, type="COMPOSITE") == Sums()
    assert told(sha256=f"{sha256}-3") == Sums(), "a sum of the parts' sums"
    assert told(sha256="no base64!", crc32="AAAA") == Sums()


async def test_s3_keeps_those_of_the_upload(moto_s3) -> None:
    where = {"Bucket": moto_s3.bucket, "Body": b"hello"}
    moto_s3.client.put_object(Key="with.bin", ChecksumAlgorithm="SHA256", **where)
    moto_s3.client.put_object(Key="crc.bin", ChecksumAlgorithm="CRC32", **where)
    store = S3Store(
        f"s3://{moto_s3.bucket}",
        endpoint=moto_s3.endpoint,
        region="us-east-1",
        access_key=moto_s3.access_key,
        secret_key=moto_s3.secret_key,
    )
    try:
        assert store.sums(await store.stat("with.bin")).sha256 == hashlib.sha256(b"hello").hexdigest()
        assert store.sums(await store.stat("crc.bin")) == Sums("", zlib.crc32(b"hello"))
    finally:
        await store.close()


def an(etag: str, size: int = 1000) -> StoredObject:
    return StoredObject("a/b.bin", size, etag, 0, "")


async def test_the_longest_beginning_is_remembered_of_each_version(wire: Wire) -> None:
    sums = RedisSums(wire, 60)
    one, other = an('"1"'), an('"2"')
    assert await sums.recall([one, other]) == [Summed(), Summed()]
    for length in (10, 1000, 500):
        sums.remember(one, Summed(length, 4_000_000_000 + length))
        await sums.drain()
    sums.remember(other, Summed(7, 8))
    await sums.drain()
    assert await RedisSums(wire, 60).recall([other, one]) == [Summed(7, 8), Summed(1000, 4_000_001_000)]
    assert await sums.recall([an('"1"', 999)]) == [Summed()], "longer than the object is nothing to go by"
    keys = await wire.execute("KEYS", "gw:crc32:*")
    assert len(keys) == 2
    assert 0 < int(await wire.execute("TTL", keys[0])) <= 60


async def test_without_redis_nothing_is_remembered_and_nothing_fails() -> None:
    wire = Wire(connect("redis://127.0.0.1:1/0"))
    try:
        sums = RedisSums(wire, 60)
        sums.remember(an('"1"'), Summed(7, 8))
        await sums.drain()
        assert await sums.recall([an('"1"')]) == [Summed()]
    finally:
        await wire.close()
