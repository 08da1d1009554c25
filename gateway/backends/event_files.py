"""Exports: files of events, one JSON object a line, gzipped where the name ends in .gz."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
LEVEL = 6
"""Of gzip: what 9 saves besides is a hundredth, for three times the time."""


@contextmanager
def writing(path: Path) -> Iterator[Callable[[Fields], None]]:
    """Gives what writes one event. The file is there when all of them are, and not before. Raises GatewayError."""
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as raw:
            packed = gzip.GzipFile("", "wb", LEVEL, raw, mtime=0) if path.suffix == ".gz" else raw
            with io.BufferedWriter(packed, BUFFER) as out:
                yield lambda fields: _write(out, fields)
        part.replace(path)
    except OSError as error:
        raise GatewayError(f"{path} cannot be written ({error.strerror}); name a file in a folder that can") from None
    finally:
        part.unlink(missing_ok=True)


def _write(out: IO[bytes], fields: Fields) -> None:
    out.write(msgspec.json.encode(fields) + b"\n")


class Exports:
    """Several exports, read as one: in the sequence of their first events, each event once."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Raises GatewayError for one that cannot be read."""
        self.size = sum(_checked(path).stat().st_size for path in paths)
        """Bytes in all."""
        self._paths = sorted(paths, key=_begins)

    def read(self, progress: Callable[[int], None]) -> Iterator[dict[str, str]]:
        """The events; `progress` is told of the bytes read. Raises GatewayError for a line that is none."""
        if len(self._paths) == 1:
            return _read(self._paths[0], progress)
        return self._merged(progress)

    def _merged(self, progress: Callable[[int], None]) -> Iterator[dict[str, str]]:
        seen: set[str] = set()
        for path in self._paths:
            for fields in _read(path, progress):
                event_id = fields.get("id", "")
                if event_id not in seen:
                    seen.add(event_id)
                    yield fields


def _checked(path: Path) -> Path:
    try:
        with path.open("rb"):
            return path
    except OSError as error:
        raise GatewayError(
            f"{path} cannot be read ({error.strerror}); name a file of `gateway events export`"
        ) from None


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
