"""All that is started for a run, in a scratch folder, each on its core; what was started is ended, by its pid."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from clients import ISSUER, KID, SECRET, fetch, mint
from machine import NotMeasured, cores, cpu_seconds, free_port, is_taken, pinned, tree

PEERS = Path(__file__).parents[2] / ".." / "shared" / "peers"
"""The peers' configurations; they are not part of the project."""
ORIGIN, PROXY, HAPROXY, LUA, REDIS = 9000, 9001, 9002, 9003, 6390
"""Ports written in the peers' files."""
SMALL = 4096

_GATEWAY = """
listen: 127.0.0.1:{port}
management: {{listen: "127.0.0.1:{management}"}}
origin: {origin}
redis: {redis}
keys: [{{kid: {kid}, alg: HS256, secret: {secret}, use: sign}}]
issuer: {issuer}
drain: 1s
"""
_TLS_ORIGIN = """
worker_processes 1; pid @DIR@/tls.pid; error_log @DIR@/tls.err; daemon off;
events { worker_connections 20000; }
http { sendfile on; access_log off; keepalive_requests 100000000; ssl_protocols TLSv1.3;
server { listen 127.0.0.1:@TLS@ ssl; ssl_certificate @DIR@/tls.crt; ssl_certificate_key @DIR@/tls.key;
  root @DIR@/www; default_type application/octet-stream; } }
"""


@dataclass(frozen=True)
class Server:
    """One that answers: its name in the table, its port, its first process, and the paths of the files there."""

    name: str
    port: int
    pid: int
    path: Callable[[str], str]

    def cpu(self) -> float:
        return cpu_seconds(tree(self.pid))


class Stage:
    """Starts servers once each and keeps them until `close`. Raises NotMeasured for what is not there."""

    def __init__(self, folder: Path, *, big_bytes: int) -> None:
        self.folder = folder
        self.big_bytes = big_bytes
        self._ends = ExitStack()
        self._ready: dict[str, Server | NotMeasured] = {}
        folder.chmod(0o755)  # nginx's worker is another user when this runs as root
        bucket = folder / "www" / "bucket"
        bucket.mkdir(parents=True)
        small = os.urandom(SMALL)
        (folder / "www" / "small.bin").write_bytes(small)
        (bucket / "small.bin").write_bytes(small)
        block = os.urandom(1 << 20)
        with (bucket / "big.bin").open("wb") as big:
            for _ in range(big_bytes >> 20):
                big.write(block)

    def close(self) -> None:
        self._ends.close()

    def origin(self) -> Server:
        """The store over plain HTTP, on the client's core; a bucket in path style."""
        return self._once("origin", lambda: self._nginx("origin.conf", ORIGIN, "nginx", on=cores()[1]))

    def local_peer(self) -> Server:
        """The same configuration on the server's core: the limit for a local file."""
        moved = {f":{ORIGIN}": f":{(port := free_port())}"}
        return self._once("sendfile", lambda: self._nginx("origin.conf", port, "nginx", change=moved, name="local"))

    def proxy(self) -> Server:
        self.origin()
        return self._once("proxy", lambda: self._nginx("proxy.conf", PROXY, "nginx"))

    def lua(self) -> Server:
        self.origin()
        self.redis()
        return self._once("lua", lambda: self._nginx("lua.conf", LUA, "nginx+Lua", query=True))

    def haproxy(self) -> Server:
        def start() -> Server:
            program = _program("haproxy", "haproxy")
            config = self._config("haproxy.cfg")
            return self._serve([program, "-db", "-f", str(config)], "HAProxy", HAPROXY, _bucket_path)

        self.origin()
        return self._once("haproxy", start)

    def tls_origin(self) -> Server:
        def start() -> Server:
            self._make_certificate()
            port = free_port()
            text = _TLS_ORIGIN.replace("@TLS@", str(port))
            return self._nginx("tls-origin.conf", port, "nginx", text=text, on=cores()[1], wait=False)

        return self._once("tls-origin", start)

    def tls_proxy(self) -> Server:
        """proxy.conf, its origin behind TLS 1.3 as the gateway's is."""
        origin = self.tls_origin()
        changes = {
            f":{ORIGIN}": f":{origin.port}",
            f":{PROXY}": f":{(port := free_port())}",
            "proxy_pass http:": "proxy_ssl_protocols TLSv1.3; proxy_pass https:",
            "proxy.pid": "tls-proxy.pid",
            "proxy.err": "tls-proxy.err",
        }
        return self._once("tls-proxy", lambda: self._nginx("proxy.conf", port, "nginx", change=changes, name="tls"))

    def redis(self) -> Server:
        """One Redis for the gateway and the peer, without persistence, on the client's core."""

        def start() -> Server:
            program = shutil.which("redis-server") or shutil.which("valkey-server")
            if program is None:
                raise NotMeasured("no program redis-server (Debian: redis-server)")
            command = [program, "--port", str(REDIS), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
            return self._serve([*command, "--dir", str(self.folder)], "Redis", REDIS, None, on=cores()[1])

        return self._once("redis", start)

    def gateway(self, kind: str) -> Server:
        """One worker of this project on `file`, `s3` (plain HTTP) or `tls` (HTTPS)."""
        return self._once(f"gateway-{kind}", lambda: self._gateway(kind))

    def gateway_command(self, kind: str) -> tuple[list[str], dict[str, str], int]:
        """How to start a gateway on a port of its own: arguments, environment, port."""
        redis = f"redis://127.0.0.1:{self.redis().port}/0"
        port, management = free_port(), free_port()
        environ = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
        if kind == "file":
            origin = f'{{url: "file://{self.folder}/www/bucket"}}'
        else:
            store = self.origin() if kind == "s3" else self.tls_origin()
            scheme, host = ("http", "127.0.0.1") if kind == "s3" else ("https", "localhost")
            origin = (
                f'{{url: "s3://bucket", endpoint: "{scheme}://{host}:{store.port}", region: us-east-1, '
                "access_key: bench, secret_key: bench}"
            )
            environ["SSL_CERT_FILE"] = str(self.folder / "tls.crt")
        config = self.folder / f"gateway-{kind}-{port}.yaml"
        config.write_text(
            _GATEWAY.format(
                port=port, management=management, origin=origin, redis=redis, kid=KID, secret=SECRET, issuer=ISSUER
            )
        )
        return [sys.executable, "-m", "gateway", "serve", "--config", str(config), "--workers", "1"], environ, port

    def spawn(self, command: list[str], environ: dict[str, str] | None, *on: int) -> subprocess.Popen[bytes]:
        """Start a program on these cores; the caller ends it."""
        with (self.folder / "programs.log").open("ab") as log, pinned(*on):
            return subprocess.Popen(
                command, cwd=self.folder, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def _gateway(self, kind: str) -> Server:
        command, environ, port = self.gateway_command(kind)
        return self._serve(command, "gateway", port, lambda name: f"/d/{mint(name)}", environ=environ)

    def _once(self, key: str, start: Callable[[], Server]) -> Server:
        if key not in self._ready:
            try:
                self._ready[key] = start()
            except NotMeasured as reason:
                self._ready[key] = reason
        known = self._ready[key]
        if isinstance(known, NotMeasured):
            raise known
        return known

    def _nginx(
        self,
        config: str,
        port: int,
        title: str,
        *,
        text: str | None = None,
        change: dict[str, str] | None = None,
        name: str = "",
        query: bool = False,
        on: int | None = None,
        wait: bool = True,
    ) -> Server:
        program = _program("nginx", "nginx-extras")
        path = self._config(config, text, {"daemon on": "daemon off", **(change or {})}, name)
        command = [program, "-e", str(self.folder / "nginx.err"), "-c", str(path)]
        paths = (lambda file: f"/?t={mint(file)}") if query else _bucket_path
        return self._serve(command, title, port, paths if wait else None, on=on)

    def _config(self, name: str, text: str | None = None, change: dict[str, str] | None = None, as_: str = "") -> Path:
        if text is None:
            if not PEERS.is_dir():
                raise NotMeasured("no folder with the peers' configurations")
            text = (PEERS / name).read_text()
        for old, new in (change or {}).items():
            text = text.replace(old, new)
        path = self.folder / f"{as_}{name}"
        path.write_text(text.replace("@DIR@", str(self.folder)))
        return path

    def _serve(
        self,
        command: list[str],
        title: str,
        port: int,
        path: Callable[[str], str] | None,
        *,
        environ: dict[str, str] | None = None,
        on: int | None = None,
    ) -> Server:
        process = self.spawn(command, environ, cores()[0] if on is None else on)
        self._ends.callback(end, process)
        until = time.monotonic() + 15
        while not (is_taken(port) if path is None else _answers_rightly(self.folder, port, path)):
            if process.poll() is not None or time.monotonic() > until:
                raise NotMeasured(f"{title} does not start here: {self._last_words()}")
            time.sleep(0.02)
        return Server(title, port, process.pid, path or _bucket_path)

    def _last_words(self) -> str:
        lines = (self.folder / "programs.log").read_text(errors="replace").splitlines()
        return (lines[-1] if lines else "it said nothing")[-110:].replace("|", "/").replace(str(self.folder), "…")

    def _make_certificate(self) -> None:
        program = _program("openssl", "openssl")
        command = [program, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
        names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        files = ["-keyout", str(self.folder / "tls.key"), "-out", str(self.folder / "tls.crt")]
        subprocess.run([*command, *names, *files], check=True, capture_output=True, timeout=30)


def end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM twice, since a gateway's first one waits for downloads; then SIGKILL."""
    for number, patience in ((signal.SIGTERM, 3), (signal.SIGTERM, 5), (signal.SIGKILL, 5)):
        if process.poll() is not None:
            return
        process.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience)


def _program(name: str, package: str) -> str:
    # Debian keeps servers where only root's PATH looks.
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        raise NotMeasured(f"no program {name} (Debian: {package})")
    return found


def _bucket_path(name: str) -> str:
    return f"/bucket/{name}"


def _answers_rightly(folder: Path, port: int, path: Callable[[str], str]) -> bool:
    """Whether the server gives the small file, byte for byte."""
    try:
        return fetch(port, path("small.bin")) == (folder / "www" / "small.bin").read_bytes()
    except OSError:
        return False
