"""What tells, without reading, that a file is another one than before."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path


def signature(path: Path) -> Hashable:
    """Changes whenever the file is replaced, rewritten, removed or re-linked; a stat that follows symlinks. No errors:
    why there is nothing to stat is part of it.
    """
    try:
        found = path.stat()
    except OSError as error:
        return str(path), error.errno
    except ValueError:  # a name that no file can have
        return str(path), None
    return str(path), found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
