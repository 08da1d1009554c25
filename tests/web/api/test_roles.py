"""Who may make which call: every role on every call of the table."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gateway.web.api.calls import CALLS
from gateway.web.api.users import Role, User, identify

Ask = Callable[..., Awaitable[Any]]

ROLES: tuple[Role, ...] = ("read-only", "support", "ops")
LEAST: dict[str, Role] = {
    "link.create": "ops",
    "link.list": "read-only",
    "link.show": "read-only",
    "link.revoke": "ops",
    "link.extend": "support",
    "order.search": "read-only",
    "order.show": "read-only",
    "order.events": "read-only",
    "order.resend": "support",
    "order.revoke": "ops",
    "order.restore": "ops",
    "order.grant": "ops",
    "order.erase": "ops",
    "order.extend": "support",
    "order.email": "support",
    "gateway.freeze": "ops",
    "gateway.thaw": "ops",
}


def test_every_call_is_in_the_table() -> None:
    assert {call.name: call.role for call in CALLS} == LEAST


@pytest.mark.parametrize("role", ROLES)
async def test_who_may_do_what(role: Role, ask: Ask, acted: Callable[[], Awaitable[list[dict[str, str]]]]) -> None:
    refused = []
    for call in CALLS:
        path = call.path.format(token_id="none", order_id="none")
        query = {"link.list": "?order=none", "order.search": "?q=none"}.get(call.name, "")
        answer = await ask(role, call.method, path + query, dict(call.example) if call.takes_body else None)
        allowed = ROLES.index(role) >= ROLES.index(LEAST[call.name])
        assert (call.name, answer.status == 403) == (call.name, not allowed)
        if not allowed:
            assert answer.body["reason"] == "role.not_enough"
            refused.append(call.name)
    told = [each["staff.action"] for each in await acted() if each["http.response.status_code"] == "403"]
    assert told == refused


def test_of_a_header_nothing_but_the_whole_token_counts() -> None:
    users = (User("a", "ops", "first"), User("b", "read-only", "second"))
    names = {
        given: found.name if (found := identify(users, given)) else None
        for given in (
            "Bearer first",
            "bearer second",
            "Bearer firs",
            "Basic first",
            "first",
            "",
            "Bearer ",
            "Bearer \udcff",
        )
    }
    assert names == {
        "Bearer first": "a",
        "bearer second": "b",
        **dict.fromkeys(("Bearer firs", "Basic first", "first", "", "Bearer ", "Bearer \udcff")),
    }
