"""The events that a command goes through, of Redis or of exports, and replays of them as the settings say."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.backends.event_files import Exports
from gateway.backends.maxmind import Databases
from gateway.bootstrap.files import databases_of, read_geo
from gateway.cli.options import DEFAULT_CONFIG
from gateway.cli.output import read_settings, visible, with_tools
from gateway.cli.progress import Progress
from gateway.errors import SettingsError
from gateway.policy.counting import CountingRules
from gateway.policy.replay import Replay

if TYPE_CHECKING:
    from gateway.bootstrap.redis import Tools
    from gateway.policy.ruleset import RuleSet
    from gateway.settings import Settings

Fields = Mapping[str, str]
Take = Callable[[Fields], None]


class Source:
    """Exports, which need no settings, else Redis. Raises SettingsError. It can be read again and again.

    `databases`: the geo databases of the settings; None: there are no settings.
    """

    def __init__(self, exports: Sequence[Path], config: Path | None) -> None:
        self._exports = exports
        self._config = config
        self._told = False
        self.settings = _settings(config, needed=not exports)
        self.databases: frozenset[str] | None = None
        if self.settings is not None:
            self.databases = databases_of(self.settings)

    def read(self, take: Take, label: str) -> None:
        """All events to `take`, of one shard after the other, each oldest first; `label` for the progress bar."""
        if self._exports:
            overlap = _from_files(self._exports, take, label)
            if overlap is not None and not self._told:
                self._told = True
                told = (
                    f"{overlap} has other events of the same time as the files before it, which were read first:"
                    " limits may come out wrong. Export them into one file."
                )
                click.echo(visible(told), err=True)
        else:
            with_tools(self._config, lambda settings, tools: _from_redis(settings, tools, take, label))

    @contextmanager
    def prepared(self) -> Iterator[Callable[[RuleSet, float], Replay]]:
        """Gives what makes a replay of these rules from a time (Unix s) on."""

        settings = self.settings
        geo = Databases() if settings is None else read_geo(settings)
        made = partial(
            Replay,
            counting=CountingRules() if settings is None else settings.counting.rules,
            hosts=None if settings is None else settings.external_hosts,
            waived=None if settings is None else settings.doors.waived,
            look_up=geo.look_up,
            databases=self.databases or (),
        )
        # Millions of objects stay and none is in a cycle: looking for cycles among them would take a third of the time.
        gc.disable()
        try:
            yield lambda rules, since: made(rules, since=since)
        finally:
            gc.enable()
            geo.close()


def _settings(config: Path | None, *, needed: bool) -> Settings | None:
    try:
        return read_settings(config)
    except SettingsError:
        if needed or config is not None or DEFAULT_CONFIG.exists() or "GATEWAY_CONFIG" in os.environ:
            raise
        return None


def _from_files(paths: Sequence[Path], take: Take, label: str) -> Path | None:
    """The file whose events are of the same time as those of files that were read before it."""

    exports = Exports(paths)
    with Progress(exports.size, label) as advance:
        for fields in exports.read(advance):
            take(fields)
    return exports.overlap


async def _from_redis(settings: Settings, tools: Tools, take: Take, label: str) -> None:
    shards = range(settings.shards)
    with Progress(sum([await tools.events.count(shard) for shard in shards]), label) as advance:
        for shard in shards:
            async for _, fields in tools.events.scan(shard):
                take(fields)
                advance(1)
