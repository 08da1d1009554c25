"""What a worker remembers of tokens: no more than so many, never what is wrong with them, and never the time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from gateway.policy.counting import CountingRules
from gateway.policy.keys import KeySet, SigningKey, load_key
from gateway.policy.model import Claims, Deny, FileEntry
from gateway.policy.reasons import Reason
from gateway.policy.tokens import encode
from gateway.services import gatekeeper
from gateway.services.gatekeeper import Gatekeeper
from gateway.services.grounds import Grounds

KEY = load_key(kid="a", alg="HS256", secret="0123456789abcdef0123456789abcdef", use="sign")
CLAIMS = Claims("shop", "t", int(time.time()) + 600, (FileEntry("a"),))


def unused(*_: object) -> None:
    raise AssertionError("reading a token touches nothing")


@pytest.fixture
def read() -> Callable[[Claims], Claims | Deny]:
    nothing: dict[str, object] = dict.fromkeys(("rules", "geo", "control", "ready", "holding", "observing"), unused)
    keeper = Gatekeeper(
        Grounds(keys=KeySet([KEY]), issuer="shop", external_hosts=frozenset(), waived={}, **nothing),
        **dict.fromkeys(("ledger", "events", "store", "forsake"), unused),
        counting=CountingRules(),
        shards=1,
    )
    assert isinstance(KEY, SigningKey)
    return lambda claims: keeper.read_token(encode(claims, KEY))


def test_the_oldest_is_forgotten(read: Callable[[Claims], Claims | Deny], monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []
    really = gatekeeper.parse
    monkeypatch.setattr(gatekeeper, "TOKENS_CACHED", 3)
    monkeypatch.setattr(gatekeeper, "parse", lambda *told: parsed.append(told[0]) or really(*told))
    for name in "abcabcdabcd":
        assert read(replace(CLAIMS, token_id=name)) == replace(CLAIMS, token_id=name)
    assert len(parsed) > len("abcd"), "four do not fit where three are kept"
    assert len(parsed) < len("abcabcdabcd")


def test_what_is_remembered_is_still_not_yet_good(read: Callable[[Claims], Claims | Deny]) -> None:
    for _ in range(2):
        answer = read(replace(CLAIMS, not_before=int(time.time()) + 600))
        assert isinstance(answer, Deny)
        assert answer.reason is Reason.TOKEN_NOT_YET
