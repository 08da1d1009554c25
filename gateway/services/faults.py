"""How what broke is written to the log: its type and the places it came through, never its text.

Law: an exception's text may quote a request line, and so a token; only GatewayError promises that its text is safe.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Mapping

from gateway.errors import GatewayError

LOG = logging.getLogger(__name__)
_PLACES = 4


def describe(error: BaseException) -> str:
    """One safe line: the text of a GatewayError, else `Type at file:line function < caller < …` (innermost first)."""
    if isinstance(error, GatewayError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)[: -_PLACES - 1 : -1]
    places = " < ".join(f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames)
    cause = f" (errno {error.errno})" if isinstance(error, OSError) and error.errno is not None else ""
    return f"{type(error).__name__}{cause}" + (f" at {places}" if places else "")


def log_loop_fault(_loop: asyncio.AbstractEventLoop, context: Mapping[str, object]) -> None:
    """An exception handler for event loops that leaves out the exception's text."""
    error = context.get("exception")
    text = describe(error) if isinstance(error, BaseException) else "no exception"
    LOG.error("%s: %s", context.get("message", "unhandled fault in the event loop"), text)
