"""What was ordered of a link is in force before it is told: the reverse would be a promise that nobody keeps."""

from __future__ import annotations

import time

import pytest

from gateway.errors import GatewayError, LedgerDown
from gateway.policy.model import Claims, FileEntry
from gateway.policy.standing import Command, Standing
from gateway.services.linking import Subject, extend, revoke

NOW = int(time.time())
LINK = Claims("shop.example.com", "t1", NOW + 600, (FileEntry("a"),), issued_at=NOW - 5)


class Log:
    """The control stream and the events, either of which may be away; `told` is what was written, in its order."""

    def __init__(self, away: str) -> None:
        self.told: list[str] = []
        self._away = away

    def _write(self, what: str) -> None:
        if what == self._away:
            raise LedgerDown("away")
        self.told.append(what)


class Commands(Log):
    async def append(self, command: Command) -> None:
        self._write("command")


class Events(Log):
    async def append(self, shard: int, fields: dict[str, str]) -> None:
        self._write("event")


@pytest.mark.parametrize("verb", ["revoke", "extend"])
@pytest.mark.parametrize(("away", "error", "told"), [("command", LedgerDown, []), ("event", GatewayError, ["command"])])
async def test_what_is_not_in_force_is_not_told(verb: str, away: str, error: type[Exception], told: list[str]) -> None:
    commands, events = Commands(away), Events(away)
    events.told = commands.told
    logs = {"standing": Standing(), "control": commands, "events": events, "shards": 1}
    if verb == "revoke":
        ordering = revoke(Subject((LINK,)), **logs)
    else:
        ordering = extend(Subject((LINK,)), NOW + 900, ends_at=lambda claims: claims.expires_at, **logs)
    with pytest.raises(error):
        await ordering
    assert commands.told == told
