"""What there is to know of a journal's folder without being its writer: a mere look, which leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import time
from pathlib import Path

from gateway.backends.journal_folder import JournalFolder
from gateway.policy.checkup import JournalFacts

_MOUNTS = Path("/proc/self/mountinfo")
_ESCAPED = re.compile(r"\\([0-7]{3})")


def look(folder: Path) -> JournalFacts:
    """Raises OSError where it cannot be written and fsynced. A folder that is not there yet is not made."""
    is_there = folder.exists()
    place = folder if is_there else next(parent for parent in folder.absolute().parents if parent.exists())
    began = time.monotonic()
    with tempfile.TemporaryFile(dir=place) as file:
        file.write(b"a look")
        file.flush()
        os.fsync(file.fileno())
    took = time.monotonic() - began
    disk = os.statvfs(place)
    return JournalFacts(
        is_there=is_there,
        fsync_ms=took * 1000,
        free=disk.f_bavail * disk.f_frsize,
        used=_used(folder) if is_there else 0,
        since=_since(JournalFolder(folder)) if is_there else None,
        file_system=_file_system(place),
    )


def _used(folder: Path) -> int:
    total = 0
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            total += path.lstat().st_size
    return total


def _since(folder: JournalFolder) -> float | None:
    """When the oldest segment was begun, in Unix seconds; its last line's time where that is not known any more."""
    begun = []
    for worker, paths in folder.by_worker().items():
        if paths[0] == folder.new_segment(worker, 1):
            begun.append(int(worker.partition("-")[0]) / 1000)
        else:
            with contextlib.suppress(FileNotFoundError):
                begun.append(folder.written(paths[0]))
    return min(begun, default=None)


def _file_system(place: Path) -> str:
    """The type of the file system, as the kernel names it; '' where it does not tell."""
    try:
        lines = _MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    real = place.resolve()
    best, kind = -1, ""
    for line in lines:  # proc_pid_mountinfo(5); of two at the same place the later one covers the earlier
        before, _, after = line.partition(" - ")
        point = Path(_ESCAPED.sub(lambda found: chr(int(found[1], 8)), before.split(" ")[4]))
        if real.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), after.split(" ")[0]
    return kind
