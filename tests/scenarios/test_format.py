"""What is wrong with a scenario is said; nothing in it is passed over."""

from __future__ import annotations

from pathlib import Path

import pytest
from scenarios.format import Mistake, parse, read
from scenarios.tokens import FORGED

from gateway.policy.fronts import FRONTS
from gateway.policy.reasons import Reason

HERE = Path(__file__).parent
PAGES = {path.name: read(path) for path in sorted(HERE.glob("*.yaml"))}
GOOD = "about: x\nscenarios:\n  - title: t\n    steps:\n      - {ask: GET /, expect: {status: 404}}\n"
UNASKED = {
    "account.other": "needs somebody who has signed in; tests/door/test_accounts.py has it",
    "throttled": "this machine may guess as it likes; tests/door/test_self_service.py has it",
    "order.unpaid": "needs an order book",
    "orders.down": "needs an order book",
    "geo.down": "a database that is broken later stays as it was loaded",
    "origin.changed": "needs a store that changes twice within one request",
    "origin.timeout": "needs a store that goes silent; tests/outside has it",
    "limit.unkept": "what the rows' `needs` are refused with",
    "overload": "needs a full machine; tests/web/test_overload.py has it",
    "draining": "tests/web/test_supervisor.py has it",
}


def test_a_good_one_is_read() -> None:
    [scenario] = parse(GOOD)
    assert scenario.steps[0].expected(FRONTS["http"]).status == 404


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("title: t", "titel: t", "missing required field `title`|unknown field `titel`"),
        ("ask: GET /,", "ask: GET /, rnage: 0-1,", "unknown field `rnage`"),
        ("status: 404", "status: 404, resaon: x", "unknown field `resaon`"),
        ("status: 404", 'status: "404"', "Expected `int`"),
        ("status: 404", "reason: x", "missing required field `status`"),
        ("ask: GET /,", "ask: GET /, do: thaw,", "one of ask, read and do"),
        ("ask: GET /, expect: {status: 404}", "ask: GET /", "nothing of what to expect"),
        ("ask: GET /, expect: {status: 404}", "do: dance", "nothing is known of `do: dance`"),
        ("ask: GET /,", "ask: GET /, at: {mitm: {status: 404}},", "the difference at mitm is none"),
        ("ask: GET /,", "ask: GET /, at: {mtim: {status: 403}},", "no door and no class"),
        ("ask: GET /,", "ask: GET /, at: {mitm: {sttus: 403}},", "unknown field `sttus`"),
        ("title: t", "title: t\n    needs: [speed]", "no limit"),
        ("title: t", "title: t\n    doors: [http]", "only one of doors and because"),
        ("title: t", "title: t\n    doors: [htpp]\n    because: so", "names the door htpp"),
        ("title: t", "title: t\n    steps: []", "(?i)duplicate key"),
    ],
)
def test_mistakes_are_said(old: str, new: str, said: str) -> None:
    with pytest.raises(Exception, match=said):
        parse(GOOD.replace(old, new, 1))


def test_two_of_one_title() -> None:
    with pytest.raises(Mistake, match="two scenarios are called t"):
        parse(GOOD + GOOD.partition("scenarios:\n")[2])


def test_a_key_has_one_size() -> None:
    """Or a door that still knows the other one would answer twice, which only some rows are about."""
    sizes: dict[str, int] = {}
    for name, scenarios in PAGES.items():
        for scenario in scenarios:
            for key, size in scenario.files.items():
                assert sizes.setdefault(key, size) == size, f"{name}: {scenario.title}: {key}"


def test_every_reason_that_a_request_can_meet_is_met() -> None:
    said = {str(step.expect["reason"]) for step in _steps() if step.expect is not None and "reason" in step.expect}
    assert {reason.text for reason in Reason} - said == set(UNASKED)


def test_every_forged_token_is_tried() -> None:
    asked = " ".join(step.ask or "" for step in _steps())
    assert [name for name in FORGED if f"{{forged:{name}}}" not in asked] == []


def _steps():
    return [step for scenarios in PAGES.values() for scenario in scenarios for step in scenario.steps]
