"""Whether a bucket can be read without us. Only the list that tells which objects to try is signed; the rest asks as
anybody could, by path and by virtual host, and changes nothing.
"""

from __future__ import annotations

import asyncio
import html
import logging
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from urllib.parse import quote, urlsplit

import aiohttp
from yarl import URL

from gateway.backends.s3_answers import refusal
from gateway.backends.s3_client import LIBRARY_ERRORS, broken
from gateway.backends.s3_signing import Addressing, Bucket, Signer, bucket
from gateway.errors import FileMissing, GatewayError, OriginDown, OriginError, OriginTimeout, SettingsError
from gateway.settings import Settings
from gateway.settings_sections import OriginSettings

log = logging.getLogger(__name__)

PATIENCE = 5.0
"""Seconds for everything; finding objects and asking for them have half of it each."""
TRIED = 3
"""Objects that are asked for."""
_PAGE = 200
_LIST_BYTES = 512 * 1024
_HEAD_BYTES = 2048

_ENTRY = re.compile(r"<Contents>.*?</Contents>", re.DOTALL)
_KEY = re.compile(r"<Key>([^<]+)</Key>")
_SIZE = re.compile(r"<Size>([0-9]+)</Size>")
_CODE = re.compile(r"<Code>([A-Za-z]{1,64})</Code>")
_LISTS = (b"<ListBucketResult", b"<ListVersionsResult")
_QUERIES = ("list-type=2&max-keys=1", "versions&max-keys=1")


class ListRefused(OriginDown):
    """Our credentials are good and may not list, which they need not."""


@dataclass(frozen=True, slots=True)
class Exposure:
    """What anybody may do, in words. `lists_refused` and `objects_refused` count what the store surely keeps to us.

    `failure`: why something could not be asked. `ahead`, `uncertain`: see policy.checkup.of_clock; None: unknown.
    """

    open: tuple[str, ...]
    lists_refused: int
    objects_refused: int
    failure: str = ""
    ahead: float | None = None
    uncertain: float = 0.0

    @property
    def text(self) -> str | None:
        """What is wrong and what would be right; None where nothing was found to be open."""
        if not self.open:
            return None
        done = ", ".join(self.open[:-1]) + " and " * (len(self.open) > 1) + self.open[-1]
        return (
            f"anyone can {done} without a link; remove the bucket policy or ACL that allows it, and switch on "
            "Block Public Access where the store has it"
        )


@dataclass(frozen=True, slots=True)
class _Ask:
    """`key` None: a list. `own`: the address that the gateway itself uses, where any 2xx gives something away."""

    key: str | None
    url: str
    host: str | None
    own: bool


@dataclass(frozen=True, slots=True)
class _Answer:
    ask: _Ask
    status: int = 0
    gives: bool = False
    failure: str = ""
    ahead: float | None = None
    uncertain: float = 0.0


class _Listing(Bucket):
    """The bucket's own address: what is signed as its "key" is a query."""

    __slots__ = ()

    def address(self, key: str) -> str:
        return f"{self.base}?{key}"


async def exposed(origin: OriginSettings, keys: Sequence[str] = ()) -> str | None:
    """What of the bucket anybody can read, in words, or None. Tries one of `keys` and some that a signed list names.

    Raises OriginError or FileMissing where that could not be found out. Takes PATIENCE seconds at most.
    """
    found, (listed, why) = await asyncio.gather(probe(origin, ()), _listed(origin))
    # A sold file may be gone from the bucket, so it proves less than a listed one, but it is what is at stake.
    objects = [*keys[:1], *listed] if listed else keys
    if found.text is None and objects:
        found = await probe(origin, objects, lists=False)
    if found.text is None and not found.objects_refused:
        raise OriginDown(found.failure or why or "no object is known that could be asked for")
    return found.text


async def refuse_public_bucket(settings: Settings, keys: Sequence[str] = ()) -> None:
    """Raises SettingsError where anybody can read the bucket. That it could not be found out is only logged."""
    if settings.origin.kind != "s3":
        return
    try:
        async with asyncio.timeout(PATIENCE + 1):
            found = await exposed(settings.origin, keys)
    except (OriginError, FileMissing, TimeoutError) as error:
        why = str(error) or "it took too long"
        log.warning("origin: whether anybody can read the bucket was not found out: %s; see gateway doctor", why)
        return
    if found is not None:
        raise SettingsError(f"origin: {found}")


async def sample(origin: OriginSettings, count: int = TRIED, patience: float = PATIENCE / 2) -> list[str]:
    """Keys of some objects that hold bytes, by a signed list. Raises OriginError (ListRefused), FileMissing."""
    at = _bucket(origin)
    signer = Signer(
        _Listing(at.name, "", at.region, at.base),
        origin.access_key.get_secret_value() if origin.access_key else None,
        origin.secret_key.get_secret_value() if origin.secret_key else None,
        origin.session_token.get_secret_value() if origin.session_token else None,
    )
    query = f"list-type=2&max-keys={_PAGE}&prefix={quote(at.prefix, safe='')}"
    try:
        async with asyncio.timeout(patience), _session(patience) as session:
            url, _ = await signer.address("GET", query)
            async with session.get(url, allow_redirects=False) as answer:
                text = (await _start_of(answer, _LIST_BYTES)).decode("utf-8", "replace")
    except TimeoutError:
        raise OriginTimeout(f"the store did not list the bucket within {patience:g} s") from None
    except LIBRARY_ERRORS as error:
        raise broken(error) from None
    if answer.status != HTTPStatus.OK:
        raise _no_list(answer, text, at)
    keys = [key.removeprefix(at.prefix) for key in _keys(text) if key.startswith(at.prefix)]
    # From all over the page: a policy or an ACL may open one folder and not the next.
    return (
        keys if len(keys) <= count else [keys[place * (len(keys) - 1) // max(1, count - 1)] for place in range(count)]
    )


def _no_list(answer: aiohttp.ClientResponse, text: str, at: Bucket) -> GatewayError:
    said = _CODE.search(text)
    code = said[1] if said is not None else ""
    if code == "NoSuchBucket":
        return FileMissing(f"there is no bucket {at.name}; is origin.url right?")
    if code == "AccessDenied":
        return ListRefused("our credentials may not list the bucket")
    if code:
        return OriginDown(f"the store answered {answer.status} {code}: are credentials, region and clock right?")
    return refusal(answer.status, answer.headers)


async def probe(
    origin: OriginSettings, keys: Sequence[str], *, lists: bool = True, patience: float = PATIENCE / 2
) -> Exposure:
    """Ask for the bucket's list and for these objects as anybody could. Raises SettingsError for a wrong address."""
    asks = [*(_list_asks(origin) if lists else ()), *(ask for key in keys[:TRIED] for ask in _asks(origin, key))]
    async with _session(patience) as session:
        answers = await asyncio.gather(*(_answer(session, ask) for ask in asks))
    own = [answer for answer in answers if answer.ask.own]
    refused = [answer for answer in own if answer.status in (401, 403, 404)]
    open_keys = dict.fromkeys(answer.ask.key for answer in answers if answer.gives)
    timed = [answer for answer in answers if answer.ahead is not None]
    return Exposure(
        tuple("list the bucket" if key is None else f"read {key}" for key in open_keys),
        lists_refused=sum(answer.ask.key is None for answer in refused),
        objects_refused=len({answer.ask.key for answer in refused if answer.ask.key is not None} - open_keys.keys()),
        failure=next((answer.failure for answer in own if answer.failure), ""),
        ahead=timed[0].ahead if timed else None,
        uncertain=timed[0].uncertain if timed else 0.0,
    )


def _session(patience: float) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=8, force_close=True),
        timeout=aiohttp.ClientTimeout(total=patience),
        headers={"Accept-Encoding": "identity", "User-Agent": "download-gateway"},
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
    )


async def _listed(origin: OriginSettings) -> tuple[list[str], str]:
    """The objects of a signed list, and why there are none."""
    try:
        return await sample(origin), ""
    except GatewayError as error:
        return [], str(error)


async def _answer(session: aiohttp.ClientSession, ask: _Ask) -> _Answer:
    headers = {} if ask.key is None else {"Range": "bytes=0-0"}
    if ask.host is not None:
        headers["Host"] = ask.host
    began, started = time.time(), time.monotonic()
    try:
        async with session.get(URL(ask.url, encoded=True), headers=headers, allow_redirects=False) as answer:
            took = time.monotonic() - started
            status = answer.status
            good = status in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT)
            start = await _start_of(answer, _HEAD_BYTES) if good and ask.key is None else b""
            part = answer.headers.get("Content-Range", "")
            ours = any(word in start for word in _LISTS) if ask.key is None else part.startswith("bytes 0-0/")
            failure = "" if good or status in (401, 403, 404) else f"the store answered {status} to an unsigned request"
            return _Answer(ask, status, good and (ask.own or ours), failure, *_ahead(answer, began, took))
    except LIBRARY_ERRORS as error:
        return _Answer(ask, failure=str(broken(error)))


def _ahead(answer: aiohttp.ClientResponse, began: float, took: float) -> tuple[float | None, float]:
    """By how much our clock is ahead of the store's, whose Date is cut to whole seconds; and how sure that is."""
    try:
        theirs = parsedate_to_datetime(answer.headers["Date"]).timestamp() + 0.5
    except (KeyError, ValueError, OverflowError):
        return None, 0.0
    return began + took / 2 - theirs, 0.5 + took / 2


def _list_asks(origin: OriginSettings) -> Iterator[_Ask]:
    prefix = _bucket(origin).prefix
    # A policy may open the list of one folder only.
    queries = [*_QUERIES, *([f"{_QUERIES[0]}&prefix={quote(prefix, safe='')}"] if prefix else [])]
    for base, host, own in _bases(origin):
        yield from (_Ask(None, f"{base}?{query}", host, own) for query in queries)


def _asks(origin: OriginSettings, key: str) -> Iterator[_Ask]:
    path = quote(_bucket(origin).prefix + key, safe="/")
    for base, host, own in _bases(origin):
        yield _Ask(key, base + path, host, own)
        if own:
            # Reading a version is a permission of its own, and may be given away by itself.
            yield _Ask(key, f"{base}{path}?versionId=null", host, own=False)


def _bases(origin: OriginSettings) -> list[tuple[str, str | None, bool]]:
    """The bucket's base addresses with the Host to send, the gateway's own first.

    A virtual host that is not the gateway's own need not resolve: the store itself is asked, under that name.
    """
    own, path, virtual = _bucket(origin).base, _bucket(origin, "path").base, _bucket(origin, "virtual").base
    if own == virtual:
        return [(own, None, True), (path, None, False)]
    to, host = urlsplit(own), urlsplit(virtual)
    return [(own, None, True), (f"{to.scheme}://{to.netloc}{host.path}", host.netloc, False)]


def _bucket(origin: OriginSettings, addressing: Addressing | None = None) -> Bucket:
    return bucket(origin.url, origin.endpoint, origin.region, addressing or origin.addressing)


def _keys(text: str) -> list[str]:
    """The keys of a list's objects that hold bytes."""
    found = []
    for entry in _ENTRY.findall(text):
        key, size = _KEY.search(entry), _SIZE.search(entry)
        if key is not None and size is not None and int(size[1]):
            found.append(html.unescape(key[1]))
    return found


async def _start_of(answer: aiohttp.ClientResponse, most: int) -> bytes:
    """The body's first bytes, `most` at most; the connection is not used again."""
    start = b""
    while len(start) < most and (chunk := await answer.content.read(most - len(start))):
        start += chunk
    answer.close()
    return start
