"""Tests of rules, as people write them: what is given of a request, and what is expected of the rules.

They rest on nothing but the rules: the same today and tomorrow, with any geo database and without Redis.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from gateway.document import Node, join, short
from gateway.policy.conditions.words import label
from gateway.policy.given import Given, GivenReader, nothing_known
from gateway.policy.limits import BY_NAME, Limit
from gateway.policy.model import Allow, Decision, Deny, Limits
from gateway.policy.reasons import Reason
from gateway.policy.rules_reader import MESSAGE_MAX, MISTAKES_MAX, NAME_MAX, read_limits
from gateway.policy.ruleset import OTHERWISE, RuleSet
from gateway.policy.trace import InForce, Trace, decided, outcome_of, rules_alone, trace
from gateway.policy.tree_reader import Section, TreeReader, unknown

T = TypeVar("T")

OUTCOMES = ("allow", "deny", "require_account")
KEYS = ("name", "given", "expect", "by", "limits", "would_deny", "message")
_EXAMPLE = "{name: …, given: {country: IR}, expect: deny, by: embargo}"


@dataclass(frozen=True, slots=True)
class RulesTest:
    """One test: where it stands, what is given, and what is expected; None: anything."""

    node: Node
    key: str
    name: str
    given: Given
    expect: str
    by: str | None = None
    limits: Limits | None = None
    would_deny: tuple[str, ...] | None = None
    message: str | None = None

    @property
    def shown(self) -> str:
        """Its name in quotes, behind where in the file it is."""
        return f'{self.key}: "{self.name}"' if self.name else self.key


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one test. `wrong`: what was expected and what is, with why; empty where the test passed."""

    test: RulesTest
    wrong: str


def read_tests(tree: Node, rules: RuleSet, reader: GivenReader) -> tuple[RulesTest, ...]:
    """The tests of a whole file. Where the reader has mistakes afterwards, they must not be used."""
    if not isinstance(tree.value, list) or not tree.value:
        state = "is no list" if tree.value else "is empty"
        reader.mistakes.add(tree, "", f"{state}; write one `- {_EXAMPLE}` a test, or remove the file")
        return ()
    names = frozenset((OTHERWISE, *(rule.name for rule in rules.rules)))
    found = []
    for index, child in enumerate(tree.value):
        key = join("tests", index)
        if reader.gives_up(child, key, MISTAKES_MAX):
            break
        found.append(_test(child, key, names, reader))
    return tuple(found)


def run(tests: Sequence[RulesTest], rules: RuleSet) -> list[Result]:
    """What these rules make of the tests, in their order; after MISTAKES_MAX that fail, the last one says so."""
    found: list[Result] = []
    failed = 0
    for number, test in enumerate(tests):
        if failed == MISTAKES_MAX:
            left = f"{len(tests) - number:,} not run, from this one on"
            found.append(Result(test, f"{left}; correct the others first"))
            break
        found.append(_result(test, rules))
        failed += bool(found[-1].wrong)
    return found


def unreached(results: Iterable[Result], rules: RuleSet) -> tuple[str, ...]:
    """The rules, and `otherwise`, that no test reached: neither decided by them, nor matched on the way."""
    reached: set[str] = set()
    for result in results:
        found = _traced(result.test, rules)
        reached.update(step.rule.name for step in found.steps if step.matches)
        if _was_judged(found) and not any(step.decides for step in found.steps):
            reached.add(OTHERWISE)
    return tuple(name for name in (*(rule.name for rule in rules.rules), OTHERWISE) if name not in reached)


def _test(node: Node, key: str, names: Collection[str], reader: GivenReader) -> RulesTest:
    if not isinstance(node.value, dict):
        reader.mistakes.add(node, key, f"is no test; write {_EXAMPLE}")
        return RulesTest(node, key, "", nothing_known(), "")
    test = reader.section(node, key, KEYS, "key of a test")
    given = reader.required(test, "given", "say of which request, such as given: {country: PL}")
    expect = reader.required(test, "expect", f"write {' or '.join(OUTCOMES)}")
    by = _member(test, "by", reader.text, "name a rule, or otherwise")
    if by is not None and by not in names:
        text = unknown("rule of the rules file", by, names)
        reader.mistakes.add(test.members["by"], join(key, "by"), text)
    return RulesTest(
        node,
        key,
        _label(test, "name", NAME_MAX, reader) or "",
        nothing_known() if given is None else reader.given(given, join(key, "given")),
        reader.choice(expect, join(key, "expect"), OUTCOMES) or "",
        by,
        _limits(test, reader),
        _would_deny(test, names, reader),
        _label(test, "message", MESSAGE_MAX, reader),
    )


def _member(section: Section, name: str, read: Callable[[Node, str, str], T], right: str) -> T | None:
    node = section.members.get(name)
    return None if node is None else read(node, join(section.key, name), right)


def _label(section: Section, name: str, longest: int, reader: TreeReader) -> str | None:
    node = section.members.get(name)
    if node is None:
        return None
    return reader.parsed(node, join(section.key, name), "write a short text", partial(label, longest=longest))


def _limits(section: Section, reader: TreeReader) -> Limits | None:
    node, key = section.members.get("limits"), join(section.key, "limits")
    if node is None:
        return None
    if not isinstance(node.value, dict):
        reader.mistakes.add(node, key, "is no mapping; write {downloads: 5}, or {} for none")
        return None
    return read_limits(node.value, key, BY_NAME, reader)


def _would_deny(section: Section, names: Collection[str], reader: TreeReader) -> tuple[str, ...] | None:
    node, key = section.members.get("would_deny"), join(section.key, "would_deny")
    if node is None:
        return None
    if not isinstance(node.value, list):
        reader.mistakes.add(node, key, "is no list; write [the-rule], or [] for none")
        return None
    found = []
    for index, child in enumerate(node.value):
        text = reader.text(child, join(key, index), "name a rule")
        if text is not None and text not in names:
            reader.mistakes.add(child, join(key, index), unknown("rule of the rules file", text, names))
        found.append(text or "")
    return tuple(found)


def _result(test: RulesTest, rules: RuleSet) -> Result:
    # Most tests pass, and how a decision came about takes many times as long as the decision.
    if _passes(test, decided(test.given, rules_alone(rules, test.given.facts.file))):
        return Result(test, "")
    return Result(test, "; ".join(_differences(test, _traced(test, rules))))


def _traced(test: RulesTest, rules: RuleSet) -> Trace:
    return trace(test.given, rules_alone(rules, test.given.facts.file))


def _passes(test: RulesTest, decision: Decision) -> bool:
    """Whether it certainly does; of limits where nothing is allowed only a trace can tell."""
    return (
        test.expect == outcome_of(decision)
        and test.by in (None, decision.rule)
        and test.would_deny in (None, decision.would_deny)
        and test.message in (None, _message(decision))
        and (test.limits is None or (isinstance(decision, Allow) and test.limits == decision.limits))
    )


def _message(decision: Decision) -> str | None:
    return decision.message if isinstance(decision, Deny) else None


def _differences(test: RulesTest, found: Trace) -> Iterable[str]:
    decision = found.decision
    if test.expect != found.outcome or (test.by is not None and test.by != decision.rule):
        expected = test.expect if test.by is None else f"{test.expect} by {test.by}"
        yield f"expected {expected}, is {_is(found)}"
        if test.by is not None and test.by != decision.rule:
            yield from _why_not(test.by, found)
    if test.limits is not None:
        yield from _other_limits(test.limits, found.limits)
    if test.would_deny is not None and test.would_deny != decision.would_deny:
        yield f"expected would_deny {_names(test.would_deny)}, is {_names(decision.would_deny)}"
    if test.message is not None and test.message != _message(decision):
        yield f"expected message '{short(test.message)}', is {_quoted(_message(decision))}"


def _is(found: Trace) -> str:
    decision = found.decision
    if isinstance(decision, Deny) and decision.reason is Reason.VIEW_NOT_ALLOWED:
        return f"deny, for {f'the plan {decision.plan}' if decision.plan else 'no plan'} has no view"
    if isinstance(decision, Deny) and decision.reason is Reason.LIMIT_UNKEPT:
        names = " and ".join(each.name for each in found.limits if each.state == "unkept")
        return f"deny, for this front door cannot keep {names}"
    if isinstance(decision, Deny) and not _was_judged(found):
        return f"deny, {decision.reason.text}"
    if decision.rule is None:
        return f"{found.outcome} by the link itself"
    source = next((step.rule.source for step in found.steps if step.rule.name == decision.rule), "")
    return f"{found.outcome} by {decision.rule}" + (f" ({source})" if source else "")


def _why_not(rule: str, found: Trace) -> Iterable[str]:
    """Why this rule did not decide."""
    step = next((step for step in found.steps if step.rule.name == rule), None)
    if step is not None and step.failed:
        yield f"{rule} needs {step.failed}, but {step.seen}"
    elif step is None and rule != OTHERWISE and _was_judged(found):
        yield f"{rule} comes later"


def _was_judged(found: Trace) -> bool:
    return found.refused_at in (None, "rules", "account", "view", "door")


def _other_limits(expected: Limits, found: Iterable[InForce]) -> Iterable[str]:
    are = {each.name: each for each in found}
    for name, limit in BY_NAME.items():
        wanted, own = expected.get(name), are.get(name)
        if wanted != (None if own is None else own.value):
            is_now = "there is none" if own is None else f"is {limit.write(own.value)} ({own.source})"
            yield f"expected {'no limit ' if wanted is None else ''}{name}{_of(limit, wanted)}, {is_now}"


def _of(limit: type[Limit], value: int | None) -> str:
    return "" if value is None else f" {limit.write(value)}"


def _quoted(text: str | None) -> str:
    return "none" if text is None else f"'{short(text)}'"


def _names(names: Collection[str]) -> str:
    return ", ".join(names) or "none"
