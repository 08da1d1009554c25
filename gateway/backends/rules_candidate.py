"""A rules file as a candidate for replay: its text as it was written, with suggestions and their evidence in it."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

from gateway.backends.rules_edit import Edits
from gateway.backends.rules_file import examine
from gateway.document import Node
from gateway.errors import GatewayError, SettingsError
from gateway.policy.model import Plan
from gateway.policy.ruleset import RuleSet
from gateway.policy.suggest import NO_PLAN, Block, Number, Suggested, limits_with
from gateway.policy.suggest_words import change, evidence

NOTHING = b"version: 1\notherwise: allow\n"
"""What a gateway without rules does, as a file."""


@dataclass(frozen=True, slots=True)
class Remarks:
    """What stands beside a suggestion: the day, and how far back was looked, in seconds."""

    day: date
    since: int


class CurrentRules:
    """The rules file as it is; without a path there is none. Raises SettingsError as its load would."""

    def __init__(self, path: Path | None, databases: Collection[str] | None) -> None:
        self._path = path or Path("rules.yaml")
        self._databases = databases
        texts = None if path is not None else {self._path: NOTHING}
        seen = examine(self._path, databases, texts)
        if seen.rules is None or seen.tree is None:
            raise SettingsError("\n".join(map(str, seen.mistakes)))
        self.rules: RuleSet = seen.rules
        self._tree: Node = seen.tree
        self._texts = seen.texts

    def is_at(self, path: Path) -> bool:
        """Whether this is the file itself."""
        return path.exists() and self._path.exists() and path.samefile(self._path)

    @property
    def folder(self) -> Path | None:
        """From which it names its list files; None: it names none."""
        return self._path.parent if len(self._texts) > 1 else None

    def changed(self, suggested: Suggested, remarks: Remarks) -> tuple[str, RuleSet]:
        """The candidate's text, and what it means. Raises GatewayError where the text is written in a way that cannot
        be changed alone.
        """
        edits = Edits(self._texts[self._path].decode("utf-8-sig"), self._tree)
        # First, since what is put in front of the same line is put there in turn.
        if suggested.blocks:
            edits.add_rules((_rule(each, remarks), [_comment(each, remarks)]) for each in suggested.blocks)
        by_plan: dict[str, list[Number]] = {}
        for number in suggested.numbers:
            by_plan.setdefault(number.plan, []).append(number)
        if by_plan:
            edits.write_out_aliases()
        for plan, numbers in by_plan.items():
            self._set(edits, plan, numbers, remarks)
        for plan, count in suggested.unjudged.items():
            if plan:
                edits.remark(plan, [f"nothing suggested {remarks.day}: only {count:,} completed downloads"])
        text = edits.text()
        return text, self._read(text, suggested)

    def _set(self, edits: Edits, plan: str, numbers: Sequence[Number], remarks: Remarks) -> None:
        limits = {each.limit: each.written for each in numbers}
        comments = {each.limit: [_comment(each, remarks)] for each in numbers}
        if plan in self.rules.plans:
            edits.set_limits(plan, limits, comments)
        else:
            edits.add_default_plan(plan, limits, [line for lines in comments.values() for line in lines])

    def _read(self, text: str, suggested: Suggested) -> RuleSet:
        seen = examine(self._path, self._databases, {**self._texts, self._path: text.encode()})
        rules = seen.rules
        if rules is None or not self._is_meant(rules, suggested):
            raise GatewayError(
                f"{self._path} is written in a way that cannot be changed by a program alone; write each plan and rule "
                "on lines of its own, without anchors and aliases, then try again"
            )
        return rules

    def _is_meant(self, rules: RuleSet, suggested: Suggested) -> bool:
        own = dict(self.rules.plans)
        default = self.rules.default_plan
        if any(each.plan == NO_PLAN for each in suggested.numbers) and NO_PLAN not in own:
            own[NO_PLAN], default = Plan(NO_PLAN), NO_PLAN
        plans = {name: replace(plan, limits=limits_with(plan, suggested.numbers)) for name, plan in own.items()}
        count = len(self.rules.rules)
        return (
            rules.plans == plans
            and rules.rules[:count] == self.rules.rules
            and [rule.name for rule in rules.rules[count:] if rule.observe] == [each.name for each in suggested.blocks]
            and (rules.default_plan, rules.otherwise) == (default, self.rules.otherwise)
        )


def _comment(suggestion: Number | Block, remarks: Remarks) -> str:
    said = f"{change(suggestion)}; " if isinstance(suggestion, Number) else ""
    return f"suggested {remarks.day}: {said}{evidence(suggestion, remarks.since)}"


def _rule(block: Block, remarks: Remarks) -> str:
    members: Mapping[str, str] = {
        "name": block.name,
        "mode": "observe",
        "since": str(remarks.day),
        "when": f"{{{block.condition}: {json.dumps(block.value) if block.condition == 'user_agent' else block.value}}}",
        "then": "deny",
    }
    return f"{{{', '.join(f'{name}: {text}' for name, text in members.items())}}}"
