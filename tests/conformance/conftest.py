"""The real stores that every row of the suite runs against: a folder, moto's S3, and one named by GATEWAY_TEST_S3_…"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

from gateway.backends.files import FolderStore
from gateway.backends.s3 import S3Store
from gateway.store_ports import ObjectStore


class Shelf(Protocol):
    """A store under test, and the shop's own hand on its objects."""

    name: str
    store: ObjectStore

    def put(self, key: str, data: bytes) -> None: ...

    def remove(self, key: str) -> None: ...


@dataclass
class FolderShelf:
    store: ObjectStore
    root: Path
    name: str = "folder"

    def put(self, key: str, data: bytes) -> None:
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        # As deployments do it: written beside, then moved into place.
        beside = path.with_name(f".{uuid.uuid4().hex}")
        beside.write_bytes(data)
        beside.replace(path)

    def remove(self, key: str) -> None:
        (self.root / key).unlink()


@dataclass
class BucketShelf:
    store: ObjectStore
    client: Any
    bucket: str
    prefix: str
    name: str

    def put(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=self.prefix + key, Body=data)

    def remove(self, key: str) -> None:
        self.client.delete_object(Bucket=self.bucket, Key=self.prefix + key)


@pytest.fixture(params=["folder", "moto", "s3"])
async def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Shelf]:
    if request.param == "folder":
        folder = FolderStore(tmp_path)
        yield FolderShelf(folder, tmp_path)
        await folder.close()
        return
    server = request.getfixturevalue("moto_s3" if request.param == "moto" else "given_s3")
    prefix = f"shop/{uuid.uuid4().hex}"
    store = S3Store(
        f"s3://{server.bucket}/{prefix}",
        endpoint=server.endpoint,
        access_key=server.access_key,
        secret_key=server.secret_key,
    )
    yield BucketShelf(store, server.client, server.bucket, f"{prefix}/", request.param)
    await store.close()
