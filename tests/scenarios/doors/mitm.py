"""mitmproxy's door: `gateway mitm` in the environment that has mitmproxy, in front of the bucket."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from scenarios.stage import PATIENCE, ROOT, Opened, Stage


@asynccontextmanager
async def opened(stage: Stage) -> AsyncIterator[Opened]:
    python = _python()
    if python is None:
        pytest.skip("mitmproxy is not here: run `make setup-mitm`, or name an environment in GATEWAY_TEST_MITM")
    async with _locked(stage.settings["origin"]["endpoint"]) as endpoint:
        config = stage.write(listen="127.0.0.1:0", origin={"endpoint": endpoint})
        log = stage.folder / "gateway-mitm.log"
        process = _start(python, config, log, stage.environment)
        try:
            yield Opened(await _listening(process, log), [log], [process.pid])
        finally:
            process.terminate()
            try:
                await asyncio.to_thread(process.wait, PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _python() -> Path | None:
    python = Path(os.environ.get("GATEWAY_TEST_MITM", ROOT / ".venv-mitm")) / "bin" / "python"
    return python if python.exists() else None


def _start(python: Path, config: Path, log: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    # It must not outlive a run that was killed.
    follows = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
    command = [*follows, python, "-m", "gateway", "mitm", "--config", config]
    with log.open("wb") as sink:
        return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env=environment)


def _said(log: Path) -> str:
    return log.read_text(errors="replace")


async def _listening(process: subprocess.Popen[bytes], log: Path) -> str:
    for _ in range(int(PATIENCE / 0.02)):
        if told := re.search(r"listening on (http://\S+)", _said(log)):
            return told[1]
        assert process.poll() is None, _said(log)
        await asyncio.sleep(0.02)
    raise AssertionError(f"mitmproxy did not start:\n{_said(log)}")


@asynccontextmanager
async def _locked(endpoint: str) -> AsyncIterator[str]:
    """The same store for those who sign. Anybody may read moto's buckets, and in front of such a one nothing starts."""
    where = urlsplit(endpoint)
    tasks: set[asyncio.Task[None]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (OSError, asyncio.IncompleteReadError):
            writer.close()
            return
        if b"X-Amz-Signature=" not in head and b"\r\nauthorization:" not in head.lower():
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            writer.close()
            return
        upstream_reader, upstream = await asyncio.open_connection(where.hostname, where.port)
        upstream.write(head)
        for one in (pump(reader, upstream), pump(upstream_reader, writer)):
            task = asyncio.create_task(one)
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
