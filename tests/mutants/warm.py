"""A Python with all imported that no mutant changes, which forks a pytest for each line of arguments (JSON).

It answers each line with the exit status. Whatever the tests leave running ends with them.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

_KNOWN = ("aiohttp.web", "botocore.session", "cryptography.hazmat.primitives.serialization", "geoip2.database")
_KNOWN += ("jinja2", "jwt", "prometheus_client", "pydantic", "pytest", "redis.asyncio")
_KNOWN += (
    "hypothesis.strategies",
    "pytest_aiohttp.plugin",
    "pytest_asyncio.plugin",
    "ruamel.yaml",
    "uuid_utils",
    "uvloop",
)
PATIENCE = 120.0
"""Seconds for one run of tests, whose parts have deadlines of their own."""


def main() -> None:
    output = sys.argv[1]
    _adopt()
    for name in _KNOWN:
        importlib.import_module(name)
    for line in sys.stdin:
        print(_run(json.loads(line), output), flush=True)


def _run(arguments: list[str], output: str) -> int:
    process = os.fork()
    if not process:
        os.setsid()
        silence, told = os.open(os.devnull, os.O_RDONLY), os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for own, given in ((0, silence), (1, told), (2, told)):
            os.dup2(given, own)
        os._exit(_pytest(arguments))
    until = time.monotonic() + PATIENCE
    ended = status = 0
    while not ended and time.monotonic() < until:
        ended, status = os.waitpid(process, os.WNOHANG)
        time.sleep(0.01)
    with suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)
    if not ended:
        _, status = os.waitpid(process, 0)
    _end_orphans()
    return os.waitstatus_to_exitcode(status)


def _end_orphans() -> None:
    """Ours since `_adopt`: daemons that the tests have started, wherever they put themselves."""
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    while children.exists() and (orphans := children.read_text().split()):
        for orphan in map(int, orphans):
            with suppress(ProcessLookupError):
                os.kill(orphan, signal.SIGKILL)
            os.waitpid(orphan, 0)


def _adopt() -> None:
    """What outlives its parent is this process's child from then on (prctl(2), PR_SET_CHILD_SUBREAPER)."""
    getattr(ctypes.CDLL(None), "prctl", lambda *_: 0)(36, 1, 0, 0, 0)


def _pytest(arguments: list[str]) -> int:
    try:
        import pytest  # noqa: PLC0415 - it is there already, but for its name

        return int(pytest.main(arguments))
    except BaseException as error:  # noqa: BLE001 - a fork must never go on as if it were the parent
        print(repr(error), file=sys.stderr)
        return 70
    finally:
        sys.stdout.flush()


if __name__ == "__main__":
    main()
