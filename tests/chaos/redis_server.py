"""A real redis-server on loopback that keeps its port and its folder through kills, stops and pauses.

Every call blocks: from a loop, go through `asyncio.to_thread`. Only the process started here is ever signalled.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, RedisError
from redis.retry import Retry

from gateway.backends.embedded_redis import find_server

Persistence = Literal["aof", "rdb", "none"]
_PERSISTENCE: dict[Persistence, list[str]] = {
    "aof": ["--appendonly", "yes", "--appendfsync", "everysec", "--save", ""],
    "rdb": ["--appendonly", "no", "--save", "3600 1 300 100 60 10000"],
    "none": ["--appendonly", "no", "--save", ""],
}
_PAUSE = 0.01
# The server takes the shell's place, so that its pid is the one we signal; the half that waits for the end of the pipe,
# which comes even if we are killed, takes the whole group with it.
_DIE_WITH_PARENT = 'exec 3<&0; { read _ <&3; kill -KILL 0; } & exec "$@" </dev/null 3<&-'


class RedisServer:
    """`options`: arguments of redis-server, `["--maxmemory", "8mb"]`; a change of them counts from the next start."""

    def __init__(self, folder: Path, *, persistence: Persistence = "aof", options: Sequence[str] = ()) -> None:
        self.folder = folder
        self.port = free_port()
        self.options = [*_PERSISTENCE[persistence], *options]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int | None:
        """None while it does not run."""
        return None if self._process is None else self._process.pid

    def start(self, patience: float = 10.0, *, loaded: bool = True) -> None:
        """Start it and wait until it answers; where not `loaded`, LOADING is an answer too. Raises TimeoutError."""
        assert self._process is None, "it runs already"
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", _DIE_WITH_PARENT, "sh", *self._command()],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            until(lambda: self._answers(loaded), patience, f"redis-server on port {self.port} does not answer")
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """SIGKILL, and wait."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM: its data are on disk then, as far as its persistence goes."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """SIGSTOP: the kernel goes on accepting for it, and nobody answers."""
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._running().send_signal(signal.SIGCONT)

    def client(self) -> Redis:
        """A new client that never repeats a command; the caller closes it."""
        return Redis(
            port=self.port,
            decode_responses=True,
            socket_timeout=5,
            socket_connect_timeout=2,
            retry=Retry(NoBackoff(), 0),
        )

    def cut_aof(self, share: float) -> None:
        """The last `share` (0 to 1) of a stopped server's newest incremental AOF was never written."""
        assert self._process is None, "stop it first"
        parts = (self.folder / "appendonlydir").glob("*.incr.aof")
        newest = max(parts, key=lambda path: int(path.name.split(".")[-3]))
        with newest.open("r+b") as file:
            file.truncate(int(newest.stat().st_size * (1 - share)))

    def _command(self) -> list[str]:
        address = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        return [_program(), *address, "--enable-debug-command", "local", *self.options]

    def _answers(self, loaded: bool) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"redis-server ended at once: {self.folder / 'redis.log'} says why")
        with suppress(RedisError, OSError), self.client() as client:
            try:
                return bool(client.ping())
            except BusyLoadingError:
                return not loaded
        return False

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "it does not run"
        return self._process

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)  # a paused one could not even hear a SIGTERM
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
        finally:
            if process.stdin is not None:
                process.stdin.close()


def free_port() -> int:
    """A port that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(true: Callable[[], bool], patience: float, otherwise: str) -> None:
    """Raises TimeoutError where it does not become true within `patience` seconds."""
    deadline = time.monotonic() + patience
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(otherwise)
        time.sleep(_PAUSE)


def _program() -> str:
    # Debian's, which shops run; the bundled Valkey where that is not installed.
    return shutil.which("redis-server") or find_server()
