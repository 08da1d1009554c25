"""The rules file and its list files, read and checked together: a RuleSet, or every mistake in one error.

What was read decides the version; `fingerprint` says, without reading, whether it may have changed.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Collection, Hashable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo, available_timezones

from gateway.backends.file_signature import signature
from gateway.document import Mistakes, Node, join, printable
from gateway.errors import SettingsError
from gateway.policy.conditions import CONDITIONS
from gateway.policy.conditions.base import Reader
from gateway.policy.rules_reader import read_ruleset
from gateway.policy.ruleset import RuleSet
from gateway.yaml_file import Bounds, decode, mapping, parse, read_bounded

BOUNDS = Bounds("rules", size=4 * 1024 * 1024, nodes=300_000)
LIST_SIZE_MAX = 16 * 1024 * 1024

_LIST = "write a list of values, or {file: lists/name.txt}"

_lists_of: dict[Path, tuple[Path, ...]] = {}
"""The list files that each rules file named when it was read last, whether or not it was right."""


def read_rules(path: Path, databases: Collection[str] | None) -> RuleSet:
    """The rules of this file. `databases`: the geo databases of the settings; None leaves them unchecked.

    Raises SettingsError with all mistakes, a line each. Blocks: call it off the event loop.
    """
    files = _Files(path)
    tree = files.tree()
    if tree is not None:
        lists = files.lists(tree)
        _lists_of[path] = tuple(files.named)
        reader = Reader(CONDITIONS, files.mistakes, lists, (), _zone, databases)
        rules = read_ruleset(tree, reader, files.version.hexdigest()[:12])
        if not files.mistakes.keys:
            return rules
    raise SettingsError(files.mistakes.report())


def fingerprint(path: Path) -> Hashable:
    """Changes whenever the rules file or a list file of the last reading does; missing files are part of it."""
    return tuple(signature(each) for each in (path, *_lists_of.get(path, ())))


def _zone(name: str) -> tzinfo:
    # There are files beside the database: this machine's own zone, and clocks that count leap seconds.
    if not name.startswith(("posix/", "right/", "localtime", "posixrules", "Factory")):
        with suppress(LookupError, ValueError, OSError):
            return ZoneInfo(name)
    nearest = difflib.get_close_matches(name, available_timezones(), 1, 0.8)
    right = f"did you mean {nearest[0]}?" if nearest else "write one such as Europe/Warsaw or UTC"
    raise ValueError(f"is no time zone of the IANA database; {right}")


@dataclass(frozen=True, slots=True)
class _Lines:
    """A list file's entries, made anew for each who goes through them: a large list is kept once, as text."""

    path: Path
    text: str

    def __iter__(self) -> Iterator[Node]:
        for number, line in enumerate(self.text.split("\n"), 1):
            entry = line.strip()
            if "#" in entry:
                entry = "" if entry.startswith("#") else _before_comment(entry)
            if entry:
                yield Node(f"{self.path}:{number}", entry)


def _before_comment(entry: str) -> str:
    for mark in (" #", "\t#"):
        entry = entry.partition(mark)[0].rstrip()
    return entry


@dataclass(slots=True)
class _Files:
    """One reading: what is wrong, the list files named, and the hash over all contents."""

    path: Path
    mistakes: Mistakes = field(default_factory=Mistakes)
    named: list[Path] = field(default_factory=list)
    version: hashlib._Hash = field(default_factory=hashlib.sha256)

    def tree(self) -> Node | None:
        text = self._text(self.path, BOUNDS.size, str(self.path), "", "name a readable file at `rules` in the settings")
        if text is None:
            return None
        return mapping(parse(text, lambda line: f"{self.path}:{line}", self.mistakes, BOUNDS), self.mistakes)

    def lists(self, tree: Node) -> Mapping[str, list[Node] | _Lines]:
        """The file's lists by name; of a wrong one its name alone, so that it is not called unknown as well."""
        node = tree.value.get("lists") if isinstance(tree.value, dict) else None
        if node is None:
            return {}
        if not isinstance(node.value, dict) or not node.value:
            self.mistakes.add(node.source, "lists", "names no list; write `name: [a, b]` lines under it or remove it")
            return {}
        return {name: self._list(child, join("lists", name)) for name, child in node.value.items()}

    def _list(self, node: Node, key: str) -> list[Node] | _Lines:
        if isinstance(node.value, dict):
            return self._list_file(node, node.value, key)
        items = node.value if isinstance(node.value, list) else [node]
        if not items:
            self.mistakes.add(node.source, key, f"is empty; {_LIST}")
        for index, item in enumerate(items):
            place = key if item is node else join(key, index)
            if not isinstance(item.value, str):
                state = "has no value" if item.value is None else "is not one single value"
                self.mistakes.add(item.source, place, f"{state}; {_LIST}")
            elif item.value.startswith("$"):
                self.mistakes.add(item.source, place, "is the name of a list; name both lists in the rule: [$a, $b]")
        return [item for item in items if isinstance(item.value, str) and not item.value.startswith("$")]

    def _list_file(self, node: Node, members: Mapping[str, Node], key: str) -> list[Node] | _Lines:
        name = members.get("file")
        if name is None or len(members) > 1 or not isinstance(name.value, str) or not name.value:
            self.mistakes.add(node.source, key, f"is no list; {_LIST}")
            return []
        path = self.path.parent / name.value
        self.named.append(path)
        text = self._text(
            path, LIST_SIZE_MAX, name.source, key, "name a readable file, from the rules file's folder on"
        )
        if text is None:
            return []
        lines = _Lines(path, text)
        if next(iter(lines), None) is None:
            self.mistakes.add(str(path), key, "is empty; write one entry a line")
        return lines

    def _text(self, path: Path, limit: int, source: str, key: str, right: str) -> str | None:
        """A file's text, hashed into the version; a path that cannot be read is a mistake where it was written."""
        shown = f"{printable(str(path))} " if key else ""
        try:
            # A pipe or device could keep the reader waiting for ever.
            data = read_bounded(path, limit) if path.is_file() or not path.exists() else None
        except (OSError, ValueError) as error:
            state = getattr(error, "strerror", None) or "no possible path"
            self.mistakes.add(source, key, f"{shown}cannot be read ({state}); {right}")
            return None
        if data is None:
            self.mistakes.add(source, key, f"{shown}is no regular file; {right}")
            return None
        if len(data) > limit:
            self.mistakes.add(str(path), key, f"is larger than {limit // 1024**2} MiB; make it smaller")
            return None
        self.version.update(b"\0" + data if self.named else data)
        return decode(data, path, self.mistakes)
