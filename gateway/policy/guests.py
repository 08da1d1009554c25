"""What plans ask of guests (`bind_ip`, `new_device`) and cannot be met, for those who write plans and make links."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from gateway.policy.model import Plan

NEEDED = ("orders", "mail")
"""The sections of the settings that they rest on."""


def unmet(plan: Plan, lacking: Collection[str]) -> Iterator[tuple[str, str]]:
    """The plan's keys that cannot be met, each with what comes of it. `lacking`: what of NEEDED the settings lack."""
    if plan.bind_ip and "orders" in lacking:
        yield "bind_ip", "rests on orders, which the settings have not: its links are refused everywhere"
    if plan.new_device and lacking:
        missing = " and ".join(name for name in NEEDED if name in lacking)
        yield "new_device", f"rests on {missing}, which the settings have not: nobody is sent a code"


def unmet_by(plan: Plan, order_id: str | None) -> Iterator[str]:
    """What is to be known of a link of this plan and order, beside what the settings lack."""
    if plan.bind_ip and order_id is None:
        yield f"plan {plan.name} has bind_ip: order, and this link has no order: it is refused everywhere"
    elif plan.bind_ip:
        yield (
            f"plan {plan.name} has bind_ip: order: this link is refused everywhere unless the order book has the "
            "order, and its shop told where it came from"
        )
    if plan.new_device and order_id is None:
        yield f"plan {plan.name} has new_device: code, and this link has no order: nobody is sent a code for it"
