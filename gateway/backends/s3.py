"""A bucket as an object store. Every byte handed on is surely of the one version asked for, or an error is raised.

Each GET names its range and, by If-Match, its ETag; the answer's status, Content-Range, length and ETag are checked.
"""

from __future__ import annotations

import time
from http import HTTPStatus

import aiohttp

from gateway.backends.s3_answers import check_part, refusal, stored_object
from gateway.backends.s3_client import LIBRARY_ERRORS, SLOW, S3Client, Wire, broken
from gateway.backends.s3_signing import HEAD_HEADERS, Addressing, Signer, bucket
from gateway.backends.s3_tries import Tries, begin, current
from gateway.backends.stat_cache import StatCache
from gateway.errors import FileMissing, OriginChanged, OriginDown, OriginError, OriginTimeout
from gateway.policy.model import ByteRange, StoredObject, Sums
from gateway.store_ports import Headers, Remote

CHUNK_MAX = 256 * 1024
_LAST_TRY_STEPS = 20
"""Back-off before a body's last continuation: 2 s, in which a store that was restarted is there again."""
_KEY_MAX = 1024


class S3Store:
    """ObjectStore over `s3://bucket/prefix`, at AWS or at an `endpoint` (MinIO, Ceph, …).

    Without keys botocore's chain is used: environment, profile, container's or instance's role. `keep` (s): how long
    what a HEAD said is believed. Raises SettingsError.
    """

    def __init__(  # noqa: PLR0913 - the settings, one by one
        self,
        url: str,
        *,
        endpoint: str | None = None,
        region: str | None = None,
        access_key: str | None = None,
        secret_key: str | None = None,
        session_token: str | None = None,
        addressing: Addressing = "auto",
        wire: Wire | None = None,
        keep: float = 5.0,
    ) -> None:
        signer = Signer(bucket(url, endpoint, region, addressing), access_key, secret_key, session_token)
        self.wire = wire or Wire()
        self._client = S3Client(signer, self.wire)
        self.back_off = self._client.back_off
        self._stats = StatCache(self._stat, keep=keep)

    async def stat(self, key: str, *, fresh: bool = False) -> StoredObject:
        """See ObjectStore.stat. An object without a strong ETag is OriginDown: it could not be resumed safely."""
        if fresh and current().changed:
            if current().left <= 1:
                raise OriginChanged("the store says one version to HEAD and another to GET")
        else:
            begin()
        return await self._stats.get(key, fresh=fresh)

    async def open(self, stored: StoredObject, part: ByteRange) -> S3Body:
        """See ObjectStore.open."""
        tries = current()
        try:
            answer = await self.fetch(stored, part, tries)
        except (FileMissing, OriginChanged) as error:
            tries.changed = isinstance(error, OriginChanged)
            self._stats.forget(stored.key)
            raise
        return S3Body(self, stored, part, answer, tries)

    async def fetch(
        self, stored: StoredObject, part: ByteRange, tries: Tries, *, spare: int = 0
    ) -> aiohttp.ClientResponse:
        """The checked answer that carries `part`, its body unread; the caller closes it. Raises as `open` does."""
        _check_key(stored.key)
        headers = {"Range": f"bytes={part.start}-{part.stop - 1}", "If-Match": stored.etag}
        answer = await self._client.ask("GET", stored.key, headers, tries, spare=spare)
        try:
            check_part(stored, part, answer.status, answer.headers)
        except OriginError:
            answer.close()
            raise
        return answer

    async def locate(self, stored: StoredObject) -> Remote:
        """See ObjectStore.locate."""
        url, _ = await self._client.signer.address("GET", stored.key)

        def check(part: ByteRange, status: int, headers: Headers) -> None:
            if status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
                raise refusal(status, headers)
            check_part(stored, part, status, headers)

        return Remote(str(url), check)

    def sums(self, stored: StoredObject) -> Sums:
        """See ObjectStore.sums: those that were given at the upload, if any."""
        return stored.sums

    async def close(self) -> None:
        """Close every connection, those of open bodies too."""
        await self._stats.close()
        await self._client.close()

    async def _stat(self, key: str) -> StoredObject:
        _check_key(key)
        # One is kept for the GET that is to follow.
        answer = await self._client.ask("HEAD", key, HEAD_HEADERS, current(), spare=1)
        try:
            if answer.status != HTTPStatus.OK:
                raise OriginDown(f"the store answered {answer.status} to a HEAD")
            return stored_object(key, answer.headers)
        finally:
            answer.release()


class S3Body:
    """StreamBody over one GET after another: where a connection dies, the next begins at the next byte."""

    def __init__(
        self, store: S3Store, stored: StoredObject, part: ByteRange, answer: aiohttp.ClientResponse, tries: Tries
    ) -> None:
        self._store = store
        self._stored = stored
        self._part = part
        self._answer = answer
        self._content = answer.content
        self._tries = tries
        self._left = part.length
        self._held = b""
        self._waited = 0.0
        self._came = 0
        self._closed = False

    async def read(self) -> bytes:
        """See StreamBody.read."""
        if self._held:
            return self._cut(self._held)
        while self._left:
            try:
                chunk = await self._next()
            except LIBRARY_ERRORS as error:
                failure = broken(error)
            except OriginTimeout as error:
                failure = error
            else:
                if chunk:
                    self._left -= len(chunk)
                    if self._left < 0:
                        # More than was asked for: stop at the last byte, and never use this connection again.
                        chunk = chunk[: self._left]
                        self._left = 0
                        self._answer.close()
                    return chunk if len(chunk) <= CHUNK_MAX else self._cut(chunk)
                failure = OriginDown(f"the store's answer ended {self._left} bytes early")
            await self._continue(failure)
        return b""

    async def aclose(self) -> None:
        """See StreamBody.aclose. At the body's end aiohttp has taken the connection back already; else it drops."""
        self._closed = True
        self._answer.close()

    async def _next(self) -> bytes:
        """What comes next. Only the time spent here counts as waiting: a client that reads slowly is no slow store."""
        if self._waited >= self._store.wire.stretch:
            slow = self._came < SLOW * self._waited
            self._waited, self._came = 0.0, 0
            if slow:
                raise OriginTimeout("the store sends next to nothing")
        began = time.monotonic()
        try:
            chunk = await self._content.readany()
        finally:
            self._waited += time.monotonic() - began
        self._came += len(chunk)
        self._tries.earn(len(chunk))
        return chunk

    def _cut(self, chunk: bytes) -> bytes:
        self._held = chunk[CHUNK_MAX:]
        return chunk[:CHUNK_MAX]

    async def _continue(self, failure: OriginError) -> None:
        """Ask for the rest, in one request at a time while tries are left; then `failure` stands."""
        self._answer.close()
        self._tries.failed = True
        self._waited, self._came = 0.0, 0
        rest = ByteRange(self._part.stop - self._left, self._part.stop)
        while self._tries.left > 0 and not self._closed:
            await self._store.back_off(self._tries, _LAST_TRY_STEPS if self._tries.left == 1 else 1)
            try:
                answer = await self._store.fetch(self._stored, rest, self._tries, spare=self._tries.left)
            except FileMissing:
                raise OriginChanged("the object was deleted in mid-download") from None
            except (OriginDown, OriginTimeout) as error:
                failure = error
                continue
            if self._closed:
                answer.close()
                break
            self._answer = answer
            self._content = answer.content
            return
        raise failure


def _check_key(key: str) -> None:
    """Raises FileMissing for a key that S3 cannot hold, or that a path-normalising proxy would lead elsewhere."""
    try:
        size = len(key.encode("utf-8"))
    except UnicodeEncodeError:
        size = 0
    steps = key.split("/")
    if not 0 < size <= _KEY_MAX or not steps[0] or "." in steps or ".." in steps or "\0" in key:
        raise FileMissing("the key is not a relative path that a bucket can hold")
