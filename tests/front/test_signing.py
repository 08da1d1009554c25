"""Where the button of a refusal leads: back to the page that somebody came from, the token in no other address."""

from __future__ import annotations

import pytest

from gateway.front.signing import remedy, sign_in_at
from gateway.policy.model import Account, Deny
from gateway.policy.reasons import Reason
from gateway.services.sessions import Session, Sessions

SESSIONS = Sessions("s" * 40, seconds=60)
SOMEBODY = Session(Account("c-7"), "id", 9_999_999_999)


@pytest.mark.parametrize(
    ("path", "leads"),
    [
        ("/l/eyJ.x.y", "/shop/l/eyJ.x.y?sign-in"),
        ("/d/eyJ.x.y/2/sea.pdf", "/shop/l/eyJ.x.y?sign-in"),
        ("/z/eyJ.x.y", "/shop/l/eyJ.x.y?sign-in"),
        ("/o/main-1", "/shop/o/main-1?sign-in"),
        ("/auth", "/shop/account/sign-in"),
        ("/auth/refused", "/shop/account/sign-in"),
        ("", "/shop/account/sign-in"),
    ],
)
def test_who_has_to_sign_in_comes_back(path: str, leads: str) -> None:
    action = remedy(Deny(Reason.ACCOUNT_REQUIRED), path, "/shop", None, SESSIONS)
    assert action is not None
    assert (action.href, action.fields) == (leads, None)


def test_who_is_somebody_else_may_sign_out_with_the_key_of_the_session() -> None:
    action = remedy(Deny(Reason.ACCOUNT_OTHER), "/d/eyJ.x.y", "/shop", SOMEBODY, SESSIONS)
    assert action is not None
    assert action.href == "/shop/account/sign-out"
    assert action.fields == {"key": SESSIONS.form_key(SOMEBODY), "to": "/l/eyJ.x.y"}
    assert "eyJ" not in repr(action)


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason is not Reason.ACCOUNT_REQUIRED], ids=str)
def test_for_nothing_else_there_is_a_button(reason: Reason) -> None:
    assert remedy(Deny(reason), "/l/eyJ.x.y", "", None, SESSIONS) is None


def test_another_account() -> None:
    assert sign_in_at("", "/l/a", anew=True) == "/l/a?sign-in=other"
    assert sign_in_at("", "/account", anew=True) == "/account/sign-in?sign-in=other"
