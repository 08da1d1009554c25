"""Sign-ins: what is not ours to the last byte is nobody's."""

from __future__ import annotations

import jwt
import pytest

from gateway.policy.accounts import Account
from gateway.services.sessions import AUDIENCE, COOKIE, Sessions

NOW = 1_800_000_000.0
SECRET = "s" * 32


def sessions(secret: str = SECRET, *, now: float = NOW, shops: tuple[str, ...] = ()) -> Sessions:
    return Sessions(secret, seconds=3600, shops=shops, clock=lambda: now)


def cookie_of(header: str) -> str:
    return header.partition(";")[0]


def test_who_signed_in_is_read_back_until_the_time_is_over() -> None:
    header = sessions().begin("żółw 7")
    found = sessions(shops=("main",)).read(f"a=b; {cookie_of(header)}; c=d")
    assert found is not None
    assert (found.account, found.expires_at) == (Account("żółw 7", ("main",)), NOW + 3600)
    assert header.endswith("; Path=/; Max-Age=3600; Secure; HttpOnly; SameSite=Lax")
    assert sessions(now=NOW + 3599).read(cookie_of(header)) is not None
    assert sessions(now=NOW + 3600).read(cookie_of(header)) is None


def test_each_sign_in_is_another_one() -> None:
    one, two = (sessions().read(cookie_of(sessions().begin("7"))) for _ in range(2))
    assert one is not None
    assert two is not None
    assert one.session_id != two.session_id
    assert one.session_id not in repr(one)
    assert sessions().is_form_of(one, sessions().form_key(one))
    for wrong in (sessions().form_key(two), sessions("o" * 32).form_key(one), "", "ż", one.session_id, "\ud800"):
        assert not sessions().is_form_of(one, wrong)


def test_what_is_not_ours_is_none() -> None:
    mine = sessions()
    good = cookie_of(mine.begin("7"))
    value = good.partition("=")[2]
    head, body, signature = value.split(".")
    claims = {"aud": AUDIENCE, "sub": "7", "jti": "j", "exp": int(NOW) + 99}
    forged = [
        cookie_of(sessions("o" * 32).begin("7")),
        f"{COOKIE}={jwt.encode(claims, SECRET, algorithm='HS256')}",
        f"{COOKIE}={jwt.encode(claims, mine.key('form'), algorithm='HS256')}",
        f"{COOKIE}={jwt.encode(claims, None, algorithm='none')}",
        *(
            f"{COOKIE}={jwt.encode({**claims, **change}, mine.key('session'), algorithm='HS256')}"
            for change in ({"aud": "download-gateway"}, {"exp": int(NOW) - 1}, {"sub": 7}, {"exp": "soon"})
        ),
        *(
            f"{COOKIE}={jwt.encode({k: v for k, v in claims.items() if k != name}, mine.key('session'))}"
            for name in claims
        ),
        f"{COOKIE}={head}.{body}.{signature[:-2]}",
        f"{COOKIE}={head}.{body}.",
        f"x{good}",
        f"{good}; {good}",
        f"{good}; {cookie_of(mine.begin('8'))}",
        mine.end(),
        "",
    ]
    assert [text for text in forged if mine.read(text) is not None] == []
    assert mine.read(None) is None
    assert mine.read(good) is not None


@pytest.mark.parametrize("separator", [";", "; ", ";\t"])
def test_it_is_found_among_others(separator: str) -> None:
    assert sessions().read(separator.join(["a=1", cookie_of(sessions().begin("7")), "b=2"])) is not None
