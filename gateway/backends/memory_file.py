"""Bytes in memory under a file descriptor: a library opens them by path, and another process inherits them.

They are gone with the last process that holds one, and sealed: nobody changes or cuts what somebody else has mapped.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Self

_HAS_SEALS = hasattr(os, "memfd_create") and hasattr(fcntl, "F_ADD_SEALS")


class MemoryFile:
    """One such file (memfd_create(2)). It ends with its last reference, as a buffer would."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def written(cls, name: str, blocks: Iterable[bytes]) -> Self | None:
        """Of these blocks; None where the platform has none such, and no block is taken then."""
        if not _HAS_SEALS:
            return None
        try:
            file = cls(os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
        except OSError:  # a seccomp filter may forbid it
            return None
        with os.fdopen(file.fileno(), "wb", closefd=False) as writer:
            for block in blocks:
                writer.write(block)
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
        fcntl.fcntl(file.fileno(), fcntl.F_ADD_SEALS, seals)
        return file

    @classmethod
    def of(cls, descriptor: int) -> Self:
        """Another reference to one that somebody else made and holds. Raises OSError."""
        return cls(os.dup(descriptor))

    def fileno(self) -> int:
        return self._descriptor

    @property
    def path(self) -> str:
        """Where a library of this process opens it."""
        return f"/proc/self/fd/{self._descriptor}"

    def read(self) -> bytes:
        """All of it. Raises OSError."""
        return Path(self.path).read_bytes()

    def close(self) -> None:
        """May be called twice."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        with suppress(OSError):
            self.close()
