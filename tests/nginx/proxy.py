"""The real nginx with the files of config/nginx, of which only what is marked CHANGE is changed, and where it logs."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[2]
PROGRAM = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
ABSENT = "nginx is not on this machine (Debian: nginx-light)"
SECRET = "0123456789abcdef-for-tests"
REDIRECT = "/_gateway/"
PATIENCE = 10.0
_KINDS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


class Nginx:
    """One that listens on a free port of 127.0.0.1. `way`: x-accel or auth-request. Its logs are in `folder`.

    `files`: the folder that it sends from; None: a bucket. `changes` are made to the main file, each to be found once.
    """

    def __init__(
        self, folder: Path, way: str, gateway: str, *, files: Path | None, changes: dict[str, str] | None = None
    ) -> None:
        assert PROGRAM is not None
        folder.mkdir(parents=True, exist_ok=True)
        self.port = _free_port()
        self.base = f"http://127.0.0.1:{self.port}"
        self.access_log, self.error_log = folder / "access.log", folder / "error.log"
        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        copied = folder / "gateway"
        shutil.copytree(ROOT / "config" / "nginx", copied)
        paths = " ".join(f"{kind}_temp_path {self.temporary}/{kind};" for kind in _KINDS)
        main = copied / f"{way}.conf"
        text = main.read_text("utf-8")
        # One process, so that it can read what root has made and ends with its first signal.
        wanted = {
            "worker_processes auto;": "worker_processes 1; daemon off; master_process off;",
            "pid /tmp/nginx.pid;": f"pid {folder}/pid;",
            "error_log stderr warn;": f"error_log {folder}/start.log warn;",
            "access_log /dev/stdout masked;": f"access_log {self.access_log} masked; {paths}",
            "error_log /dev/null;": f"error_log {self.error_log} emerg;",
            "server 127.0.0.1:8080;": f"server {urlsplit(gateway).netloc};",
            "listen 80;": f"listen 127.0.0.1:{self.port};",
            "set $folder /srv/files;": f'set $folder "{files or folder}";',
            "set $gateway_secret CHANGE-ME;": f"set $gateway_secret {SECRET};",
        }
        if way == "auth-request" and files is None:
            wanted |= {
                "            include from-folder.conf;": "",
                "# add_header Accept-Ranges": "add_header Accept-Ranges",
            }
        for old, new in (wanted | (changes or {})).items():
            assert text.count(old) == 1, f"{main.name} has not one {old}"
            text = text.replace(old, new)
        main.write_text(text, "utf-8")
        command = [PROGRAM, "-e", str(folder / "start.log"), "-p", str(folder), "-c", str(main)]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        self._wait(folder / "start.log")

    def _wait(self, log: Path) -> None:
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            assert self.process.poll() is None, log.read_text(errors="replace")
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
            except OSError:
                time.sleep(0.01)
            else:
                return
        raise AssertionError("nginx does not listen")

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(PATIENCE)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
