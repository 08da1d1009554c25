"""A private PostgreSQL server on a free port of loopback, which can be killed, started again, and fall silent."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

USER, PASSWORD = "gateway", "made-up:word"
START_SECONDS = 20.0


def programs() -> Path | None:
    """The folder with the newest server's programs, if one is installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    if found:
        return found[-1].parent
    elsewhere = shutil.which("initdb")
    return None if elsewhere is None else Path(elsewhere).resolve().parent


class PostgresqlServer:
    """One server in a folder of its own; it goes with us. It refuses root, so then `postgres` runs it."""

    def __init__(self, folder: Path) -> None:
        self._programs = folder
        self._home = Path(tempfile.mkdtemp(prefix="gateway-postgresql-"))
        self._as: list[str] = []
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(self._home, user.pw_uid, user.pw_gid)
            self._as = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0
        word = self._home / "word"
        word.write_text(PASSWORD)
        word.chmod(0o644)
        subprocess.run(
            [*self._as, folder / "initdb", "-D", self._home / "data", "--username", USER, "--pwfile", word,
             "--auth", "password", "--encoding", "UTF8", "--locale", "C", "--no-sync"],
            cwd=self._home, check=True, capture_output=True,
        )  # fmt: skip

    def url(self, database: str = "postgres", port: int | None = None, password: str = PASSWORD) -> str:
        """The address of a database, as it stands in the settings."""
        return f"postgresql://{USER}:{password.replace(':', '%3A')}@127.0.0.1:{port or self.port}/{database}"

    def start(self) -> None:
        """Start it, and wait until it answers. It goes with the thread that calls this."""
        options = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
            "shared_buffers": "16MB",
            "max_connections": "60",
        }
        settings = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        server = [self._programs / "postgres", "-D", self._home / "data", *settings]
        with (self._home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*(self._as or ["setpriv"]), "--pdeathsig=INT", *server],
                cwd=self._home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        until = time.monotonic() + START_SECONDS
        while not self._answers():
            assert self._process.poll() is None, (self._home / "log").read_text()[-2000:]
            assert time.monotonic() < until, "PostgreSQL does not come up"
            time.sleep(0.02)

    def kill(self) -> None:
        """End it at once, as a crash would: what is on its way is lost, what was committed is not."""
        assert self._process is not None
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait(20)

    def close(self) -> None:
        """End it and forget everything."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
        shutil.rmtree(self._home, ignore_errors=True)

    async def new_database(self) -> str:
        """The name of a database with nothing in it."""
        self._databases += 1
        name = f"book_{self._databases}"
        await self.run(f"CREATE DATABASE {name}")
        return name

    async def run(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """What a statement gives, past the order book."""
        import asyncpg  # noqa: PLC0415  where there is a server there is a driver

        connection = await asyncpg.connect(self.url(database))
        try:
            return [tuple(row) for row in await connection.fetch(statement)]
        finally:
            await connection.close()

    def _answers(self) -> bool:
        command = [self._programs / "pg_isready", "-h", "127.0.0.1", "-p", str(self.port), "-t", "1"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


class Hose:
    """A port that leads to another one, and can fall silent: connections stay, nothing comes through any more."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._open = asyncio.Event()
        self._open.set()
        self._pumps: set[asyncio.Task[None]] = set()
        self.port = 0

    async def __aenter__(self) -> Hose:
        self._server = await asyncio.start_server(self._met, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for pump in self._pumps:
            pump.cancel()
        if self._pumps:
            await asyncio.wait(self._pumps)

    def silence(self) -> None:
        self._open.clear()

    def speak(self) -> None:
        self._open.set()

    async def _met(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pumps.add(task)
        task.add_done_callback(self._pumps.discard)
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._to)
        with suppress(OSError, asyncio.CancelledError):
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(reader, there_writer))
                both.create_task(self._pump(there_reader, writer))
        writer.transport.abort()
        there_writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                await self._open.wait()
                writer.write(data)
                await writer.drain()
        writer.close()
