"""Tokens: what is encoded is parsed as the same claims, by us and by PyJWT; time is judged apart."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_network

import jwt
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from gateway.policy.claims import AUDIENCE, TIME_MAX
from gateway.policy.keys import KeySet, SigningKey, load_key
from gateway.policy.limits import BY_NAME, LIMIT_MAX
from gateway.policy.model import Claims, Deny, FileEntry, Limits
from gateway.policy.reasons import Reason
from gateway.policy.tokens import TOKEN_MAX, encode, parse, timely, verify

ISSUER = "shop.example.com"
NOW = 1_750_000_000
SECRET = "a-secret-of-at-least-thirty-two-bytes"


def signing_key() -> SigningKey:
    key = load_key(kid="2026-11", alg="HS256", secret=SECRET, use="sign")
    assert isinstance(key, SigningKey)
    return key


KEY = signing_key()
KEYS = KeySet([KEY])
CLAIMS = Claims(ISSUER, "T-0001", NOW + 3600, (FileEntry("ebooks/sea.pdf"),))

texts = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1, max_size=20).filter(
    lambda text: text == text.strip()
)
segments = st.text(
    st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"], exclude_characters="/\\%"), min_size=1, max_size=12
)
odd_keys = st.sampled_from(["a%2Fb", "100%.pdf", "AC\\DC.mp3", "...", "a/..b", " a ", "%"])
keys_of_files = odd_keys | st.lists(segments.filter(lambda part: part not in (".", "..")), min_size=1, max_size=3).map(
    "/".join
)
urls = st.from_regex(r"\Ahttps://[a-z][a-z0-9]{0,8}\.example(:[0-9]{2,4})?(/[a-z0-9%&=?#.]{0,20})?\Z")
names = st.none() | texts
files = st.builds(FileEntry, keys_of_files, st.none(), names) | st.builds(FileEntry, st.none(), urls, names)
times = st.integers(0, TIME_MAX)
limits = st.builds(Limits, **{name: st.none() | st.integers(1, LIMIT_MAX) for name in BY_NAME})
networks = st.builds(
    lambda address, bits: ip_network((address, bits), strict=False), st.ip_addresses(v=4), st.integers(0, 32)
) | st.builds(
    lambda address, bits: ip_network((address, bits), strict=False), st.ip_addresses(v=6), st.integers(0, 128)
)
any_claims = st.builds(
    Claims,
    issuer=st.just(ISSUER),
    token_id=st.from_regex(r"\A[!-z|~]{1,128}\Z"),
    expires_at=times,
    files=st.lists(files, min_size=1, max_size=4).map(tuple),
    not_before=st.none() | times,
    issued_at=st.none() | times,
    customer_id=st.none() | texts,
    order_id=st.none() | texts,
    plan=st.none() | texts,
    tier=st.none() | texts,
    account=st.booleans(),
    ip=st.lists(networks, max_size=3).map(tuple),
    limits=limits,
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(any_claims)
def test_what_is_encoded_is_parsed_as_the_same_claims(claims: Claims) -> None:
    assume(all(getattr(net.network_address, "ipv4_mapped", None) is None for net in claims.ip))
    token = encode(claims, KEY)
    assert parse(token, KEYS, ISSUER) == claims
    assert encode(claims, KEY) == token


@settings(max_examples=100, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=6,
    ),
    st.sampled_from(["iss", "aud", "exp", "nbf", "iat", "jti", "sub", "files", "account", "ip", "limits", "other"]),
)
def test_a_signed_claim_of_any_shape_never_raises(value: object, name: str) -> None:
    payload = {"iss": ISSUER, "aud": AUDIENCE, "exp": NOW, "jti": "T", "files": ["a"], name: value}
    token = jwt.api_jws.encode(json.dumps(payload).encode(), SECRET, "HS256", {"kid": "2026-11"})
    assert isinstance(verify(token, KEYS, ISSUER, NOW), Claims | Deny)


@given(st.text(max_size=60) | st.from_regex(r"\A[A-Za-z0-9_-]{0,20}\.[A-Za-z0-9_-]{0,20}\.[A-Za-z0-9_-]{0,20}\Z"))
def test_no_text_at_all_raises_or_is_accepted(token: str) -> None:
    assert isinstance(parse(token, KEYS, ISSUER), Deny)


def test_no_other_character_anywhere_is_accepted() -> None:
    token = encode(CLAIMS, KEY)
    for place, character in enumerate(token):
        for other in "A_.=~ ":
            if other != character:
                forged = f"{token[:place]}{other}{token[place + 1 :]}"
                assert isinstance(parse(forged, KEYS, ISSUER), Deny), place


def test_pyjwt_reads_what_we_encode_and_we_read_what_pyjwt_encodes() -> None:
    read = jwt.decode(
        encode(CLAIMS, KEY), SECRET, ["HS256"], audience=AUDIENCE, issuer=ISSUER, options={"verify_exp": False}
    )
    assert read == {"iss": ISSUER, "aud": AUDIENCE, "jti": "T-0001", "exp": NOW + 3600, "files": ["ebooks/sea.pdf"]}
    assert parse(jwt.encode(read, SECRET, "HS256", {"kid": "2026-11"}), KEYS, ISSUER) == CLAIMS


def test_the_wire_form() -> None:
    header, payload, _ = encode(CLAIMS, KEY).split(".")
    assert jwt.utils.base64url_decode(header) == b'{"alg":"HS256","kid":"2026-11","typ":"JWT"}'
    assert jwt.utils.base64url_decode(payload) == (
        b'{"iss":"shop.example.com","aud":"download-gateway","jti":"T-0001","exp":1750003600,"files":["ebooks/sea.pdf"]}'
    )


@pytest.mark.parametrize(("not_before", "issued_at"), [(None, None), (NOW + 60, None), (None, NOW + 60), (0, 0)])
def test_a_clock_that_is_a_minute_ahead_is_no_matter(not_before: int | None, issued_at: int | None) -> None:
    claims = replace(CLAIMS, not_before=not_before, issued_at=issued_at)
    assert verify(encode(claims, KEY), KEYS, ISSUER, NOW) == claims


@pytest.mark.parametrize(
    ("not_before", "issued_at"), [(NOW + 61, None), (None, NOW + 61), (0, NOW + 61), (TIME_MAX, 0)]
)
def test_a_token_from_the_future_is_not_yet_good(not_before: int | None, issued_at: int | None) -> None:
    claims = replace(CLAIMS, not_before=not_before, issued_at=issued_at)
    answer = verify(encode(claims, KEY), KEYS, ISSUER, NOW)
    assert isinstance(answer, Deny)
    assert answer.reason is Reason.TOKEN_NOT_YET
    assert parse(encode(claims, KEY), KEYS, ISSUER) == claims
    assert timely(claims, TIME_MAX) is None


@pytest.mark.parametrize("expires_at", [0, NOW - 1, NOW])
def test_an_expired_token_is_handed_on_for_the_ledger_to_judge(expires_at: int) -> None:
    claims = replace(CLAIMS, expires_at=expires_at)
    assert verify(encode(claims, KEY), KEYS, ISSUER, NOW) == claims


@pytest.mark.parametrize(
    ("claims", "text"),
    [
        (replace(CLAIMS, files=()), "files is not a list"),
        (replace(CLAIMS, files=(FileEntry("../a"),)), "segment"),
        (replace(CLAIMS, files=(FileEntry("a", "https://cdn.example.com/"),)), "neither a key nor"),
        (replace(CLAIMS, files=(FileEntry(None),)), "neither a key nor"),
        (replace(CLAIMS, token_id="{T}"), "jti"),
        (replace(CLAIMS, expires_at=TIME_MAX + 1), "exp is not a whole number"),
        (replace(CLAIMS, limits=Limits(downloads=0)), "downloads: is not a whole number"),
        (replace(CLAIMS, order_id=""), "order is not a text"),
        (replace(CLAIMS, files=[FileEntry("a")]), "cannot be written"),
        (replace(CLAIMS, files=tuple(FileEntry(f"folder/{n}.wav") for n in range(400))), "longer than 4096 bytes"),
    ],
)
def test_what_would_be_refused_is_not_encoded(claims: Claims, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        encode(claims, KEY)


def test_the_longest_token_is_accepted_and_one_byte_more_is_not() -> None:
    lengths = {}
    for size in range(2600, 2900):
        filler = replace(
            CLAIMS, files=tuple(FileEntry("x" * min(1000, size - start)) for start in range(0, size, 1000))
        )
        try:
            lengths[len(encode(filler, KEY))] = filler
        except ValueError:
            break
    longest = max(lengths)
    assert TOKEN_MAX - 2 <= longest <= TOKEN_MAX
    assert parse(encode(lengths[longest], KEY), KEYS, ISSUER) == lengths[longest]
    answer = parse("A" * (TOKEN_MAX + 1), KEYS, ISSUER)
    assert isinstance(answer, Deny)
    assert "longer than" in (answer.message or "")


def test_any_key_of_the_set_verifies_and_each_only_its_own() -> None:
    old = load_key(kid="2026-05", alg="HS256", secret=SECRET[::-1], use="sign")
    assert isinstance(old, SigningKey)
    token = encode(CLAIMS, old)
    answer = parse(token, KEYS, ISSUER)
    assert isinstance(answer, Deny)
    assert answer.reason is Reason.TOKEN_SIGNATURE
    assert parse(token, KeySet([KEY, old.verification]), ISSUER) == CLAIMS
    assert isinstance(parse(token, KeySet([load_key(kid="2026-05", alg="HS256", secret=SECRET)]), ISSUER), Deny)


def test_what_shops_have_in_common_shares_no_counter() -> None:
    """They may share a Redis; and no issuer and id together are another issuer and id."""
    told = [("shop.a", "1"), ("shop.b", "1"), ("shop.a", "11"), ("shop.a1", "1")]
    assert len({replace(CLAIMS, issuer=issuer, token_id=name).token_key for issuer, name in told}) == len(told)


def test_another_shops_token_is_refused() -> None:
    answer = parse(encode(replace(CLAIMS, issuer="other.example.com"), KEY), KEYS, ISSUER)
    assert isinstance(answer, Deny)
    assert answer.reason is Reason.TOKEN_CLAIMS
