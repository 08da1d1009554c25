"""The description of the API says what the API is: every call, every status, every limit."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from gateway.policy.events import FIELDS, TYPES
from gateway.policy.limits import BY_NAME
from gateway.web.api.asking import NewLimits
from gateway.web.api.calls import CALLS, ROOT
from gateway.web.api.openapi import describe_api

Ask = Callable[..., Awaitable[Any]]
DOCS = Path(__file__).parents[3] / "docs"


def test_every_limit_of_a_link_can_be_asked_for() -> None:
    assert set(NewLimits.model_fields) == set(BY_NAME)


def test_every_call_is_described_and_nothing_else() -> None:
    described = describe_api()
    paths = {(path, method) for path, each in described["paths"].items() for method in each}
    assert paths == {(f"{ROOT}{call.path}", call.method.lower()) for call in CALLS}
    text = json.dumps(described)
    names = set(re.findall(r"#/components/schemas/(\w+)", text))
    assert names <= set(described["components"]["schemas"])
    assert described["openapi"] == "3.1.0"


def test_every_call_is_on_the_page_and_every_act_in_the_list_of_events() -> None:
    page, events = (DOCS / "api.md").read_text(), (DOCS / "events.md").read_text()
    for call in CALLS:
        path = call.path.format(token_id="5f2b8c1d9e0a7b6c5d4e3f21", order_id="main-10001")
        assert f"{ROOT}{path}" in page, call.name
        if call.changes:
            assert f"`{call.name}`" in events
    assert "staff.acted" in TYPES
    assert {"staff.name", "staff.action"} <= set(FIELDS)


async def test_the_description_is_served_to_everybody_with_a_token(ask: Ask) -> None:
    answer = await ask("read-only", "GET", "/openapi.json")
    assert (answer.status, answer.body) == (200, json.loads(json.dumps(describe_api())))
