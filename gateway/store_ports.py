"""What stores are to the services. The docstrings are the contract; tests/conformance holds each store to it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from multidict import CIMultiDict, CIMultiDictProxy

from gateway.policy.model import ByteRange, StoredObject, Sums

Headers = CIMultiDict[str] | CIMultiDictProxy[str]


@dataclass(frozen=True, slots=True)
class FileBody:
    """Bytes that lie in an open local file: send `length` bytes from `offset` of `fd`; the holder closes it."""

    fd: int
    offset: int
    length: int

    async def aclose(self) -> None:
        """Close the descriptor. Call it once."""
        os.close(self.fd)


class StreamBody(Protocol):
    """Bytes that arrive from elsewhere, in order and exactly as many as were asked for."""

    async def read(self) -> bytes:
        """The next bytes as they arrived, never re-cut, at most 256 KiB; b"" once all have been read.

        Continues by itself (If-Match and Range) when the connection dies in mid-body. Raises OriginDown,
        OriginTimeout or OriginChanged when it cannot: the caller must then abort the response.
        """

    async def aclose(self) -> None:
        """Give the connection back or drop it. May be called at any time, twice too; never raises."""


Body = FileBody | StreamBody


@dataclass(frozen=True, slots=True)
class Local:
    """A file below the store's folder, for another program of this machine to send."""

    path: str


@dataclass(frozen=True, slots=True)
class Remote:
    """An object for another program to fetch: `url` is signed for GET, a bearer secret that is good for minutes.

    `check` tells of the status and the headers of the answer to a request for one part of it, with the version's ETag
    in If-Match, whether that answer carries it: raises FileMissing, OriginChanged, OriginDown, OriginTimeout.
    """

    url: str = field(repr=False)
    check: Callable[[ByteRange, int, Headers], None] = field(repr=False)


class ObjectStore(Protocol):
    """A folder or a bucket. Keys are text, relative, and come from tokens only, never from a request's path."""

    async def stat(self, key: str, *, fresh: bool = False) -> StoredObject:
        """Size, strong ETag, time and type of the object now; cached for a few seconds unless `fresh`.

        Raises FileMissing, OriginDown, OriginTimeout, and OriginChanged where the store cannot say which version is
        the current one. A key that would leave the folder is FileMissing.
        """

    async def open(self, stored: StoredObject, part: ByteRange) -> Body:
        """The bytes of `part` of exactly this version (If-Match on its ETag); `part` is never empty.

        Returns only when the first byte is sure to be the file's: status, Content-Range, ETag and length were
        checked. Raises FileMissing, OriginChanged, OriginDown, OriginTimeout.
        """

    async def locate(self, stored: StoredObject) -> Local | Remote:
        """Where another program finds the object, which `stat` has just seen. Raises OriginDown, OriginTimeout."""

    def sums(self, stored: StoredObject) -> Sums:
        """What is known now of its checksums. Never waits: a folder computes them meanwhile, for who asks later."""

    async def close(self) -> None:
        """Drop every connection and descriptor the store itself holds."""
