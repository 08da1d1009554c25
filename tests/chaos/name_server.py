"""A real name server on loopback for one name, and a command that gives a process tree that server and no other.

Only the processes started here are signalled, and the machine's own resolv.conf is never written to: whoever asks sees
another one in a mount namespace of their own.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ADDRESS = "127.0.0.153"
"""resolv.conf(5) names no port, so it is port 53 of an address of its own."""
_UP = 0.2
_IN_ITS_OWN = 'mount --bind "$1" /etc/resolv.conf && shift && exec "$@"'


class NameServer:
    """dnsmasq, which knows `name` and what is under `.example` alone; for the rest of the world it has no answer."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir()
        self._hosts, self._resolv = folder / "hosts", folder / "resolv.conf"
        self._resolv.write_text(f"nameserver {ADDRESS}\n")
        self._name = name
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def command(self) -> tuple[str, ...]:
        """In front of a command that is to ask here."""
        return ("unshare", "--mount", "/bin/sh", "-c", _IN_ITS_OWN, "sh", str(self._resolv))

    def says(self, address: str) -> None:
        """The name has this address."""
        self._answer(f"{address} {self._name}\n")

    def knows_nothing(self) -> None:
        """There is no such name (NXDOMAIN)."""
        self._answer("")

    def is_silent(self) -> None:
        """It takes questions and answers none."""
        self._answer("")
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def is_gone(self) -> None:
        """Nobody is there to be asked."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()
            self._process = None

    def _answer(self, hosts: str) -> None:
        self._hosts.write_text(hosts)
        self.is_gone()
        server = shutil.which("dnsmasq", path="/usr/sbin:/usr/bin")
        assert server is not None, "dnsmasq is not installed (Debian: dnsmasq-base)"
        options = f"--keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts --addn-hosts={self._hosts}"
        options += f" --listen-address={ADDRESS} --bind-interfaces --local=/example/ --user=root --pid-file="
        self._process = subprocess.Popen([server, *options.split()], stderr=subprocess.DEVNULL)
        time.sleep(_UP)
        assert self._process.poll() is None, f"dnsmasq does not run: is port 53 of {ADDRESS} taken?"


@contextmanager
def name_server(folder: Path, name: str) -> Iterator[NameServer]:
    """One that is ended at the end."""
    server = NameServer(folder, name)
    try:
        yield server
    finally:
        server.is_gone()
