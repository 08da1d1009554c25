"""Exports: files of events, one JSON object a line, gzipped where the name ends in .gz."""

from __future__ import annotations

import gzip
import io
import secrets
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import IO

import msgspec

from gateway.errors import GatewayError
from gateway.ports import Fields

BUFFER = 1 << 20
LINE_MAX = 1 << 20
"""Bytes, more than any event has: a file that is none may be one endless line."""
GZIP = b"\x1f\x8b"
SHARDS_APART = timedelta(minutes=10)
LEVEL = 6
"""Of gzip: what 9 saves besides is a hundredth, for three times the time."""


@contextmanager
def writing(path: Path) -> Iterator[Callable[[Fields], None]]:
    """Gives what writes one event. The file is there when all of them are, and not before; what is no regular file,
    such as a pipe, is written to as they come. Raises GatewayError where it cannot be written.
    """
    with _said(path):
        straight = path.exists() and not path.is_file()
        target = path if straight else path.resolve()
        part = target if straight else target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
        raw = part.open("wb" if straight else "xb")
    packed = gzip.GzipFile("", "wb", LEVEL, raw, mtime=0) if path.suffix == ".gz" else raw
    out = io.BufferedWriter(packed, BUFFER)
    try:
        yield lambda fields: _write(out, fields, path)
        with _said(path):
            out.close()
            raw.close()
            if not straight:
                part.replace(target)
    finally:
        for each in (out, raw):
            with suppress(OSError):
                each.close()
        if not straight:
            part.unlink(missing_ok=True)


def _write(out: IO[bytes], fields: Fields, path: Path) -> None:
    line = msgspec.json.encode(fields) + b"\n"
    try:
        out.write(line)
    except OSError as error:
        raise _unwritable(path, error) from None


@contextmanager
def _said(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _unwritable(path, error) from None


def _unwritable(path: Path, error: OSError) -> GatewayError:
    return GatewayError(f"{path} cannot be written ({error.strerror}); name a file in a folder that can")


class Exports:
    """Several exports, read as one: in the sequence of their first events, each event once."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Raises GatewayError for one that cannot be read."""
        self.size = sum(_checked(path).stat().st_size for path in paths)
        """Bytes in all."""
        self.overlap: Path | None = None
        """One that had events, known from no other, of a time that was already read from those before it."""
        self._paths = sorted(paths, key=_begins)

    def read(self, progress: Callable[[int], None]) -> Iterator[dict[str, str]]:
        """The events; `progress` is told of the bytes read. Raises GatewayError for a line that is none."""
        if len(self._paths) == 1:
            return _read(self._paths[0], progress)
        return self._merged(progress)

    def _merged(self, progress: Callable[[int], None]) -> Iterator[dict[str, str]]:
        seen: set[str] = set()
        latest = read_to = ""
        for path in self._paths:
            for fields in _read(path, progress):
                event_id, time = fields.get("id"), fields.get("time", "")
                if event_id is not None:
                    if event_id in seen:
                        continue
                    seen.add(event_id)
                if time < read_to:
                    self.overlap = path
                latest = max(latest, time)
                yield fields
            read_to = _shortly_before(latest)


def _checked(path: Path) -> Path:
    try:
        with path.open("rb"):
            if path.is_file():
                return path
        raise GatewayError(f"{path} is no regular file, and may have to be read twice; save what it gives to a file")
    except OSError as error:
        raise GatewayError(
            f"{path} cannot be read ({error.strerror}); name a file of `gateway events export`"
        ) from None


def _shortly_before(time: str) -> str:
    """The shards of one export end some moments after one another; "" for what is no time."""
    try:
        return (datetime.fromisoformat(time) - SHARDS_APART).isoformat()
    except (ValueError, OverflowError):
        return ""


def _begins(path: Path) -> str:
    return next((fields.get("time", "") for fields in _read(path, lambda _: None)), "")


def _read(path: Path, progress: Callable[[int], None]) -> Iterator[dict[str, str]]:
    number = told = 0
    decode = msgspec.json.Decoder(dict[str, str]).decode
    with path.open("rb", BUFFER) as raw:
        is_packed = raw.read(2) == GZIP
        raw.seek(0)
        lines: IO[bytes] = io.BufferedReader(gzip.GzipFile(fileobj=raw), BUFFER) if is_packed else raw
        try:
            for number, line in enumerate(iter(partial(lines.readline, LINE_MAX), b""), 1):
                yield decode(line)
                if number % 4096 == 0:
                    progress(raw.tell() - told)
                    told = raw.tell()
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise GatewayError(f"{path}:{number}: is no event; name a file of `gateway events export`") from None
        except (EOFError, OSError, zlib.error):
            raise GatewayError(
                f"{path}:{number + 1}: ends too early or is damaged; name a file of `gateway events export`"
            ) from None
        progress(raw.tell() - told)
