"""What every test may ask for: a real Redis of its own, never a fake one."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator

import pytest
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
def redis_db(redis_url: str) -> str:
    """The same server's address, with nothing in its database."""
    with Redis.from_url(redis_url) as client:
        client.flushdb()
    return redis_url


@pytest.fixture
async def wire(redis_db: str) -> AsyncIterator[Wire]:
    """A connection to the emptied server."""
    opened = Wire(connect(redis_db))
    yield opened
    await opened.close()
