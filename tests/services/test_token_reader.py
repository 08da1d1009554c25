"""What a worker remembers of tokens: no more than so many, never what is wrong with them, and never the time."""

from __future__ import annotations

import time
from dataclasses import replace
from ipaddress import ip_address

import pytest

from gateway.policy.keys import KeySet, SigningKey, load_key
from gateway.policy.model import Claims, Deny, DownloadRequest, FileEntry
from gateway.policy.networks import network_of
from gateway.policy.reasons import Reason
from gateway.policy.tokens import encode
from gateway.services import token_reader
from gateway.services.throttle import FAILURES_MAX, Throttle
from gateway.services.token_reader import TokenReader

KEY = load_key(kid="a", alg="HS256", secret="0123456789abcdef0123456789abcdef", use="sign")
OTHER = load_key(kid="b", alg="HS256", secret="another5another5another5another5", use="sign")
CLAIMS = Claims("shop", "t", int(time.time()) + 600, (FileEntry("a"),))
assert isinstance(KEY, SigningKey)
assert isinstance(OTHER, SigningKey)
GENUINE = encode(CLAIMS, KEY)


@pytest.fixture
def reader() -> TokenReader:
    return TokenReader(KeySet([KEY]), "shop", Throttle())


def request(token: str, address: str = "192.0.2.7") -> DownloadRequest:
    found = ip_address(address)
    return DownloadRequest("r", token, 1, "GET", found, network_of(found))


def test_the_oldest_is_forgotten(reader: TokenReader, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []
    really = token_reader.parse
    monkeypatch.setattr(token_reader, "TOKENS_CACHED", 3)
    monkeypatch.setattr(token_reader, "parse", lambda *told: parsed.append(told[0]) or really(*told))
    for name in "abcabcdabcd":
        own = replace(CLAIMS, token_id=name)
        assert reader.read(encode(own, KEY)) == own
    assert len(parsed) > len("abcd"), "four do not fit where three are kept"
    assert len(parsed) < len("abcabcdabcd")


def test_what_is_remembered_is_still_not_yet_good(reader: TokenReader) -> None:
    early = encode(replace(CLAIMS, not_before=int(time.time()) + 600), KEY)
    for _ in range(FAILURES_MAX + 2):
        answer = reader.read_for(request(early))
        assert isinstance(answer, Deny)
        assert answer.reason is Reason.TOKEN_NOT_YET, "it is genuine, so it is no guess"


BAD = [
    ("junk", Reason.TOKEN_MALFORMED),
    (GENUINE[:-3] + "AAA", Reason.TOKEN_SIGNATURE),
    (encode(CLAIMS, OTHER), Reason.TOKEN_SIGNATURE),
    (encode(replace(CLAIMS, issuer="another"), KEY), Reason.TOKEN_CLAIMS),
]


@pytest.mark.parametrize(("token", "reason"), BAD)
def test_an_office_with_a_guesser_in_it(reader: TokenReader, token: str, reason: Reason) -> None:
    answers: list[Reason] = []
    for number in range(1000):
        refused = reader.read_for(request(token, f"192.0.2.{number % 256}"))
        assert isinstance(refused, Deny)
        answers.append(refused.reason)
        assert reader.read_for(request(GENUINE)) == CLAIMS
    assert answers == [reason] * FAILURES_MAX + [Reason.THROTTLED] * (1000 - FAILURES_MAX)
    elsewhere = reader.read_for(request(token, "198.51.100.1"))
    assert isinstance(elsewhere, Deny)
    assert elsewhere.reason is reason
