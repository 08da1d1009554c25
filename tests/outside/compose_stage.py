"""docker-compose.yml without Docker: every service's own command as a process, all in one private network.

Names, addresses and ports are the file's own (a network namespace and a hosts file); the paths of volumes are folders
of ours instead. What an image adds to its command is in ENTRYPOINTS and, for the gateway's, read from the Dockerfile.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"
PROGRAMS = ("curl", "ip", "nginx", "nsenter", "rclone", "redis-cli", "redis-server", "setpriv", "unshare", "wget")
BUYER = "203.0.113.7"
PATIENCE = 30.0
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin:/sbin"
GEOIPUPDATE = os.environ.get("GATEWAY_TEST_GEOIPUPDATE") or shutil.which("geoipupdate", path=PATH)
ENTRYPOINTS = {"nginx": [], "redis": [], "rclone/rclone": ["rclone"], "maxmindinc/geoipupdate": [GEOIPUPDATE]}
_VARIABLE = re.compile(r"\$\$|\$\{(\w+)(?:(:-|:\?)([^}]*))?\}")


def compose(environ: dict[str, str]) -> dict[str, Any]:
    """The file's content with its variables filled in, as Compose does it."""

    def filled(found: re.Match[str]) -> str:
        name, how, text = found.groups()
        if name is None:
            return "$"
        if environ.get(name):
            return environ[name]
        assert how != ":?", f"{name} {text}"
        return text or ""

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: walk(each) for key, each in value.items()}
        if isinstance(value, list):
            return [walk(each) for each in value]
        return _VARIABLE.sub(filled, value) if isinstance(value, str) else value

    return walk(YAML(typ="safe").load(COMPOSE))


def dockerfile(path: str) -> tuple[list[str], dict[str, str]]:
    """ENTRYPOINT and CMD, and ENV, of an image of ours."""
    lines = [line.partition(" ")[::2] for line in (ROOT / path).read_text().splitlines()]
    last = dict(lines)
    variables = dict(pair.split("=", 1) for name, text in lines if name == "ENV" for pair in text.split())
    return [*json.loads(last["ENTRYPOINT"]), *json.loads(last["CMD"])], variables


@dataclass
class Stage:
    """The services of one project. `folder` holds what Docker would: volumes, logs, and copies of what is mounted."""

    folder: Path
    environ: dict[str, str]
    extra: dict[str, dict[str, str]] = field(default_factory=dict)  # by service, what the file does not set
    services: dict[str, Any] = field(init=False)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.services = compose(self.environ)["services"]
        self._room = subprocess.Popen(["unshare", "--net", "sleep", "600"])
        until = time.monotonic() + PATIENCE
        outside = Path("/proc/self/ns/net").readlink()
        while Path(f"/proc/{self._room.pid}/ns/net").readlink() == outside:
            assert self._room.poll() is None, "no private network can be made here"
            assert time.monotonic() < until
            time.sleep(0.01)
        self._furnish()

    def _furnish(self) -> None:
        """Each service's address on the loopback device, as the file or else we choose it, and their names."""
        addresses = {}
        for number, (name, service) in enumerate(self.services.items(), 11):
            networks = service["networks"]
            fixed = [each["ipv4_address"] for each in networks.values() if each] if isinstance(networks, dict) else []
            addresses[name] = fixed[0] if fixed else f"10.213.58.{number}"
        (self.folder / "hosts").write_text(
            "127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for name, address in addresses.items())
        )
        lines = ["ip link set lo up"]
        lines += [f"ip address add {address}/32 dev lo" for address in (BUYER, *addresses.values())]
        # On one device the kernel would let a connection begin at the address it leads to.
        lines += [f"ip route replace local {addresses['gateway']} dev lo table local src {addresses['nginx']}"]
        for key, value in self.services["nginx"]["sysctls"].items():
            lines.append(f"echo {value} >/proc/sys/{key.replace('.', '/')}")
        subprocess.run([*self._inside(), "sh", "-ec", "\n".join(lines)], check=True, env={"PATH": PATH})

    def _inside(self) -> list[str]:
        enter = ["nsenter", f"--net=/proc/{self._room.pid}/ns/net", "unshare", "--mount"]
        return [
            *enter,
            "sh",
            "-ec",
            f'mount --bind {self.folder}/hosts /etc/hosts; exec setpriv --pdeathsig KILL -- "$@"',
            "sh",
        ]

    def host_path(self, source: str) -> Path:
        """What stands at a volume's left side: a folder for a named one, ours in place of the checkout's."""
        return self.folder / ("volumes" if "/" not in source else "checkout") / source

    def _mapped(self, name: str, text: str) -> str:
        """Text of this service with the paths of its volumes where they are here."""
        for volume in self.services[name].get("volumes", []):
            source, target = volume.split(":")[:2]
            text = re.sub(rf"{re.escape(target)}(?![\w.-])", str(self.host_path(source)), text)
        return text

    def environment(self, name: str) -> dict[str, str]:
        service = self.services[name]
        given = dockerfile(service["build"]["dockerfile"])[1] if "build" in service else {}
        for key, value in service.get("environment", {}).items():
            if value is not None:
                given[key] = str(value)
            elif key in self.environ:
                given[key] = self.environ[key]
        mapped = {key: self._mapped(name, value) for key, value in given.items()} | self.extra.get(name, {})
        return {**mapped, "PATH": PATH, "PYTHONPATH": str(ROOT), "HOME": str(self.folder)}

    def working_dir(self, name: str) -> Path:
        """Where the container would stand, if that is a volume or the parent of one; else nowhere special."""
        if "build" in self.services[name]:
            return self.host_path("./config")  # WORKDIR /etc/gateway, where config/gateway.yaml and rules/ are mounted
        given = self.services[name].get("working_dir")
        return Path(self._mapped(name, given)) if given else self.folder

    def run(self, *command: object, service: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A command in the private network; with `service` in its environment, as `docker compose exec` would."""
        environment = {"PATH": PATH} if service is None else self.environment(service)
        cwd = self.folder if service is None else self.working_dir(service)
        argv = [*self._inside(), *map(str, command)]
        done = subprocess.run(argv, env=environment, cwd=cwd, capture_output=True, text=True, timeout=40, check=False)
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done

    def up(self, name: str) -> None:
        """Start a service and what it depends on, each until it is healthy."""
        if name in self.processes:
            return
        profiles = self.environ.get("COMPOSE_PROFILES", "").split(",")
        for other in self.services[name].get("depends_on", {}):
            wanted = self.services[other].get("profiles", profiles)
            if set(wanted) & set(profiles):
                self.up(other)
        service = self.services[name]
        if "build" in service:
            argv = dockerfile(service["build"]["dockerfile"])[0]
        else:
            argv = [*ENTRYPOINTS[service["image"].partition(":")[0]], *service.get("command", [])]
        words = [self._mapped(name, word) for word in argv]
        self.start(name, *words, environment=self.environment(name), cwd=self.working_dir(name))
        self._wait_healthy(name)

    def start(
        self, name: str, *command: object, environment: dict[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        """A process in the private network, whose output goes to its log."""
        argv = [*self._inside(), *map(str, command)]
        with self.log_file(name).open("ab") as log:
            self.processes[name] = subprocess.Popen(
                argv, env=environment, cwd=cwd, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def _wait_healthy(self, name: str) -> None:
        kind, *test = self.services[name]["healthcheck"]["test"]
        command = ["sh", "-c", self._mapped(name, test[0])] if kind == "CMD-SHELL" else test
        until = time.monotonic() + PATIENCE
        while (done := self.run(*command, service=name, check=False)).returncode:
            assert self.processes[name].poll() in (None, 0), f"{name} has ended: {self.log(name)}"
            assert time.monotonic() < until, f"{name} is not healthy: {done.stdout}{done.stderr}{self.log(name)}"
            time.sleep(0.05)

    def log_file(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def log(self, name: str) -> str:
        return self.log_file(name).read_text(errors="replace")

    def ended(self, name: str) -> int:
        """The exit status of a service that ends by itself."""
        return self.processes[name].wait(PATIENCE)

    def down(self, name: str, by: signal.Signals = signal.SIGTERM) -> None:
        process = self.processes.pop(name)
        process.send_signal(by)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def close(self) -> None:
        for name in reversed(list(self.processes)):
            self.down(name)
        self._room.kill()
        self._room.wait()
