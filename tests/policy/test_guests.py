from __future__ import annotations

import pytest

from gateway.policy.guests import unmet, unmet_by
from gateway.policy.model import Plan


@pytest.mark.parametrize(
    ("plan", "lacking", "keys"),
    [
        (Plan("p"), ("orders", "mail"), []),
        (Plan("p", bind_ip=True, new_device=True), (), []),
        (Plan("p", bind_ip=True, new_device=True), ("mail",), ["new_device"]),
        (Plan("p", bind_ip=True, new_device=True), ("orders",), ["bind_ip", "new_device"]),
        (Plan("p", bind_ip=True), ("mail",), []),
    ],
)
def test_what_the_settings_lack(plan: Plan, lacking: tuple[str, ...], keys: list[str]) -> None:
    assert [name for name, _ in unmet(plan, lacking)] == keys


def test_what_a_link_lacks() -> None:
    plan = Plan("p", bind_ip=True, new_device=True)
    assert [why.partition(": ")[0] for why in unmet_by(plan, None)] == ["plan p has bind_ip", "plan p has new_device"]
    (why,) = unmet_by(plan, "10001")
    assert "unless the order book has the order" in why
    assert list(unmet_by(Plan("p", new_device=True), "10001")) == list(unmet_by(Plan("p"), None)) == []
