"""Requests that come out otherwise, gathered for people: whose they are, which way they flip, and what flips them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gateway.policy.replay_changes import Change


@dataclass(slots=True)
class Group:
    """Flips of one order and customer (of one link where it has neither), with one cause. `example` is the first."""

    example: Change
    requests: int = 0

    @property
    def buyer(self) -> str:
        """`order 10001, customer c-17`, or the link's id."""
        fields = self.example.fields
        named = (("order", fields.get("order.id")), ("customer", fields.get("customer.id")))
        return ", ".join(f"{word} {name}" for word, name in named if name) or f"link {fields.get('token.id', '')}"

    def document(self) -> dict[str, object]:
        """For programs."""
        change = self.example
        fields = change.fields
        return {
            "now": change.kind,
            "order": fields.get("order.id"),
            "customer": fields.get("customer.id"),
            "requests": self.requests,
            "cause": change.cause,
            "before": {"reason": change.before.reason or None, "rule": change.before.rule or None},
            "after": {"reason": change.after.reason or None, "rule": change.after.rule or None},
            "example": {
                "id": fields.get("id"),
                "time": fields.get("time"),
                "link": fields.get("token.id"),
                "file": fields.get("file.key"),
                "address": fields.get("client.address"),
                "country": fields.get("geo.country.iso_code"),
            },
        }


class Flips:
    """All of one replay."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, ...], Group] = {}

    def add(self, changes: Iterable[Change]) -> None:
        """Refusals for another reason are none."""
        for change in changes:
            if change.flips:
                group = self._groups.setdefault(_key(change), Group(change))
                group.requests += 1

    def now(self, kind: str) -> Sequence[Group]:
        """Those `refused` or `allowed` now, those with the most requests first."""
        found = [group for group in self._groups.values() if group.example.kind == kind]
        return sorted(found, key=lambda group: (-group.requests, group.example.fields.get("time", "")))


def _key(change: Change) -> tuple[str, ...]:
    fields = change.fields
    order, customer = fields.get("order.id", ""), fields.get("customer.id", "")
    link = "" if order or customer else fields.get("token.id", "")
    return (change.kind, order, customer, link, change.cause)
