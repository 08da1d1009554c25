"""The real stores that every row of the suite runs against: a folder, moto's S3, and one named by GATEWAY_TEST_S3_…"""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import botocore.session
import pytest
from botocore.config import Config

from gateway.backends.files import FolderStore
from gateway.backends.s3 import S3Store
from gateway.ports import ObjectStore


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


@dataclass(frozen=True)
class S3Server:
    endpoint: str
    access_key: str
    secret_key: str
    client: Any
    bucket: str


def s3_server(endpoint: str, access_key: str, secret_key: str) -> S3Server:
    client = botocore.session.Session().create_client(
        "s3",
        region_name="us-east-1",
        endpoint_url=endpoint,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
    )
    bucket = f"shop-{uuid.uuid4().hex[:12]}"
    client.create_bucket(Bucket=bucket)
    return S3Server(endpoint, access_key, secret_key, client, bucket)


@pytest.fixture(scope="session")
def moto_s3() -> Iterator[S3Server]:
    server_module = pytest.importorskip("moto.server")
    server = server_module.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    s3 = s3_server(f"http://{host}:{port}", "key", "secret")
    yield s3
    s3.client.close()
    server.stop()


@pytest.fixture(scope="session")
def given_s3() -> Iterator[S3Server]:
    endpoint = os.environ.get("GATEWAY_TEST_S3_ENDPOINT")
    if not endpoint:
        pytest.skip("GATEWAY_TEST_S3_ENDPOINT names no S3 server")
    s3 = s3_server(endpoint, os.environ["GATEWAY_TEST_S3_ACCESS_KEY"], os.environ["GATEWAY_TEST_S3_SECRET_KEY"])
    yield s3
    s3.client.close()


@pytest.fixture(params=["folder", "moto", "s3"])
async def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Shelf]:
    if request.param == "folder":
        folder = FolderStore(tmp_path)
        yield FolderShelf(folder, tmp_path)
        await folder.close()
        return
    server: S3Server = request.getfixturevalue("moto_s3" if request.param == "moto" else "given_s3")
    prefix = f"shop/{uuid.uuid4().hex}"
    store = S3Store(
        f"s3://{server.bucket}/{prefix}",
        endpoint=server.endpoint,
        access_key=server.access_key,
        secret_key=server.secret_key,
    )
    yield BucketShelf(store, server.client, server.bucket, f"{prefix}/", request.param)
    await store.close()
