"""The calls that stop all downloads at once, and allow them again."""

from __future__ import annotations

from gateway.services import freezing
from gateway.web.api.answering import FreezeAnswer, utc
from gateway.web.api.asking import Freeze
from gateway.web.api.call import Asked


async def freeze(asked: Asked) -> FreezeAnswer:
    """Stop all downloads."""
    message = asked.given(Freeze).message
    frozen = await freezing.freeze(asked.office.tools.control, asked.record, message)
    return FreezeAnswer(frozen=True, since=utc(frozen.since))


async def thaw(asked: Asked) -> FreezeAnswer:
    """Allow them again."""
    await freezing.thaw(asked.office.tools.control, asked.record)
    return FreezeAnswer(frozen=False)
