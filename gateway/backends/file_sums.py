"""Checksums of a folder's files: each version is read once, by one thread in the background, and remembered.

Nobody waits for them. Of too long a file, and of too many at once, none is computed.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from gateway.errors import GatewayError
from gateway.policy.model import StoredObject, Sums

log = logging.getLogger(__name__)

SIZE_MAX = 1 << 30
"""Bytes of a file: a second or two of one core. Every worker reads for itself."""
PENDING_MAX = 64
ENTRIES = 10_000
_READ = 1 << 20


class FileSums:
    """`open_same` opens this very version of a file (blocking), or raises GatewayError."""

    def __init__(self, open_same: Callable[[StoredObject], int]) -> None:
        self._open = open_same
        self._known: OrderedDict[tuple[str, str], Sums] = OrderedDict()
        self._pending: set[tuple[str, str]] = set()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="sums")

    def of(self, stored: StoredObject) -> Sums:
        """What is known now; where that is nothing, it is computed for who asks later."""
        version = stored.key, stored.etag
        with self._lock:
            if version in self._known:
                self._known.move_to_end(version)
                return self._known[version]
            if version in self._pending or len(self._pending) >= PENDING_MAX or stored.size > SIZE_MAX:
                return Sums()
            if self._closed.is_set():
                return Sums()
            self._pending.add(version)
        self._pool.submit(self._compute, stored)
        return Sums()

    def close(self) -> None:
        """Compute no more."""
        self._closed.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _compute(self, stored: StoredObject) -> None:
        sums = None
        try:
            sums = self._read(stored)
        except (GatewayError, OSError) as error:
            log.warning("a file's checksum cannot be computed: %s", error)
        with self._lock:
            self._pending.discard((stored.key, stored.etag))
            if sums is not None:
                self._known[stored.key, stored.etag] = sums
                if len(self._known) > ENTRIES:
                    self._known.popitem(last=False)

    def _read(self, stored: StoredObject) -> Sums | None:
        digest, crc, left = hashlib.sha256(), 0, stored.size
        fd = self._open(stored)
        try:
            while left and (data := os.read(fd, min(_READ, left))):
                if self._closed.is_set():
                    return None
                digest.update(data)
                crc = zlib.crc32(data, crc)
                left -= len(data)
        finally:
            os.close(fd)
        # Changed while it was read: its time says so, and this version is gone.
        os.close(self._open(stored))
        return None if left else Sums(digest.hexdigest(), crc)
