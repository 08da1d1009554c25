"""The provider, started once for each test process, and a browser for each test."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from accounts.people import Browser, Provider

pytest.importorskip("canaille")


@pytest.fixture(scope="session")
def provider() -> Iterator[Provider]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-W", "ignore", Path(__file__).with_name("canaille_server.py"), str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        yield Provider(json.loads(process.stdout.readline())["issuer"])
        process.terminate()


@pytest.fixture
async def browser(provider: Provider) -> AsyncIterator[Browser]:
    opened = Browser(provider.issuer)
    async with opened.client:
        yield opened
