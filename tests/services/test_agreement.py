"""The device secret that all gateways share, and what comes of a ledger that may not be used any more."""

from __future__ import annotations

import pytest

from gateway.errors import LedgerDown, SettingsError
from gateway.services.agreement import Agreement


class Ledger:
    """Answers as it is told; what it was asked is seen by the test."""

    def __init__(self) -> None:
        self.answer: str | Exception = "theirs"
        self.proposed: list[str] = []

    async def agree(self, proposed: str) -> str:
        self.proposed.append(proposed)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def test_the_secret_that_was_there_first_is_everybodys() -> None:
    ledger, told = Ledger(), []
    agreement = Agreement(ledger, None, told.append)
    await agreement()
    await agreement()
    assert told == ["theirs", "theirs"]
    assert ledger.proposed[1] == "theirs", "a Redis that has forgotten it is told again"


@pytest.mark.parametrize(("error", "told_last"), [(SettingsError("it evicts"), ""), (LedgerDown("away"), "theirs")])
async def test_a_ledger_that_may_not_be_used_lets_nobody_in(error: Exception, told_last: str) -> None:
    ledger, told = Ledger(), []
    agreement = Agreement(ledger, None, told.append)
    await agreement()
    ledger.answer = error
    with pytest.raises(type(error)):
        await agreement()
    assert told[-1] == told_last
    ledger.answer = "theirs"
    await agreement()
    assert told[-1] == "theirs"
