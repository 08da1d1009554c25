"""Small changes to a rules file's text that leave all else as it was written, comments and spaces included.

Places are those of the file's tree. What comes out must be read again: the text alone does not say what it means.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from gateway.document import Node
from gateway.errors import GatewayError

Lines = Sequence[str]


class Edits:
    """Of one text and its tree. Lines are counted from 1, as in a Node's source."""

    def __init__(self, text: str, tree: Node) -> None:
        self._end = "\r\n" if "\r\n" in text else "\n"
        self._lines = text.split(self._end)
        self._tree = tree
        self._above: dict[int, list[str]] = {}
        self._spans: dict[int, list[tuple[int, int, str]]] = {}
        if self._letter(_member(tree, "version").named) != "v":
            raise GatewayError("the rules file is one in braces ({…}); write one `key: value` a line, then try again")

    def text(self) -> str:
        """With all changes."""
        told: list[str] = []
        for number, line in enumerate(self._lines, 1):
            told += self._above.get(number, ())
            for start, stop, new in sorted(self._spans.get(number, ()), reverse=True):
                line = line[:start] + new + line[stop:]  # noqa: PLW2901  # it is the line that changes
            told.append(line)
        told += self._above.get(len(self._lines) + 1, ())
        return self._end.join(told).removesuffix(self._end) + self._end

    def write_out_aliases(self) -> None:
        """Each plan that is an alias of another one, as what it means: so that the other can change alone."""
        for plan in _plans(self._tree).values():
            if self._letter(plan) == "*" and isinstance(plan.value, dict):
                written = ", ".join(f"{name}: {child.value}" for name, child in plan.value.items())
                self._put(plan, plan.width, f"{{{written}}}")

    def remark(self, plan: str, comments: Lines) -> None:
        """Comments above a plan."""
        label = _plans(self._tree)[plan].named
        self._add(_line(label), label.column - 1, comments)

    def set_limits(self, plan: str, limits: Mapping[str, str], comments: Mapping[str, Lines]) -> None:
        """These limits of a plan, each with its comments above its line."""
        node = _plans(self._tree)[plan]
        members = node.value if isinstance(node.value, dict) else {}
        is_flow = self._letter(node) in ("{", "&")
        new: list[str] = []
        for name, text in limits.items():
            child = members.get(name)
            at = node.named if is_flow or child is None else child.named
            if child is not None:
                self._put(child, child.width, text)
            elif is_flow:
                new.append(f"{name}: {text}")
            if is_flow or child is not None:
                self._add(_line(at), at.column - 1, comments[name])
            else:
                # In front of the plan's first limit, whose end is known, unlike that of its last one.
                first = next(iter(members.values())).named
                self._add(_line(first), first.column - 1, comments[name])
                self._above[_line(first)].append(f"{' ' * (first.column - 1)}{name}: {text}")
        if new:
            last = max(members.values(), key=lambda each: (_line(each), each.column), default=None)
            if last is None:
                brace = self._lines[_line(node) - 1].index("{", node.column - 1)
                self._insert(_line(node), brace + 1, ", ".join(new))
            else:
                self._insert(_line(last), last.column - 1 + last.width, ", " + ", ".join(new))

    def add_default_plan(self, plan: str, limits: Mapping[str, str], comments: Lines) -> None:
        """A plan for links that name none."""
        written = f"{plan}: {{{', '.join(f'{name}: {text}' for name, text in limits.items())}}}"
        plans = _plans(self._tree)
        before = self._in_front(self._top("otherwise"))
        if not plans:
            self._add(before, 0, comments)
            self._above[before] += ["plans:", f"  {written}"]
        elif self._letter(_member(self._tree, "plans")) == "{":
            node = _member(self._tree, "plans")
            self._add(self._top("plans"), 0, comments)
            self._insert(_line(node), node.column, f"{written}, ")
        else:
            first = next(iter(plans.values())).named
            self._add(_line(first), first.column - 1, comments)
            self._above[_line(first)].append(f"{' ' * (first.column - 1)}{written}")
        self._above.setdefault(before, []).append(f"default_plan: {plan}")

    def add_rules(self, rules: Iterable[tuple[str, Lines]]) -> None:
        """Rules behind all others, each a flow mapping, with comments above."""
        node = _member(self._tree, "rules") if "rules" in _members(self._tree) else None
        if node is None:
            before, indent = self._in_front(self._top("otherwise")), 2
            self._above.setdefault(before, []).append("rules:")
        elif self._letter(node) == "-":
            before, indent = self._behind("rules"), node.column - 1
        else:
            raise GatewayError("the rules stand in brackets ([…]); write one `- name: …` a line, then try again")
        for written, comments in rules:
            self._add(before, indent, comments)
            self._above[before].append(f"{' ' * indent}- {written}")

    def _behind(self, key: str) -> int:
        """The line in front of which this top-level section ends; what is remarked on the next key belongs to that."""
        start = self._top(key)
        later = [_line(child.named) for child in _members(self._tree).values() if _line(child.named) > start]
        return self._in_front(min(later, default=len(self._lines) + 1), start + 1)

    def _in_front(self, line: int, first: int = 1) -> int:
        """This line, or the one where the remarks above it begin, and what is empty above them."""
        while line > first and self._is_remark(self._lines[line - 2]):
            line -= 1
        return line

    @staticmethod
    def _is_remark(line: str) -> bool:
        return not line.strip() or line.startswith(("#", "..."))

    def _top(self, key: str) -> int:
        return _line(_member(self._tree, key).named)

    def _letter(self, node: Node) -> str:
        line = self._lines[_line(node) - 1]
        return line[node.column - 1 : node.column]

    def _add(self, line: int, indent: int, comments: Lines) -> None:
        self._above.setdefault(line, []).extend(f"{' ' * indent}# {comment}" for comment in comments)

    def _put(self, node: Node, width: int, text: str) -> None:
        start = node.column - 1
        self._spans.setdefault(_line(node), []).append((start, start + width, text))

    def _insert(self, line: int, at: int, text: str) -> None:
        self._spans.setdefault(line, []).append((at, at, text))


def _plans(tree: Node) -> Mapping[str, Node]:
    members = _members(tree)
    return _members(members["plans"]) if "plans" in members else {}


def _members(node: Node) -> Mapping[str, Node]:
    return node.value if isinstance(node.value, dict) else {}


def _member(node: Node, name: str) -> Node:
    return _members(node)[name]


def _line(node: Node) -> int:
    return int(node.source.rpartition(":")[2])
