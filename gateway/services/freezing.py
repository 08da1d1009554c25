"""Stopping all downloads at once, and allowing them again.

Law: the act goes on record first; then it is in the control stream, which every worker follows.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from gateway.errors import GatewayError
from gateway.policy.standing import Command, Standing, Verb, write_command
from gateway.services.identifiers import now_ms


class Control(Protocol):
    """The control stream, for who reads it up to now. Raises LedgerDown."""

    async def append(self, command: Command) -> None: ...

    async def read_all(self) -> Standing: ...


async def freeze(control: Control, record: Callable[[], Awaitable[None]], message: str | None = None) -> Standing:
    """Stop everything; `message` is for buyers. What stands then. Where all is frozen already only a new message
    changes anything. Raises GatewayError for a message that cannot be told; LedgerDown.
    """
    standing = await control.read_all()
    frozen = standing.frozen
    if frozen is not None and message in (None, frozen.message):
        return standing
    # A second later than what is to give way, whoever's clock that was ordered by.
    time = max(now_ms() // 1000, standing.said_of_all + (frozen is not None))
    return await _order("freeze", time, control, record, standing, message)


async def thaw(control: Control, record: Callable[[], Awaitable[None]]) -> bool:
    """Allow downloads again; whether they had been stopped. Raises GatewayError, LedgerDown."""
    standing = await control.read_all()
    if standing.frozen is None:
        return False
    await _order("thaw", max(now_ms() // 1000, standing.said_of_all + 1), control, record, standing)
    return True


async def _order(  # noqa: PLR0917  what an order is made of
    verb: Verb,
    time: int,
    control: Control,
    record: Callable[[], Awaitable[None]],
    standing: Standing,
    message: str | None = None,
) -> Standing:
    command = Command(verb, time, message=message)
    try:
        write_command(command)
    except ValueError as error:
        raise GatewayError(f"nothing was ordered: {error}") from None
    await record()
    await control.append(command)
    standing.apply(command)
    return standing
