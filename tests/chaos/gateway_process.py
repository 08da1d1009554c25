"""`gateway serve` in processes of its own: a supervisor and its workers, with a log and ports that outlive restarts."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from redis_server import free_port

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0
SECRET = "a secret of a shop, for chaos only, 40 long"
MANAGEMENT = "management-token-for-chaos"
KEY_ID = "2026-11"
ISSUER = "shop.example.com"
LEASE = 2


class GatewayProcess:
    """`settings`: top-level settings as YAML text, over the defaults; `command` stands before the interpreter."""

    def __init__(
        self,
        folder: Path,
        *,
        redis: str,
        origin: str,
        workers: int,
        shards: int = 1,
        settings: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        command: Sequence[str] = (),
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.log_file = folder / "gateway.log"
        self.config = folder / "gateway.yaml"
        self.workers = workers
        self.port, self.management = free_port(), free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})}
        self._command = command
        self.settings = {
            "listen": f"127.0.0.1:{self.port}",
            "management": f"{{listen: 127.0.0.1:{self.management}, token: {MANAGEMENT}}}",
            "origin": origin,
            "redis": f'"{redis}"',
            "shards": str(shards),
            "keys": f'[{{kid: "{KEY_ID}", alg: HS256, secret: "{SECRET}", use: sign}}]',
            "issuer": ISSUER,
            "trusted_proxies": "[127.0.0.0/8]",
            "counting": f"{{repeat_window: 2s, resume_window: 60s, lease: {LEASE}s}}",
            "journal": f"{{path: {folder / 'journal'}, keep: 24h}}",
            "drain": "5s",
            **(settings or {}),
        }
        self.write_settings()

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def write_settings(self) -> None:
        """Write `settings` as they are now; the next start reads them."""
        self.config.write_text("".join(f"{name}: {text}\n" for name, text in self.settings.items()), encoding="utf-8")

    async def start(self, patience: float = PATIENCE) -> None:
        """Start it and wait until every worker is ready. Raises AssertionError with the log."""
        process = self.process = self._spawn()
        until = time.monotonic() + patience
        while process.poll() is None and time.monotonic() < until:
            if len(await asyncio.to_thread(self.pids)) == self.workers:
                return
            await asyncio.sleep(0.1)
        tail = self.log()[-4000:]
        await self.kill()
        raise AssertionError(f"the gateway did not start:\n{tail}")

    async def terminate(self, patience: float = PATIENCE) -> int:
        """End it as an init system would; its exit status, -9 where it had to be killed."""
        return await self._end(lambda process: process.terminate(), patience)

    async def kill(self) -> None:
        """SIGKILL to the supervisor; its workers follow it."""
        await self._end(lambda process: process.kill(), PATIENCE)

    async def restart(self) -> None:
        await self.terminate()
        await self.start()

    def ask(self, path: str) -> tuple[int, str]:
        """An answer of the management listener; status 0 where there is none."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.management, timeout=5)) as connection:
            try:
                connection.request("GET", path, headers={"Authorization": f"Bearer {MANAGEMENT}"})
                answer = connection.getresponse()
                return answer.status, answer.read().decode()
            except (OSError, http.client.HTTPException):
                return 0, ""

    def worker_views(self) -> list[dict[str, object]]:
        """What the supervisor says of each worker."""
        status, text = self.ask("/api/workers")
        views: list[dict[str, object]] = json.loads(text)["workers"] if status == 200 else []
        return views

    def pids(self) -> list[int]:
        """The processes of the workers that are ready."""
        return [int(str(view["pid"])) for view in self.worker_views() if view["ready"]]

    def processes(self) -> list[int]:
        """The processes of all workers that run, ready or not."""
        return [int(str(view["pid"])) for view in self.worker_views() if view["pid"]]

    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8", errors="replace") if self.log_file.exists() else ""

    def _spawn(self) -> subprocess.Popen[bytes]:
        arguments = ["-m", "gateway", "serve", "--config", str(self.config), "--workers", str(self.workers)]
        # It must not outlive a run that was killed; its workers follow it.
        follows = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        command = [*follows, *self._command, sys.executable, *arguments]
        with self.log_file.open("ab") as log:
            # `-m` looks into the current folder first, and another tree may lie there.
            return subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment
            )

    async def _end(self, how: Callable[[subprocess.Popen[bytes]], None], patience: float) -> int:
        process, self.process = self.process, None
        if process is None:
            return 0
        how(process)
        try:
            return await asyncio.to_thread(process.wait, patience)
        except subprocess.TimeoutExpired:
            process.kill()
            return await asyncio.to_thread(process.wait)
