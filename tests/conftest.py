"""What every test may ask for: a real Redis of its own, never a fake one; S3 servers, moto's and one that is named."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from accounts.people import Browser, Provider
from botocore.config import Config
from redis import Redis

from gateway.backends.embedded_redis import EmbeddedRedis
from gateway.backends.redis_client import Wire, connect


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A private server per test process, or database N of GATEWAY_TEST_REDIS_URL for process N. It gets flushed."""
    given = os.environ.get("GATEWAY_TEST_REDIS_URL")
    if given is not None:
        number = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
        yield f"{given.partition('?')[0]}?db={number}"
    else:
        with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as url:
            yield url


@pytest.fixture
def redis_db(redis_url: str) -> Iterator[str]:
    """The same server's address, with nothing in its database, nor afterwards: others go on with it as it is."""
    with Redis.from_url(redis_url) as client:
        client.flushdb()
        yield redis_url
        client.flushdb()


@pytest.fixture
async def wire(redis_db: str) -> AsyncIterator[Wire]:
    """A connection to the emptied server."""
    opened = Wire(connect(redis_db))
    yield opened
    await opened.close()


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


@pytest.fixture(scope="session")
def provider() -> Iterator[Provider]:
    """An OpenID provider that this project did not write."""
    pytest.importorskip("canaille")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Path(__file__).with_name("accounts") / "canaille_server.py"
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", server, str(port)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        yield Provider(json.loads(process.stdout.readline())["issuer"])
        process.terminate()


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """Keeps its cookies."""
    opened = Browser()
    async with opened.client:
        yield opened
