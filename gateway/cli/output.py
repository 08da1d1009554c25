"""What the commands have in common: the settings they start from, and how they print."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import sys
import unicodedata
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from gateway.cli.options import DEFAULT_CONFIG
from gateway.errors import LedgerDown, SettingsError

if TYPE_CHECKING:
    from gateway.bootstrap.redis import Tools
    from gateway.settings import Settings

T = TypeVar("T")


def read_settings(config: Path | None) -> Settings:
    """The settings of this file, else of config/gateway.yaml where it is there, else of the environment alone."""
    from gateway.settings import load  # noqa: PLC0415  # `gateway --help` needs none of it

    if config is None and DEFAULT_CONFIG.exists():
        config = DEFAULT_CONFIG
    try:
        return load(config, os.environ)
    except SettingsError as error:
        if config is not None:
            raise
        hint = f"there is no {DEFAULT_CONFIG} here; name a settings file with --config"
        raise SettingsError(f"{error}\n{hint}") from None


def with_tools(config: Path | None, work: Callable[[Settings, Tools], Coroutine[None, None, T]]) -> T:
    """What `work` returns, with everything it needs opened before and closed after."""
    from gateway.bootstrap.redis import open_tools  # noqa: PLC0415  # `gateway --help` needs none of it

    settings = read_settings(config)

    async def run() -> T:
        async with open_tools(settings) as tools:
            return await work(settings, tools)

    try:
        return asyncio.run(run())
    except LedgerDown as error:
        raise click.ClickException(f"{error}; check that Redis runs at the address in the setting redis") from error


def log_to_stderr(who: str) -> None:
    """The log of a command that goes on running."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format=f"%(asctime)s %(levelname)s {who} %(process)d %(name)s: %(message)s",
    )
    logging.getLogger("botocore").setLevel(logging.WARNING)  # where it found credentials is no news at each start


def print_json(document: object) -> None:
    """One line of JSON; all but ASCII is escaped, so no terminal or locale can spoil it."""
    print(json.dumps(document, separators=(",", ":")), flush=True)


def print_line(text: str) -> None:
    """One line for people, whatever it was made from: controls and direction marks are shown as U+FFFD."""
    line = visible(text)
    encoding = sys.stdout.encoding or "utf-8"
    print(line.encode(encoding, "replace").decode(encoding), flush=True)


def visible(text: str) -> str:
    """The text with U+FFFD for all that a terminal would act on: controls, line ends and direction marks."""
    return "".join(letter if _is_harmless(letter) else "\ufffd" for letter in text)


def utc(seconds: float) -> str:
    """Unix seconds as `2026-11-21T09:30:00Z`."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _is_harmless(letter: str) -> bool:
    # Cf holds what joins emoji, and what turns text around (U+202A-202E, U+2066-2069): only the latter lies.
    return unicodedata.category(letter) not in ("Cc", "Cs", "Zl", "Zp") and not _TURNING.match(letter)


_TURNING = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069]")
