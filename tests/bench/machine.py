"""What the machine says of processes: their cores, their CPU seconds, their memory in user space and in the kernel."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

_SKMEM = re.compile(r"skmem:\(r(\d+),rb\d+,t\d+,tb\d+,f(\d+),w(\d+),o(\d+),bl(\d+)")
_CORES = sorted(os.sched_getaffinity(0))


class NotMeasured(Exception):
    """Why a figure cannot be had here, in a few words for its row."""


def cores() -> tuple[int, int]:
    """The core of the server under test, and that of client, store and Redis. The same one where there is one."""
    return _CORES[0], _CORES[-1]


@contextmanager
def pinned(*on: int) -> Iterator[None]:
    """What is started meanwhile runs on these cores only, and so do its children."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, on)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def tree(pid: int) -> list[int]:
    """The process and all that descend from it."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            parents.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry.name))
    found = [pid]
    for member in found:
        found += parents.get(member, [])
    return found


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time, as utime + stime of /proc/PID/stat but in nanoseconds (clock_getcpuclockid(3))."""
    total = 0.0
    for pid in pids:
        try:
            total += time.clock_gettime((~pid << 3) | 2)
        except OSError:
            continue
    return total


def pss_kib(pids: Iterable[int]) -> int:
    """Proportional set size: memory in user space, shared pages divided among those who share them."""
    total = 0
    for pid in pids:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        total += int(re.findall(r"^Pss:\s+(\d+)", rollup, re.MULTILINE)[0])
    return total


def socket_kib(pids: Iterable[int]) -> float:
    """What the kernel holds in these processes' own TCP sockets: queues, their forward allocation and backlog."""
    if shutil.which("ss") is None:
        raise NotMeasured("no program ss (Debian: iproute2)")
    # nginx's and HAProxy's sockets are named by the worker, a gateway's dup is the same socket: each has one line.
    shown = subprocess.run(["ss", "-tmnpOH"], capture_output=True, text=True, check=True, timeout=30).stdout
    owners = {f"pid={pid}," for pid in pids}
    lines = [line for line in shown.splitlines() if any(owner in line for owner in owners)]
    return sum(sum(map(int, numbers)) for line in lines for numbers in _SKMEM.findall(line)) / 1024


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def is_taken(port: int) -> bool:
    """Whether a program listens there."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def description() -> str:
    """The machine in one line."""
    cpu = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    name = cpu[1] if cpu else os.uname().machine
    return f"{name}, {len(_CORES)} cores, Linux {os.uname().release}, load {os.getloadavg()[0]:.1f} at the start"
