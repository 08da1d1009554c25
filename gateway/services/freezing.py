"""Stopping all downloads at once, and allowing them again.

Law: the act goes on record first; then it is in the control stream, which every worker follows. It is ordered whatever
the stream says, and later than all that it says: Redis may have lost what workers hold.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from gateway.errors import GatewayError
from gateway.policy.standing import Command, Frozen, Standing, write_command
from gateway.services.identifiers import now_ms


class Control(Protocol):
    """The control stream, for who reads it up to now. Raises LedgerDown."""

    async def append(self, command: Command) -> None: ...

    async def read_all(self) -> Standing: ...


async def freeze(control: Control, record: Callable[[], Awaitable[None]], message: str | None = None) -> Frozen:
    """Stop everything; `message` is for buyers: None leaves the one there is, "" takes it away. What stands then.

    Raises GatewayError for a message that cannot be told; LedgerDown.
    """
    standing = await control.read_all()
    now = now_ms() // 1000
    before = standing.frozen or Frozen(now)
    frozen = Frozen(before.since, before.message if message is None else message or None)
    time = _after(standing, now)
    await _order(Command("freeze", time, message=frozen.message, since=frozen.since), control, record)
    return frozen


async def thaw(control: Control, record: Callable[[], Awaitable[None]]) -> bool:
    """Allow downloads again; whether they had been stopped as far as Redis knows. Raises GatewayError, LedgerDown."""
    standing = await control.read_all()
    await _order(Command("thaw", _after(standing, now_ms() // 1000)), control, record)
    return standing.frozen is not None


def _after(standing: Standing, now: int) -> int:
    """A second later than what is to give way, whoever's clock that was ordered by. All in Unix seconds."""
    said = standing.of_all
    return now if said is None else max(now, said.time + 1)


async def _order(command: Command, control: Control, record: Callable[[], Awaitable[None]]) -> None:
    try:
        write_command(command)
    except ValueError as error:
        raise GatewayError(f"nothing was ordered: {error}") from None
    await record()
    await control.append(command)
