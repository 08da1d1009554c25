"""One step of the demo's tour: made, timed and told in a line, whatever becomes of it."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable

import aiohttp

from gateway.cli.demo_screen import painted
from gateway.cli.output import print_line
from gateway.errors import GatewayError

STEP_SECONDS = 15.0


class Wrong(Exception):
    """A step did not go as it should; the text says what came instead."""


async def step(title: str, act: Callable[[], Awaitable[None]]) -> bool:
    """Whether it went as it should."""
    began = time.monotonic()
    wrong = ""
    try:
        async with asyncio.timeout(STEP_SECONDS):
            await act()
    except Wrong as error:
        wrong = str(error)
    except TimeoutError:
        wrong = f"it took more than {STEP_SECONDS:.0f} s"
    except (aiohttp.ClientError, GatewayError, OSError) as error:
        wrong = f"{type(error).__name__}: {error}"
    sys.stdout.write(_mark(not wrong))
    print_line(f" {time.monotonic() - began:5.2f} s  {title}" + (f": {wrong}" if wrong else ""))
    return not wrong


def _mark(good: bool) -> str:
    tick, cross = ("✓", "✗") if (sys.stdout.encoding or "").lower().startswith("utf") else ("ok", "NO")
    return painted(tick, "green") if good else painted(cross, "red")


def expect(answer: aiohttp.ClientResponse, status: int) -> None:
    """Raises Wrong for an answer with another status."""
    if answer.status != status:
        raise Wrong(f"the answer is {answer.status} and not {status}")
