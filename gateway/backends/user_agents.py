"""What people call a device, from its User-Agent, by the field's own rules (uap-core). It may block."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.policy.purchases import DeviceName

NAME_MAX = 40


def name_devices(agents: Sequence[str]) -> list[DeviceName]:
    """A name for each of them, "" in it where its User-Agent says nothing that is known."""
    # Its rules take a third of a second and some megabytes, and most workers never show a device.
    from ua_parser import parse  # noqa: PLC0415  slow to import

    names = []
    for agent in agents:
        known = parse(agent)
        browser = known.user_agent.family if known.user_agent is not None else ""
        system = known.os.family if known.os is not None else ""
        names.append(DeviceName(browser.removeprefix("Mobile ")[:NAME_MAX], system[:NAME_MAX]))
    return names
