from __future__ import annotations

import pytest

from gateway.backends.user_agents import NAME_MAX, name_devices
from gateway.policy.purchases import DeviceName

FIREFOX = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:132.0) Gecko/20100101 Firefox/132.0"
SAFARI = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/17.5 Mobile/15E148 Safari/604.1"
)


@pytest.mark.parametrize(
    ("agent", "name"),
    [
        (FIREFOX, DeviceName("Firefox", "Windows")),
        (SAFARI, DeviceName("Safari", "iOS")),
        ("curl/8.5.0", DeviceName("curl")),
        ("", DeviceName()),
        ("nothing that is known", DeviceName()),
    ],
)
def test_devices_are_called_as_people_call_them(agent: str, name: DeviceName) -> None:
    assert name_devices([agent]) == [name]


@pytest.mark.parametrize(
    "agent", ["x" * 256, "(" * 256, "Mozilla/5.0 (" + "a;" * 120, "\ufffd\u202e<script>", "A/1 " * 64]
)
def test_what_anybody_may_send_gives_a_short_name(agent: str) -> None:
    [name] = name_devices([agent])
    assert len(name.browser) <= NAME_MAX
    assert len(name.system) <= NAME_MAX


def test_each_has_its_own() -> None:
    assert [each.browser for each in name_devices([SAFARI, FIREFOX])] == ["Safari", "Firefox"]
