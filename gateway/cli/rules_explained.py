"""What `gateway rules explain` says, for people and as a document."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.cli.output import utc
from gateway.cli.rules_subject import Subject
from gateway.policy.given import NOWHERE, written
from gateway.policy.limits import BY_NAME
from gateway.policy.model import Deny
from gateway.policy.reasons import Reason
from gateway.policy.ruleset import OTHERWISE, Rule, RuleSet
from gateway.policy.trace import GATES, InForce, Step, Trace

WIDTH = 100
_PLAIN = re.compile(r"(?!(null|Null|NULL)$)[A-Za-z0-9_./+][A-Za-z0-9_./+*:-]*")
"""What YAML reads as this text without quotes: no alias, no null."""
_OF_RULES = frozenset(
    reason.text
    for reason in (
        *(Reason.RULE_DENIED, Reason.ACCOUNT_REQUIRED, Reason.VIEW_NOT_ALLOWED, Reason.TOKEN_CLAIMS),
        *(Reason.LIMIT_DOWNLOADS, Reason.LIMIT_NETWORKS, Reason.LIMIT_DEVICES, Reason.LIMIT_CONCURRENT),
        Reason.LIMIT_UNKEPT,
    )
)
"""What other rules could have decided otherwise; and `token.expired`, where a plan ends the link."""
_GUESTS = {
    "bind_ip": "only in the network that was ordered from",
    "new_device": "a device after the first needs a code",
}
_UNTIL_RULES = GATES.index("rules")


@dataclass(frozen=True, slots=True)
class Explained:
    """One request, and how it is decided by the rules of this path."""

    path: Path
    rules: RuleSet
    subject: Subject
    trace: Trace

    @property
    def refusal(self) -> Deny | None:
        """Why the rules and what is known beside them refuse it, the ledger too; None where it is allowed."""
        decision = self.trace.decision
        if isinstance(decision, Deny):
            return decision
        reason = self._used_up()
        return None if reason is None else Deny(reason)

    @property
    def unchanged(self) -> str | None:
        """Why the recorded request was refused, if by nothing that a rules file changes."""
        then = self.subject.then or {}
        reason = then.get("reason")
        # An order's end is seen before any rule is asked, and a link's end after them.
        if reason in _OF_RULES or (reason == Reason.TOKEN_EXPIRED.text and "rule" in then):
            return None
        return reason if then.get("type") == "download.denied" else None

    def document(self) -> dict[str, object]:
        """All of it as JSON has it."""
        refusal, rule = self.refusal, self.trace.decision.rule
        document: dict[str, object] = {
            "outcome": "deny" if refusal is not None and self.trace.outcome == "allow" else self.trace.outcome,
            "reason": None if refusal is None else refusal.reason.text,
            "rule": rule,
            "source": self._source(rule) or None,
            "message": None if refusal is None else refusal.message,
            "would_deny": list(self.trace.decision.would_deny),
            "rules": {"file": str(self.path), "version": self.rules.version},
            "given": written(self.subject.given),
            "steps": [_step_document(step) for step in self.trace.steps],
            "plan": None if self.trace.plan is None else self.trace.plan.name or None,
            "limits": [self._limit_document(each) for each in self.trace.limits],
            "guests": [] if self.trace.plan is None else list(self.trace.plan.guests),
        }
        if self._is_of_link():
            document["checks"] = dict(self._checks())
        if self.subject.used is not None:
            document["expires"] = utc(self.trace.expires_at)
        if self.subject.then is not None:
            document["then"] = dict(self.subject.then)
            document["unchanged"] = self.unchanged is not None
        if self.unchanged is not None:
            document |= {"outcome": "deny", "reason": self.unchanged, "rule": None, "source": None, "message": None}
        return document

    def lines(self) -> Iterator[str]:
        """All of it for people, in lines of at most WIDTH columns where words allow."""
        if self.subject.then is not None:
            yield from _wrapped("then", self._then())
            yield from _wrapped("now", self._now())
        else:
            yield from _wrapped("", self._headline())
        yield from _given_lines([f"{key}: {_yaml(text)}" for key, text in written(self.subject.given).items()])
        if self._is_of_link():
            yield from _wrapped("checks", ", ".join(f"{name} {state}" for name, state in self._checks()))
        yield ""
        yield from self._rule_lines()
        yield ""
        yield from self._limit_lines()

    def _is_of_link(self) -> bool:
        return self.subject.used is not None and self.subject.then is None

    def _now(self) -> str:
        if self.unchanged is None:
            return f"the file says {self._headline()}"
        return f"unchanged: {self.unchanged}, which no rule changes; the file's rules alone say {self._headline()}"

    def _headline(self) -> str:
        refusal, rule = self.refusal, self.trace.decision.rule
        parts = ["allow" if refusal is None else f"{self._word()} {refusal.reason.text}"]
        # Of what its door cannot keep no rule is the reason, though one has let it through.
        blamed = isinstance(self.trace.decision, Deny) and self.trace.refused_at != "door"
        if rule is not None and (refusal is None or blamed):
            parts.append(f"by {self._place(rule)}")
        elif self.trace.outcome == "require_account":
            parts.append("by the link itself")
        text = " ".join(parts)
        if refusal is None and self.subject.then is not None:
            # What was used up at that time is not known any more.
            text += ", within its limits"
        if refusal is not None and refusal.reason is Reason.TOKEN_IP and self.subject.given.facts.address == NOWHERE:
            return f"{text}: the link is for some networks only; name the client's address with --ip"
        return text if refusal is None or refusal.message is None else f"{text}: {refusal.message}"

    def _word(self) -> str:
        return self.trace.outcome if self.trace.outcome != "allow" else "deny"

    def _then(self) -> str:
        then = self.subject.then or {}
        word = "allow" if then.get("type") == "download.allowed" else "deny"
        rule, reason = then.get("rule"), then.get("reason")
        text = " ".join(part for part in (word, reason, f"by {rule}" if rule else None) if part)
        limits = f", limits {then['limits']}" if "limits" in then else ""
        return f"{text} at {then.get('time')}, rules.version {then.get('rules.version', 'none')}{limits}"

    def _checks(self) -> Iterator[tuple[str, str]]:
        """Each gate on the way, and how it went."""
        refused = len(GATES) if self.trace.refused_at is None else GATES.index(self.trace.refused_at)
        for place, name in enumerate(GATES):
            if name == "order" and self.subject.holding is None and place != refused:
                yield name, "not asked"
            else:
                yield name, "ok" if place < refused else "refused" if place == refused else "not asked"
        after = "not asked" if self.trace.refused_at is not None else "ok" if self._used_up() is None else "refused"
        yield "limits", after

    def _rule_lines(self) -> Iterator[str]:
        yield f"rules of {self.path} as the file is now, version {self.rules.version}"
        if not self.trace.steps and (self.trace.refused_at in GATES[:_UNTIL_RULES]):
            yield "  were not asked"
            return
        for step in self.trace.steps:
            yield from _wrapped(f"  {_verb(step)}", f"{self._place(step.rule.name)}: {_why(step)}", 12)
        if not any(step.decides for step in self.trace.steps):
            yield from _wrapped("  allows" if self.rules.otherwise else "  denies", OTHERWISE, 12)

    def _limit_lines(self) -> Iterator[str]:
        plan, claims = self.trace.plan, self.subject.given.facts.claims
        if plan is None:
            yield f"plan {claims.plan}: the rules file has no such plan"
            return
        if plan.name:
            yield f"plan {plan.name}{'' if claims.plan else ', the default one'}"
        else:
            yield "no plan"
        width = max((len(each.source) for each in self.trace.limits), default=0)
        for each in self.trace.limits:
            value = BY_NAME[each.name].write(each.value)
            state = self._used(each) if each.state == "kept" else self._at_door(each)
            yield f"  {each.name:<18} {value:<8} {each.source:<{width}}  {state}".rstrip()
        if not self.trace.limits:
            yield "  no limits"
        for name in plan.guests:
            yield f"  {name:<18} {_GUESTS[name]}"
        if self.subject.used is not None:
            yield f"  {'expires':<18} {utc(self.trace.expires_at)}"

    def _place(self, rule: str) -> str:
        """The rule, and its line."""
        source = self._source(rule)
        return f"{rule} ({source.rpartition('/')[2]})" if source else rule

    def _source(self, name: str | None) -> str:
        return next((rule.source for rule in self.rules.rules if rule.name == name), "")

    def _limit_document(self, each: InForce) -> dict[str, object]:
        return {
            "name": each.name,
            "limit": each.value,
            "from": each.source,
            "used": self._count(each.name),
            "state": each.state,
        }

    def _at_door(self, each: InForce) -> str:
        front = self.subject.given.front
        if each.state == "waived":
            return f"not kept: doors.{front}.waive in the settings gives it up"
        return f"the door {front} cannot keep it"

    def _used(self, each: InForce) -> str:
        shown, count = self.subject.used, self._count(each.name)
        if shown is None:
            return ""
        if each.name == "valid_after_first":
            ends = None if shown.taken.first_ms is None else utc(shown.taken.first_ms / 1000 + each.value)
            return "no download yet" if ends is None else f"until {ends}"
        if count is None:
            return ""
        text = f"{count} {'now' if each.name == 'concurrent' else 'used'}"
        return f"{text}; no new one may download" if each.name in _DISTINCT and count >= each.value else text

    def _count(self, name: str) -> int | None:
        shown = self.subject.used
        if shown is None:
            return None
        counts = {
            "downloads": shown.used.get(self.subject.given.facts.file.identity, 0),
            "networks": shown.taken.networks,
            "devices": shown.taken.devices,
            "concurrent": shown.taken.live,
        }
        return counts.get(name)

    def _used_up(self) -> Reason | None:
        """What the ledger refuses a new download for, whoever begins it."""
        shown = self.subject.used
        if shown is None:
            return None
        ends, now = self.trace.expires_at, self.subject.given.facts.now
        if self.subject.then is not None:
            return Reason.TOKEN_EXPIRED if ends <= now and not _continued(self.subject.then) else None
        limits = {each.name: each.value for each in self.trace.limits if each.state == "kept"}
        if (after := limits.get("valid_after_first")) is not None and shown.taken.first_ms is not None:
            ends = min(ends, shown.taken.first_ms // 1000 + after)
        if ends <= now:
            return Reason.TOKEN_EXPIRED
        for name, reason in _REFUSING.items():
            count = self._count(name)
            if name in limits and count is not None and count >= limits[name]:
                return reason
        return None


_REFUSING = {"downloads": Reason.LIMIT_DOWNLOADS, "concurrent": Reason.LIMIT_CONCURRENT}
_DISTINCT = ("networks", "devices")
_VERBS = {"allow": "allows", "deny": "denies", "require_account": "account", "limit": "limits"}


def _verb(step: Step) -> str:
    if not step.matches:
        return "passed"
    return "observes" if step.rule.observe else _VERBS[step.rule.then]


def _why(step: Step) -> str:
    if step.failed:
        return f"{step.failed} – {step.seen}"
    return f"{_action(step.rule)}{step.seen}"


def _action(rule: Rule) -> str:
    """What it does, where its verb does not say that."""
    if rule.then == "limit":
        numbers = ", ".join(f"{name} {BY_NAME[name].write(value)}" for name, value in rule.limits.values)
        return f"{'would limit ' if rule.observe else ''}{numbers} – "
    return f"would {rule.then} – " if rule.observe else ""


def _step_document(step: Step) -> dict[str, object]:
    return {
        "rule": step.rule.name,
        "source": step.rule.source,
        "then": step.rule.then,
        "observe": step.rule.observe,
        "matches": step.matches,
        "failed": step.failed or None,
        "seen": step.seen or None,
    }


def _yaml(text: str | list[str]) -> str:
    """As it can be written in a test's `given`."""
    if isinstance(text, list):
        return f"[{', '.join(map(_yaml, text))}]"
    return text if _PLAIN.fullmatch(text) and ":" not in text[-1:] else json.dumps(text, ensure_ascii=False)


def _continued(then: Mapping[str, str]) -> bool:
    """Whether it went on with a download that had begun, which may finish after the link's end."""
    return then.get("transfer.id", "") not in ("", then.get("request.id"))


def _given_lines(pairs: Iterable[str]) -> Iterator[str]:
    """All pairs behind their head, each of them whole, for a line that is broken within one is no test's `given`."""
    line = f"{'given':<8}{{"
    for number, pair in enumerate(pairs):
        if number:
            line += ","
            if len(line) + len(pair) + 2 > WIDTH:
                yield line
                line = " " * 8
            else:
                line += " "
        line += pair
    yield f"{line}}}"


def _wrapped(head: str, text: str, indent: int = 8) -> Iterator[str]:
    """A paragraph behind its head, hanging."""
    start = f"{head:<{indent}}" if head else ""
    yield from textwrap.wrap(
        text,
        WIDTH,
        initial_indent=start,
        subsequent_indent=" " * (indent if head else 0),
        break_long_words=False,
        break_on_hyphens=False,
    ) or [start.rstrip()]
