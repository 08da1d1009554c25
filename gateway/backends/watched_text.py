"""Text files that people write and that are read again and again: whole, bounded, hashed, and copied for later workers.

Law: what one reading says comes from one look at each file; its version is the hash of all their contents.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from gateway.backends.memory_file import MemoryFile
from gateway.document import Mistakes, Node, printable
from gateway.yaml_file import Bounds, decode, mapping, parse

Texts = dict[Path, bytes]


@dataclass(slots=True)
class Reading:
    """One reading, of the disk or of `texts`: what is wrong, and the contents and the hash of all that was read."""

    texts: Texts | None = None
    mistakes: Mistakes = field(default_factory=Mistakes)
    read: Texts = field(default_factory=dict)
    _hash: hashlib._Hash = field(default_factory=hashlib.sha256)

    @property
    def version(self) -> str:
        """12 hex digits of SHA-256 over what was read."""
        return self._hash.hexdigest()[:12]

    def document(self, path: Path, bounds: Bounds, right: str) -> Node | None:
        """The tree of a YAML file that is a mapping, or None, and then mistakes. `right`: how to name another file."""
        return mapping(self.tree(path, bounds, right), self.mistakes)

    def tree(self, path: Path, bounds: Bounds, right: str) -> Node | None:
        """The same of a YAML file that may be anything."""
        text = self.text(path, bounds.size, str(path), "", right)
        return None if text is None else parse(text, lambda line: f"{path}:{line}", self.mistakes, bounds)

    def text(self, path: Path, limit: int, named_at: Node | str, key: str, right: str) -> str | None:
        """A file's text, hashed into the version; a path that cannot be read is a mistake where it was written."""
        shown = f"{printable(str(path))} " if key else ""
        try:
            data = _regular(path, limit) if self.texts is None else self.texts[path]
        except (OSError, ValueError, KeyError) as error:
            state = getattr(error, "strerror", None) or "no possible path"
            self.mistakes.add(named_at, key, f"{shown}cannot be read ({state}); {right}")
            return None
        if data is None:
            self.mistakes.add(named_at, key, f"{shown}is no regular file; {right}")
            return None
        if len(data) > limit:
            self.mistakes.add(str(path), key, f"is larger than {limit // 1024**2} MiB; make it smaller")
            return None
        self._hash.update(b"\0" + data if self.read else data)
        self.read[path] = data
        return decode(data, path, self.mistakes)


def packed(name: str, texts: Texts) -> MemoryFile | None:
    """What was read, for another process to `unpack`. None where it cannot be kept."""
    head = json.dumps([(str(path), len(text)) for path, text in texts.items()]).encode()
    return MemoryFile.written(name, (head, b"\n", *texts.values()))


def unpacked(copy: bytes) -> Texts:
    """What `packed` was given. Raises ValueError."""
    head, _, body = copy.partition(b"\n")
    texts, start = {}, 0
    for path, size in json.loads(head):
        texts[Path(path)] = body[start : start + size]
        start += size
    return texts


def _regular(path: Path, limit: int) -> bytes | None:
    """At most one byte more than the limit; None where it is no regular file. Raises OSError, ValueError."""
    # O_NONBLOCK: opening a FIFO must not wait for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(limit + 1)
    finally:
        os.close(descriptor)
