"""The page that a shop's developer copies out of docs/accounts.md is taken for what it says."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from gateway.account_ports import SignIn
from gateway.services.handover import Handover, Shop

TEXT = Path("docs/accounts.md").read_text(encoding="utf-8")
SECRET = "0123456789" * 4
STATE = "s" * 24


class Once:
    async def first(self, name: str, begun: str, seconds: int) -> str:
        return begun


@pytest.fixture
def hand_over(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], str]:
    found = re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert found is not None
    monkeypatch.setenv("HANDOVER_SECRET", SECRET)
    names: dict[str, Any] = {}
    exec(found[1], names)  # noqa: S102  our own documentation
    taken: Callable[[str, str], str] = names["hand_over"]
    return taken


async def test_the_python_example_hands_a_customer_over(hand_over: Callable[[str, str], str]) -> None:
    handover = Handover(Shop("https://x.example", "https://y.example", "shop.example.com", "HS256", SECRET), Once())
    asked = dict(parse_qsl(urlsplit(hand_over("c-7", STATE)).query))
    assert await handover.customer(asked, SignIn(STATE, "", "", "/account", 0)) == "c-7"
