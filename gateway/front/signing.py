"""Where a page's button leads who has to sign in, or as somebody else. The token stays in the address it came in."""

from __future__ import annotations

from gateway.front.addresses import FileAddress, LinkAddress, OrderAddress, ZipAddress, parse_path
from gateway.front.pages import Action
from gateway.policy.links import link_path
from gateway.policy.model import Deny
from gateway.policy.reasons import Reason
from gateway.services.sessions import Session, Sessions
from gateway.services.sign_ins import HOME

ASKED = "sign-in"
"""`?sign-in` at a link's or an order's address: sign in, and come back to it; `?sign-in=other`: as somebody else."""
ANEW = "other"
FORM_KEY = "key"
SIGN_IN, SIGN_OUT = "/account/sign-in", "/account/sign-out"


def sign_in_at(prefix: str, to: str, *, anew: bool = False) -> str:
    """The address that signs in and returns to the path `to` of ours; `prefix` stands in front of both."""
    if to == HOME:
        return f"{prefix}{SIGN_IN}{f'?{ASKED}={ANEW}' if anew else ''}"
    return f"{prefix}{to}?{ASKED}{f'={ANEW}' if anew else ''}"


def remedy(deny: Deny, path: str, prefix: str, session: Session | None, sessions: Sessions) -> Action | None:
    """The button on a refusal's page; None where signing in would not help."""
    to = _origin(path)
    if deny.reason is Reason.ACCOUNT_REQUIRED:
        return Action("account.sign_in", sign_in_at(prefix, to))
    if deny.reason is Reason.ACCOUNT_OTHER and session is not None:
        fields = {FORM_KEY: sessions.form_key(session), "to": to}
        return Action("account.elsewhere", f"{prefix}{SIGN_OUT}", fields)
    return None


def _origin(path: str) -> str:
    """The page that somebody returns to who was refused there: a file's is its link's."""
    match parse_path(path):
        case LinkAddress(token) | FileAddress(token) | ZipAddress(token):
            return link_path("", token)
        case OrderAddress():
            return path
    return HOME
