"""YAML 1.2 as a document's tree, by events: nothing is constructed, and nothing expands unseen.

Size, depth, aliases and nodes are bounded before anything is built. Mistakes are collected, not raised.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, cast

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.reader import ReaderError

from gateway.document import Mistakes, Node, short_name

_TAB = r"found character '\t'"
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})


@dataclass(frozen=True, slots=True)
class Bounds:
    """How large a file of this kind may be. `what` names its contents in errors; `size` in bytes."""

    what: str
    size: int
    nodes: int
    depth: int = 32
    aliases: int = 100


def read_bounded(path: Path, limit: int) -> bytes:
    """At most one byte more than the limit: enough to see that a file is larger."""
    with path.open("rb") as file:
        return file.read(limit + 1)


def decode(data: bytes, path: Path, mistakes: Mistakes) -> str | None:
    """UTF-8 with or without a byte order mark; None where it is something else, which is then reported."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        mistakes.add(f"{path}:{line}", "", "is not UTF-8; save the file as UTF-8")
        return None


def mapping(tree: Node | None, mistakes: Mistakes) -> Node | None:
    """The tree where it is a mapping, as every file of ours is at its top."""
    if tree is not None and not isinstance(tree.value, dict):
        mistakes.add(tree, "", "is no mapping; write one `name: value` a line")
        return None
    return tree


def parse(
    text: str,
    source: Callable[[int], str],
    mistakes: Mistakes,
    bounds: Bounds,
    *,
    key: str = "",
    shown: Callable[[str], str] | None = None,
) -> Node | None:
    """The tree of a YAML text, None where it is broken; an empty text is an empty mapping.

    `source` names a line; `shown` has the last word on each scalar's text.
    """
    loader = YAML(typ="safe", pure=True)
    try:
        events = cast(Iterable[Event], loader.parse(text))
        return _Builder(source, mistakes, bounds, key, shown).build(events)
    except MarkedYAMLError as error:
        mark = cast("_Mark | None", error.problem_mark or error.context_mark)
        # Quoted words are the file's own text, which may be a secret in the wrong place.
        problem = re.sub(r"'[^'<]{2,}'", "…", " ".join(str(error.problem or error.context).split()))
        if problem.startswith(_TAB):
            problem = "there is a tab; write spaces in its place"
        at = Node(source(mark.line + 1), None, column=mark.column + 1, width=1) if mark else source(1)
        mistakes.add(at, key, f"is not YAML ({problem}); mind indents and quotes")
    except _Refused as error:
        mistakes.add(_node(error.event, None, source), key, str(error))
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        mistakes.add(source(line), key, "is not YAML (a control character, or another that it forbids); remove it")
    except (YAMLError, ValueError, OverflowError):
        # ruamel's scanner lets int() and chr() errors of broken escapes and directives through.
        mistakes.add(source(1), key, "is not YAML; mind special characters, escapes and quotes")
    return None


class _Mark(Protocol):
    line: int
    column: int


class _Refused(Exception):
    def __init__(self, text: str, event: Event) -> None:
        super().__init__(text)
        self.event = event


class _Builder:
    """Builds the tree bottom-up with its own stack, so that depth costs no recursion."""

    def __init__(
        self,
        source: Callable[[int], str],
        mistakes: Mistakes,
        bounds: Bounds,
        key: str,
        shown: Callable[[str], str] | None,
    ) -> None:
        self.source = source
        self.mistakes = mistakes
        self.bounds = bounds
        self.key = key
        self.shown = shown
        self.anchors: dict[str, Node] = {}
        self.aliases = 0
        self.nodes = 0
        self.open: list[tuple[Event, list[Node]]] = []
        self.root: Node | None = None

    def build(self, events: Iterable[Event]) -> Node:
        documents = 0
        for event in events:
            documents += isinstance(event, DocumentStartEvent)
            if documents > 1:
                raise _Refused("starts a second document (---); keep one", event)
            self._take(event)
        if self.root is None or self.root.value is None:
            return Node(self.source(1), {})
        return self.root

    def _take(self, event: Event) -> None:
        if isinstance(event, NodeEvent) and not isinstance(event, AliasEvent) and getattr(event, "ctag", None):
            raise _Refused(f"has a tag (!…); {self.bounds.what} need none, remove it", event)
        if isinstance(event, MappingStartEvent | SequenceStartEvent):
            if len(self.open) >= self.bounds.depth:
                text = f"is nested deeper than {self.bounds.depth} levels; {self.bounds.what} are flatter"
                raise _Refused(text, event)
            self.open.append((event, []))
        elif isinstance(event, ScalarEvent):
            is_null = event.implicit[0] and event.value in _NULLS
            text = event.value if self.shown is None else self.shown(event.value)
            self._place(event, _node(event, None if is_null else text, self.source))
        elif isinstance(event, AliasEvent):
            self._place(event, self._aliased(event))
        elif isinstance(event, MappingEndEvent | SequenceEndEvent):
            start, children = self.open.pop()
            size = 1 + sum(child.size for child in children)
            value = self._pairs(children) if isinstance(event, MappingEndEvent) else children
            self._place(start, _node(start, value, self.source, size, event))

    def _aliased(self, event: AliasEvent) -> Node:
        self.aliases += 1
        target = self.anchors.get(event.anchor)
        if target is None:
            text = "has an alias (*…) to nothing that was complete before it; repeat the value, or quote a leading *"
            raise _Refused(text, event)
        if self.aliases > self.bounds.aliases:
            raise _Refused(f"has more than {self.bounds.aliases} aliases (*…); repeat the values", event)
        self.nodes += target.size
        return _node(event, target.value, self.source, target.size)

    def _place(self, event: Event, node: Node) -> None:
        self.nodes += 1
        if self.nodes > self.bounds.nodes:
            text = f"has more than {self.bounds.nodes} values, aliases expanded; {self.bounds.what} have fewer"
            raise _Refused(text, event)
        if isinstance(event, NodeEvent) and event.anchor and not isinstance(event, AliasEvent):
            self.anchors[event.anchor] = node
        if self.open:
            self.open[-1][1].append(node)
        else:
            self.root = node

    def _pairs(self, children: list[Node]) -> dict[str, Node]:
        pairs: dict[str, Node] = {}
        for name, value in zip(children[::2], children[1::2], strict=True):
            if not isinstance(name.value, str):
                self.mistakes.add(name, self.key, "has a key that is no text; write `name: value`")
            elif name.value in pairs:
                first = pairs[name.value].named.source
                self.mistakes.add(name, short_name(name.value), f"is there twice, first at {first}; keep one")
            else:
                # Where nothing is written the parser has its mark behind it, mostly on the next line.
                pairs[name.value] = replace(name if value.value is None else value, value=value.value, label=name)
        return pairs


def _node(
    event: Event,
    value: str | dict[str, Node] | list[Node] | None,
    source: Callable[[int], str],
    size: int = 1,
    end: Event | None = None,
) -> Node:
    """Where the event's text stands; of what spans lines, its first one. `end`: the event with which it ends."""
    start = cast("_Mark | None", event.start_mark)
    stop = cast("_Mark | None", (end or event).end_mark)
    if start is None:
        return Node(source(1), value, size)
    width = stop.column - start.column if stop is not None and stop.line == start.line else 0
    return Node(source(start.line + 1), value, size, start.column + 1, width)
