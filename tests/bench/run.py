"""`make bench`: the gateway beside nginx, HAProxy and nginx + Lua, in one run on one machine. See docs/performance.md.

It listens on loopback only and ends only what it has started. A figure that cannot be had says why.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType

sys.path.insert(0, str(Path(__file__).parent))

from machine import cores, description, is_taken
from measures import FULL, QUICK, everything
from servers import HAPROXY, LUA, ORIGIN, PROXY, REDIS, Stage
from table import Row, markdown, write_between_markers

LIMIT, QUICK_LIMIT = 300, 100
"""Seconds after which a run is broken off."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare the gateway with its peers on this machine.")
    parser.add_argument("--quick", action="store_true", help="under a minute, and rough")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table between FILE's markers")
    arguments = parser.parse_args()
    if taken := [port for port in (ORIGIN, PROXY, HAPROXY, LUA, REDIS) if is_taken(port)]:
        print(f"port {taken[0]} is taken, and the peers need it: stop the program that listens there", file=sys.stderr)
        return 1
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
        signal.signal(number, _stop)
    signal.alarm(QUICK_LIMIT if arguments.quick else LIMIT)
    heading = f"{time.strftime('%Y-%m-%d')}, {'quick run, ' if arguments.quick else ''}{description()}"
    print(heading)
    rows, broken_off = _measured(quick=arguments.quick)
    table = markdown(rows)
    print(f"\n{table}")
    if broken_off:
        print(broken_off, file=sys.stderr)
        return 1
    if arguments.write:
        write_between_markers(arguments.write, f"{heading}\n\n{table}")
    return 0


def _measured(*, quick: bool) -> tuple[list[Row], str]:
    """The rows, and why there are not more of them where the run was broken off."""
    size = QUICK if quick else FULL
    os.sched_setaffinity(0, {cores()[1]})
    rows = []
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as folder:
        stage = Stage(Path(folder), big_bytes=size.big_bytes)
        try:
            for row in everything(stage, size):
                rows.append(row)
                print(f"{row.measure}: {row.ours} | {row.peer}", flush=True)
        except _Stopped as stop:
            return rows, f"broken off: {stop}"
        finally:
            signal.alarm(0)
            stage.close()
    return rows, ""


def _stop(number: int, _frame: FrameType | None) -> None:
    raise _Stopped("it took too long" if number == signal.SIGALRM else "told to stop")


class _Stopped(Exception):
    """The run ends here."""


if __name__ == "__main__":
    sys.exit(main())
