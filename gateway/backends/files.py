"""A folder as an object store. A key is a path below the root and never leads out of it.

No symlink below the root is followed, whatever it points to; only regular files are files; nothing here waits for a
FIFO or a device. The root itself may be a symlink and is looked up anew each time, so that a remount is seen.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import stat
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from gateway.backends.file_sums import FileSums
from gateway.backends.stat_cache import StatCache
from gateway.errors import FileMissing, OriginChanged, OriginDown, OriginTimeout
from gateway.policy.model import ByteRange, StoredObject, Sums
from gateway.store_ports import FileBody, Local

T = TypeVar("T")

# O_PATH (Linux) asks for no read permission on folders, as the kernel's own path walk does not either.
_FOLDER = os.O_DIRECTORY | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)
_FILE = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_NOT_A_FILE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.ENAMETOOLONG, errno.EINVAL}

# A folder knows no types: the name decides, where the answer is planned.
_TYPE = "application/octet-stream"


def strong_etag(status: os.stat_result) -> str:
    """Another one for each version: the inode tells apart a file moved into the place of another with its time and size
    kept (rsync, cp -p).
    """
    version = f"{status.st_ino}:{status.st_size}:{status.st_mtime_ns}"
    return f'"{hashlib.sha256(version.encode()).hexdigest()[:32]}"'


def nginx_etag(status: os.stat_result) -> str:
    """What nginx itself says of a file: where it sends the bytes, it must know the ETag that a resume comes with."""
    # Not int(st_mtime): a float of the last 0.1 µs of a second is the next one.
    return f'"{status.st_mtime_ns // 10**9:x}-{status.st_size:x}"'


class FolderStore:
    """ObjectStore over the files below `root`; `timeout` (s) bounds each look at the disk.

    Looking a path up and opening it may block for long on a network file system, so both happen in one hop to a
    thread, in a pool of the store's own: a hung mount must not take the threads that name resolution needs.
    """

    def __init__(
        self,
        root: Path,
        *,
        etag: Callable[[os.stat_result], str] = strong_etag,
        timeout: float = 10.0,
        keep: float = 5.0,
        threads: int = 8,
    ) -> None:
        self._root = root
        self._etag = etag
        self._timeout = timeout
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="files")
        self._stats = StatCache(self._stat, keep=keep)
        self._sums = FileSums(self._open_same)

    async def stat(self, key: str, *, fresh: bool = False) -> StoredObject:
        """See ObjectStore.stat. A symlink, folder, FIFO or device is FileMissing; no permission is OriginDown."""
        return await self._stats.get(key, fresh=fresh)

    async def open(self, stored: StoredObject, part: ByteRange) -> FileBody:
        """See ObjectStore.open. The descriptor is the caller's to close, through the body."""

        try:
            fd = await self._in_thread(lambda: self._open_same(stored, part.stop), os.close)
        except (FileMissing, OriginChanged):
            self._stats.forget(stored.key)
            raise
        return FileBody(fd, part.start, part.length)

    async def locate(self, stored: StoredObject) -> Local:
        """See ObjectStore.locate."""
        return Local(stored.key)

    def sums(self, stored: StoredObject) -> Sums:
        """See ObjectStore.sums."""
        return self._sums.of(stored)

    async def close(self) -> None:
        """Stop the threads; one that hangs in the kernel is left behind."""
        self._sums.close()
        await self._stats.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _open(self, key: str) -> tuple[int, StoredObject]:
        """The open file and what it is. Blocks. Raises FileMissing, OriginDown."""
        fd, status = _open(self._root, key)
        return fd, StoredObject(key, status.st_size, self._etag(status), max(0, status.st_mtime_ns // 10**9), _TYPE)

    def _open_same(self, stored: StoredObject, stop: int = 0) -> int:
        """Blocks. Raises FileMissing, OriginChanged, OriginDown."""
        fd, now = self._open(stored.key)
        if now.etag != stored.etag or stop > now.size:
            os.close(fd)
            raise OriginChanged("the file was replaced since the download began")
        return fd

    async def _stat(self, key: str) -> StoredObject:
        def work() -> StoredObject:
            fd, now = self._open(key)
            os.close(fd)
            return now

        return await self._in_thread(work, lambda _: None)

    async def _in_thread(self, work: Callable[[], T], discard: Callable[[T], None]) -> T:
        job = self._pool.submit(work)
        try:
            async with asyncio.timeout(self._timeout):
                return await asyncio.wrap_future(job)
        except TimeoutError:
            _discard_later(job, discard)
            raise OriginTimeout(f"the disk did not answer within {self._timeout:g} s") from None
        except asyncio.CancelledError:
            _discard_later(job, discard)
            raise


def _discard_later(job: Future[T], discard: Callable[[T], None]) -> None:
    """Nobody waits for the job any more: what it still opens must be closed."""

    def done(job: Future[T]) -> None:
        if not job.cancelled() and job.exception() is None:
            discard(job.result())

    job.add_done_callback(done)


def _open(root: Path, key: str) -> tuple[int, os.stat_result]:
    """The open file and what is known of it. Blocks. Raises FileMissing, OriginDown."""
    *folders, name = _components(key)
    try:
        folder = os.open(root, _FOLDER)
    except OSError as error:
        # A root that is not there (not mounted, say) must not look as if the shop had deleted its files.
        raise OriginDown(f"cannot open the folder {root}: {os.strerror(error.errno or 0)}") from error
    try:
        for step in folders:
            inner = os.open(step, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = inner
        fd = os.open(name, _FILE, dir_fd=folder)
    except OSError as error:
        if error.errno in _NOT_A_FILE:
            raise FileMissing("no such regular file below the folder (symlinks are not followed)") from error
        raise OriginDown(f"cannot open a file: {os.strerror(error.errno or 0)}") from error
    finally:
        os.close(folder)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise FileMissing("not a regular file")
    except BaseException:
        os.close(fd)
        raise
    return fd, status


def _components(key: str) -> list[str]:
    """The key's path components; raises FileMissing for a key that is absolute, climbs, or is no clean path."""
    steps = key.split("/")
    if "\0" in key or any(step in ("", ".", "..") for step in steps):
        raise FileMissing("the key is not a relative path")
    try:
        key.encode("utf-8")
    except UnicodeEncodeError:
        raise FileMissing("the key is not valid Unicode") from None
    return steps
