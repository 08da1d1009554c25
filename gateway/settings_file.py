"""A YAML file as a tree of texts that remember their line: every scalar stays text, the setting gives it its type.

YAML 1.2 by events, so nothing is constructed and nothing expands unseen. Mistakes are collected, not raised.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
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

SIZE_MAX = 256 * 1024
DEPTH_MAX = 32
ALIASES_MAX = 100
NODES_MAX = 20_000

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_NAME_SHOWN_MAX = 80
_REFERENCE = re.compile(r"\$\$\{|\$\{([^}\n]*)\}?")
# Braces mean something to YAML inside [ ] and { }, so references are hidden from it behind private-use characters.
_VISIBLE = re.compile(r"\$\{[^}\n]*\}")
_HIDDEN = re.compile("\ue000([0-9]{1,6})\ue001")


@dataclass(frozen=True, slots=True)
class Node:
    """One value and where it was written (`file:line`, or a variable's name). `size`: nodes in it, aliases expanded."""

    source: str
    value: str | dict[str, Node] | list[Node] | None = field(repr=False)
    size: int = 1


@dataclass(slots=True)
class Mistakes:
    """What is wrong, one line each, and at which key: so that a later check does not report it twice."""

    keys: set[str] = field(default_factory=set)
    _lines: set[tuple[str, int, str]] = field(default_factory=set)

    def add(self, source: str, key: str, text: str) -> None:
        """`text` says what is wrong with the value at `key` and, behind a semicolon, what would be right."""
        name, _, number = source.rpartition(":")
        line = f"{source}: {key}: {text}" if key else f"{source}: {text}"
        self._lines.add((name, int(number), line) if number.isdecimal() else (source, 0, line))
        self.keys.add(key)

    def report(self) -> str:
        """All lines, in the order of the file."""
        return "\n".join(line for _, _, line in sorted(self._lines))


def read_file(path: Path, mistakes: Mistakes) -> Node | None:
    """The file's tree, a mapping without what was reported as a mistake; None where nothing of it can be used."""
    try:
        data = _read_bounded(path, SIZE_MAX)
    except OSError as error:
        mistakes.add(str(path), "", f"cannot be read ({error.strerror}); name a readable file with --config")
        return None
    if len(data) > SIZE_MAX:
        mistakes.add(str(path), "", f"is larger than {SIZE_MAX // 1024} KiB; settings are smaller than that")
        return None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        mistakes.add(f"{path}:{line}", "", "is not UTF-8; save the file as UTF-8")
        return None
    tree = parse(text, lambda line: f"{path}:{line}", mistakes)
    if tree is not None and not isinstance(tree.value, dict):
        mistakes.add(tree.source, "", "is no mapping; write one `name: value` a line")
        return None
    return tree


def parse(text: str, source: Callable[[int], str], mistakes: Mistakes, key: str = "") -> Node | None:
    """The tree of a YAML text, None where it is broken; an empty text is an empty mapping. `source` names a line."""
    loader = YAML(typ="safe", pure=True)
    hidden: dict[int, str] = dict(enumerate(_VISIBLE.findall(text)))
    numbers = count()
    try:
        events = cast(Iterable[Event], loader.parse(_VISIBLE.sub(lambda _: f"\ue000{next(numbers)}\ue001", text)))
        return _Builder(source, mistakes, key, hidden).build(events)
    except MarkedYAMLError as error:
        mark = cast("_Mark | None", error.problem_mark or error.context_mark)
        # Quoted words are the file's own text, which may be a secret in the wrong place.
        problem = re.sub(r"'[^'<]{2,}'", "…", " ".join(str(error.problem or error.context).split()))
        mistakes.add(source(mark.line + 1 if mark else 1), key, f"is not YAML ({problem}); mind indents and quotes")
    except _Refused as error:
        mistakes.add(source(error.line), key, str(error))
    except (YAMLError, ValueError):
        # ruamel's scanner lets int() and chr() errors of broken escapes and directives through.
        mistakes.add(source(1), key, "is not YAML; mind special characters, escapes and quotes")
    return None


def plain(node: Node) -> object:
    """The tree as plain dicts, lists and texts; a null is left as it is."""
    if isinstance(node.value, dict):
        return {name: plain(child) for name, child in node.value.items()}
    if isinstance(node.value, list):
        return [plain(child) for child in node.value]
    return node.value


def find(node: Node, location: Iterable[int | str]) -> Node:
    """The node at this place, or the last one there is on the way to it."""
    for step in location:
        if isinstance(node.value, dict) and step in node.value:
            node = node.value[str(step)]
        elif isinstance(node.value, list) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
        else:
            break
    return node


def substitute(node: Node, environ: Mapping[str, str], mistakes: Mistakes, key: str = "") -> Node:
    """The tree with `${NAME}` and `${file:PATH}` replaced (`$${` is a literal `${`), nulls reported and taken out."""
    if isinstance(node.value, dict):
        children = {name: substitute(child, environ, mistakes, join(key, name)) for name, child in node.value.items()}
        return Node(node.source, {name: child for name, child in children.items() if child.value is not None})
    if isinstance(node.value, list):
        items = [substitute(child, environ, mistakes, join(key, index)) for index, child in enumerate(node.value)]
        return Node(node.source, items)
    if node.value is None:
        mistakes.add(node.source, key, "has no value; give it one or remove the line")
        return node
    try:
        return Node(node.source, _REFERENCE.sub(lambda found: _referenced(found, environ), node.value))
    except _Refused as error:
        mistakes.add(node.source, key, str(error))
        return Node(node.source, None)


def references(node: Node) -> Iterator[str]:
    """The environment variables that the tree reads with `${NAME}`."""
    if isinstance(node.value, str):
        yield from (found[1] for found in _REFERENCE.finditer(node.value) if found[1])
    elif node.value is not None:
        for child in node.value.values() if isinstance(node.value, dict) else node.value:
            yield from references(child)


def join(key: str, step: int | str) -> str:
    """A key one step further down: `origin.url`, `keys[0]`."""
    if isinstance(step, int):
        return f"{key}[{step}]"
    return f"{key}.{step}" if key else step


def _referenced(found: re.Match[str], environ: Mapping[str, str]) -> str:
    name = found[1]
    if name is None:
        return "${"
    if not found[0].endswith("}") or not name:
        raise _Refused("has a ${ that is not closed or empty; write ${NAME}, ${file:PATH}, or $${ for a literal ${")
    if name.startswith("file:"):
        return _secret_file(name.removeprefix("file:"))
    if not environ.get(name):
        state = "empty" if name in environ else "not set"
        raise _Refused(f"reads the variable {_short(name)}, which is {state}; set it, or use ${{file:PATH}}")
    return environ[name]


def _secret_file(path: str) -> str:
    try:
        data = _read_bounded(Path(path), SIZE_MAX)
        text = data.decode()
    except OSError as error:
        raise _Refused(f"reads the file {_short(path)}: {error.strerror}; name a readable file") from None
    except ValueError:
        raise _Refused(f"reads the file {_short(path)}, which is no UTF-8 text; store text in it") from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text or len(data) > SIZE_MAX:
        state = "too large" if text else "empty"
        raise _Refused(f"reads the file {_short(path)}, which is {state}; put only the value in it")
    return text


def _read_bounded(path: Path, limit: int) -> bytes:
    """At most one byte more than the limit: enough to see that a file is larger."""
    with path.open("rb") as file:
        return file.read(limit + 1)


def _short(name: str) -> str:
    """A name as an error shows it: one line, and short in case that a secret was pasted into the braces."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in name)
    return shown if len(shown) <= _NAME_SHOWN_MAX else f"{shown[:20]}…"


class _Mark(Protocol):
    line: int


class _Refused(Exception):
    def __init__(self, text: str, line: int = 1) -> None:
        super().__init__(text)
        self.line = line


class _Builder:
    """Builds the tree bottom-up with its own stack: depth, aliases and nodes are bounded before anything is built."""

    def __init__(self, source: Callable[[int], str], mistakes: Mistakes, key: str, hidden: Mapping[int, str]) -> None:
        self.source = source
        self.mistakes = mistakes
        self.key = key
        self.hidden = hidden
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
                raise _Refused("starts a second document (---); keep one", _line(event))
            self._take(event)
        if self.root is None or self.root.value is None:
            return Node(self.source(1), {})
        return self.root

    def _take(self, event: Event) -> None:
        if isinstance(event, NodeEvent) and not isinstance(event, AliasEvent) and getattr(event, "ctag", None):
            raise _Refused("has a tag (!…); settings need none, remove it", _line(event))
        if isinstance(event, MappingStartEvent | SequenceStartEvent):
            if len(self.open) >= DEPTH_MAX:
                raise _Refused(f"is nested deeper than {DEPTH_MAX} levels; settings are flatter", _line(event))
            self.open.append((event, []))
        elif isinstance(event, ScalarEvent):
            is_null = event.implicit[0] and event.value in _NULLS
            self._place(event, Node(self.source(_line(event)), None if is_null else self._shown(event.value)))
        elif isinstance(event, AliasEvent):
            self._place(event, self._aliased(event))
        elif isinstance(event, MappingEndEvent | SequenceEndEvent):
            start, children = self.open.pop()
            size = 1 + sum(child.size for child in children)
            value = self._pairs(children) if isinstance(event, MappingEndEvent) else children
            self._place(start, Node(self.source(_line(start)), value, size))

    def _shown(self, text: str) -> str:
        return _HIDDEN.sub(lambda found: self.hidden.get(int(found[1]), found[0]), text)

    def _aliased(self, event: AliasEvent) -> Node:
        self.aliases += 1
        target = self.anchors.get(event.anchor)
        if target is None:
            raise _Refused("has an alias (*…) to nothing that was complete before it; repeat the value", _line(event))
        if self.aliases > ALIASES_MAX:
            raise _Refused(f"has more than {ALIASES_MAX} aliases (*…); repeat the values", _line(event))
        self.nodes += target.size
        return target

    def _place(self, event: Event, node: Node) -> None:
        self.nodes += 1
        if self.nodes > NODES_MAX:
            raise _Refused(f"has more than {NODES_MAX} values, aliases expanded; settings have fewer", _line(event))
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
                self.mistakes.add(name.source, self.key, "has a key that is no text; write `name: value`")
            elif name.value in pairs:
                first = pairs[name.value].source
                self.mistakes.add(name.source, _short(name.value), f"is there twice, first at {first}; keep one")
            else:
                pairs[name.value] = value
        return pairs


def _line(event: Event) -> int:
    mark = cast("_Mark | None", event.start_mark)
    return mark.line + 1 if mark else 1
