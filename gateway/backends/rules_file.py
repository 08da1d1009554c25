"""The rules file and its list files, read and checked together: a RuleSet, or every mistake in one error.

What was read decides the version; the fingerprint says, without reading, whether it may have changed.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo, available_timezones

from gateway.backends.file_signature import signature
from gateway.backends.memory_file import MemoryFile
from gateway.backends.rules_tests_file import fail, results, tests_path
from gateway.backends.watched_text import Reading, Texts, packed, unpacked
from gateway.document import Mistake, Mistakes, Node, join
from gateway.errors import SettingsError
from gateway.policy.conditions import CONDITIONS
from gateway.policy.conditions.base import Reader
from gateway.policy.rules_reader import read_ruleset
from gateway.policy.ruleset import NO_RULES, RuleSet
from gateway.yaml_file import Bounds

BOUNDS = Bounds("rules", size=4 * 1024 * 1024, nodes=300_000)
LIST_SIZE_MAX = 16 * 1024 * 1024

_LIST = "write a list of values, or {file: lists/name.txt}"


class RulesFile:
    """A rules file that is read again and again. `databases` and `tested`: see `read_rules`."""

    def __init__(self, path: Path, databases: Collection[str] | None, *, tested: bool = False) -> None:
        self._path = path
        self._databases = databases
        self._tested = tested
        self._lists: tuple[Path, ...] = ()
        self._read: Texts = {}

    def read(self) -> RuleSet:
        """See `read_rules`."""
        files = _Files(self._path)
        self._read = {}
        try:
            rules = files.rules(self._databases, tested=self._tested)
        finally:
            if files.is_mapping:
                self._lists = tuple(files.named)
        self._read = files.reading.read
        return rules

    def read_if_there(self) -> RuleSet:
        """The same, but NO_RULES where there is no such file."""
        return self.read() if os.path.lexists(self._path) else NO_RULES

    def fingerprint(self) -> Hashable:
        """Changes whenever the file changes, or its tests, or a list file that it named when it was read last, whether
        or not it was right; missing files are part of it.
        """
        tests = (tests_path(self._path),) if self._tested else ()
        return tuple(signature(each) for each in (self._path, *self._lists, *tests))

    def take_copy(self) -> MemoryFile | None:
        """What was read last, for a `read_copy` in another process; it is given once. None where it cannot be kept."""
        texts, self._read = self._read, {}
        return packed("rules", texts) if texts else None

    def read_copy(self, copy: bytes) -> RuleSet:
        """The rules as they were when the copy was taken, after their tests. Raises SettingsError, ValueError."""
        return _Files(self._path, Reading(unpacked(copy))).rules(self._databases)


def read_rules(path: Path, databases: Collection[str] | None, *, tested: bool = False) -> RuleSet:
    """The rules of this file. `databases`: the geo databases of the settings; None leaves them unchecked. `tested`: a
    test beside them that fails is a mistake too.

    Raises SettingsError with all mistakes, a line each. Blocks: call it off the event loop.
    """
    return RulesFile(path, databases, tested=tested).read()


@dataclass(frozen=True, slots=True)
class Examined:
    """What one look at a rules file shows. `rules` is None where there are mistakes; `lists` are its lists with how
    many entries each has, `used` the names of those that rules use, `needs` as in Reader. `texts`: what was read;
    `modified`: when the file was changed last, in Unix seconds, None where it is not there.
    """

    version: str
    rules: RuleSet | None
    mistakes: Sequence[Mistake]
    tree: Node | None
    lists: Mapping[str, int]
    used: Collection[str]
    needs: Mapping[str, tuple[Node, str]]
    texts: Texts
    modified: float | None


def examine(
    path: Path, databases: Collection[str] | None, texts: Texts | None = None, *, tested: bool = False
) -> Examined:
    """All that can be said of this file, whether or not it is right. `databases` and `tested` as in `read_rules`; it
    blocks, too. `texts`: what is read instead of the disk's files.
    """
    files = _Files(path, Reading(texts))
    modified = None
    with suppress(OSError):
        modified = path.stat().st_mtime
    tree, reader, rules = files.look(databases)
    read = dict(files.reading.read)
    if tested and rules is not None and not files.mistakes.count:
        fail(results(path, rules, files.mistakes, read) or [], files.mistakes)
    return Examined(
        files.reading.version,
        None if files.mistakes.count else rules,
        files.mistakes.found,
        tree,
        {name: sum(1 for _ in entries) for name, entries in reader.lists.items()},
        reader.used,
        reader.needs,
        read,
        modified,
    )


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
                yield Node(f"{self.path}:{number}", entry, column=line.index(entry) + 1, width=len(entry))


def _before_comment(entry: str) -> str:
    for mark in (" #", "\t#"):
        entry = entry.partition(mark)[0].rstrip()
    return entry


@dataclass(slots=True)
class _Files:
    """One reading of the rules file, and the list files that it names."""

    path: Path
    reading: Reading = field(default_factory=Reading)
    named: list[Path] = field(default_factory=list)
    is_mapping: bool = False

    @property
    def mistakes(self) -> Mistakes:
        return self.reading.mistakes

    def rules(self, databases: Collection[str] | None, *, tested: bool = False) -> RuleSet:
        _, _, rules = self.look(databases)
        if tested and rules is not None and not self.mistakes.count:
            fail(results(self.path, rules, self.mistakes) or [], self.mistakes)
        if rules is None or self.mistakes.count:
            raise SettingsError(self.mistakes.report())
        return rules

    def look(self, databases: Collection[str] | None) -> tuple[Node | None, Reader, RuleSet | None]:
        """The tree, what read it, and what it means; where there are mistakes afterwards, the latter is of no use."""
        tree = self.reading.document(self.path, BOUNDS, "name a readable file")
        text = self.reading.version
        lists = {} if tree is None else self.lists(tree)
        reader = Reader(CONDITIONS, self.mistakes, lists, (), _zone, databases)
        if tree is None:
            return None, reader, None
        self.is_mapping = True
        return tree, reader, read_ruleset(tree, reader, self.reading.version, text)

    def lists(self, tree: Node) -> Mapping[str, list[Node] | _Lines]:
        """The file's lists by name; of a wrong one its name alone, so that it is not called unknown as well."""
        node = tree.value.get("lists") if isinstance(tree.value, dict) else None
        if node is None:
            return {}
        if not isinstance(node.value, dict) or not node.value:
            self.mistakes.add(node, "lists", "names no list; write `name: [a, b]` lines under it or remove it")
            return {}
        return {name: self._list(child, join("lists", name)) for name, child in node.value.items()}

    def _list(self, node: Node, key: str) -> list[Node] | _Lines:
        if isinstance(node.value, dict):
            return self._list_file(node, node.value, key)
        items = node.value if isinstance(node.value, list) else [node]
        if not items:
            self.mistakes.add(node, key, f"is empty; {_LIST}")
        for index, item in enumerate(items):
            place = key if item is node else join(key, index)
            if not isinstance(item.value, str):
                state = "has no value" if item.value is None else "is not one single value"
                self.mistakes.add(item, place, f"{state}; {_LIST}")
            elif item.value.startswith("$"):
                self.mistakes.add(item, place, "is the name of a list; name both lists in the rule: [$a, $b]")
        return [item for item in items if isinstance(item.value, str) and not item.value.startswith("$")]

    def _list_file(self, node: Node, members: Mapping[str, Node], key: str) -> list[Node] | _Lines:
        name = members.get("file")
        if name is None or len(members) > 1 or not isinstance(name.value, str) or not name.value:
            self.mistakes.add(node, key, f"is no list; {_LIST}")
            return []
        path = self.path.parent / name.value
        self.named.append(path)
        text = self.reading.text(
            path, LIST_SIZE_MAX, name, key, "name a readable file, from the rules file's folder on"
        )
        if text is None:
            return []
        lines = _Lines(path, text)
        if next(iter(lines), None) is None:
            self.mistakes.add(str(path), key, "is empty; write one entry a line")
        return lines
