"""A sign-in is known again in the browser that began it, for ten minutes, and leads to paths of ours alone."""

from __future__ import annotations

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.services.sign_ins import AT_ONCE, CLOCKS, COOKIE_MAX, HOME, SECONDS, TOGETHER_MAX, SignIns, returning

KEY = b"k" * 32
TOKEN = "/l/eyJ.eyJ.sig"


class Clock:
    now = 1_795_228_200.0

    def __call__(self) -> float:
        return self.now


def begin(to: str = TOKEN, clock: Clock | None = None) -> tuple[SignIns, str, str]:
    """Who knows them, the state of a new one, and what the browser then sends."""
    sign_ins = SignIns(KEY, clock=clock or Clock())
    begun, [cookie] = sign_ins.begin(to, None)
    return sign_ins, begun.state, cookie.partition(";")[0]


def test_it_is_found_by_its_state_among_others() -> None:
    sign_ins, state, cookie = begin()
    _, _, other = begin("/account")
    found = sign_ins.find(state, f"a=b; {other}; {cookie}")
    assert found is not None
    assert (found.to, found.state) == (TOKEN, state)
    assert len({found.state, found.nonce, found.verifier}) == 3
    assert len(found.verifier) >= 43  # RFC 7636 §4.1
    assert found.state not in repr(found)
    assert found.verifier not in repr(found)


@pytest.mark.parametrize("state", ["", "x", "x" * 24, "x" * 4000, "ü" * 24])
def test_no_other_state_finds_it(state: str) -> None:
    sign_ins, right, cookie = begin()
    assert sign_ins.find(state, cookie) is None
    assert sign_ins.find(right[:12] + "x" * 12, cookie) is None
    assert sign_ins.find(right, None) is None


def test_it_is_over_after_ten_minutes() -> None:
    clock = Clock()
    sign_ins, state, cookie = begin(clock=clock)
    clock.now += SECONDS - 1
    assert sign_ins.find(state, cookie) is not None
    clock.now += 1
    assert sign_ins.find(state, cookie) is None


def test_a_cookie_that_we_did_not_sign_is_none() -> None:
    sign_ins, state, cookie = begin()
    name, _, value = cookie.partition("=")
    claims = jwt.decode(value, options={"verify_signature": False})
    for forged in (
        jwt.encode(claims, b"o" * 32),
        jwt.encode(claims, None, algorithm="none"),
        jwt.encode({**claims, "aud": "download-gateway-session"}, KEY),
        value[:-3],
    ):
        assert sign_ins.find(state, f"{name}={forged}") is None


def test_so_many_at_once_and_then_anew() -> None:
    sign_ins = SignIns(KEY, clock=Clock())
    cookies: list[str] = []
    for _ in range(AT_ONCE):
        _, [cookie] = sign_ins.begin(TOKEN, "; ".join(cookies))
        cookies.append(cookie.partition(";")[0])
    _, told = sign_ins.begin(TOKEN, "; ".join(cookies))
    assert [each.partition(";")[0] for each in told[1:]] == [f"{each.partition('=')[0]}=" for each in cookies]
    assert all("Max-Age=0" in each for each in told[1:])


def test_all_of_them_fit_a_header() -> None:
    """Of 8 KiB, with the session's cookie and others beside them."""
    sign_ins = SignIns(KEY, clock=Clock())
    kept: dict[str, str] = {}
    for n in range(12):
        _, told = sign_ins.begin(f"/l/{'t' * 1000}{n}", "; ".join(f"{name}={value}" for name, value in kept.items()))
        for each in told:
            name, _, value = each.partition(";")[0].partition("=")
            kept[name] = value
        kept = {name: value for name, value in kept.items() if value}
        assert sum(len(name) + len(value) for name, value in kept.items()) <= TOGETHER_MAX
    assert kept


def test_it_is_found_where_the_clock_is_a_little_behind() -> None:
    """By another machine's worker: who is signed in at the shop already is back within the second."""
    clock = Clock()
    sign_ins, state, cookie = begin(clock=clock)
    clock.now -= CLOCKS
    assert sign_ins.find(state, cookie) is not None
    clock.now -= 1
    assert sign_ins.find(state, cookie) is None


def test_a_token_too_long_for_a_cookie_returns_home() -> None:
    for length, home in ((2600, False), (4000, True)):
        sign_ins, state, cookie = begin(f"/l/{'t' * length}")
        found = sign_ins.find(state, cookie)
        assert found is not None
        assert (found.to == HOME) == home
        assert len(cookie) <= COOKIE_MAX


@pytest.mark.parametrize("to", [TOKEN, "/o/main-10001", "/o/a%2Fb", "/account"])
def test_it_returns_to_paths_of_ours(to: str) -> None:
    assert returning(to) == to


@pytest.mark.parametrize(
    "to",
    [
        "",
        "/",
        "//evil",
        "/\\evil",
        "\\\\evil",
        "https://evil",
        "/l/",
        "/l/a/b",
        "/l/..",
        "/o/..",
        "/account/x",
        "/l/a\r\nX: y",
        "/l/a\n",
    ],
)
def test_and_nowhere_else(to: str) -> None:
    assert returning(to) == HOME


@given(st.text())
def test_whatever_it_is_it_stays_here(to: str) -> None:
    assert returning(to).startswith(("/l/", "/o/", "/account"))
