"""The layout of a ZIP, read back by Python's zipfile and by unzip; long ones are read from a file full of holes."""

from __future__ import annotations

import io
import shutil
import subprocess
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.zip import Archive, Member, unique_names

NOON = 1_700_000_000  # 2023-11-14 22:13:20 UTC
GIB = 1 << 30
FILES = [("Zażółć 🌊.txt", b"gesla"), ("empty.bin", b""), ("b.bin", bytes(range(256)) * 40)]


def archive(files: Sequence[tuple[str, bytes]] = FILES) -> Archive:
    return Archive([Member(name, len(data), NOON) for name, data in files])


def written(files: Sequence[tuple[str, bytes]] = FILES, start: int = 0, stop: int | None = None) -> bytes:
    made = archive(files)
    sums = {number: zlib.crc32(data) for number, (_, data) in enumerate(files)}
    parts = []
    for piece in made.pieces(start, made.size if stop is None else stop):
        if piece.kind == "content":
            parts.append(files[piece.number][1][piece.start : piece.stop])
        else:
            parts.append(made.frame(piece, sums))
    return b"".join(parts)


def test_python_reads_it() -> None:
    data = written()
    assert len(data) == archive().size
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        assert opened.testzip() is None
        assert [(info.filename, opened.read(info)) for info in opened.infolist()] == FILES
        for info in opened.infolist():
            assert info.compress_type == zipfile.ZIP_STORED
            assert info.date_time == (2023, 11, 14, 22, 13, 20)
            assert info.flag_bits == 0x808
            assert info.external_attr >> 16 == 0o100644


def test_unzip_reads_it(tmp_path: Path) -> None:
    unzip = shutil.which("unzip")
    if unzip is None:
        pytest.skip("there is no unzip on this machine")
    (tmp_path / "a.zip").write_bytes(written())
    told = subprocess.run([unzip, "-t", tmp_path / "a.zip"], capture_output=True, text=True, check=False)
    assert (told.returncode, "No errors detected" in told.stdout) == (0, True), told.stdout


@pytest.mark.parametrize("program", ["7z", "7za", "7zz", "bsdtar"])
def test_other_programs_read_it(program: str, tmp_path: Path) -> None:
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"there is no {program} on this machine")
    (tmp_path / "a.zip").write_bytes(written())
    options = ["-tf"] if program == "bsdtar" else ["t"]
    told = subprocess.run([found, *options, tmp_path / "a.zip"], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout + told.stderr
    assert "arning" not in told.stdout + told.stderr


@given(st.data())
def test_any_range_is_the_same_bytes(data: st.DataObject) -> None:
    whole = written()
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, len(whole)))
    assert written(start=start, stop=stop) == whole[start:stop]


def test_sums_are_needed_where_they_stand() -> None:
    made = archive()
    pieces = made.pieces(0, made.size)
    assert [piece.kind for piece in pieces] == [
        *("header", "content", "descriptor"),
        *("header", "descriptor"),  # nothing of an empty file
        *("header", "content", "descriptor"),
        "directory",
    ]
    assert [tuple(made.summed(piece)) for piece in pieces if made.summed(piece)] == [(0,), (1,), (2,), (0, 1, 2)]
    assert made.pieces(5, 5) == []


@pytest.mark.parametrize(
    "sizes",
    [
        (0xFFFFFFFE, 7),  # the greatest that is short, and then an offset that is long
        (0xFFFFFFFF, 7),
        (5 * GIB, 0, 5 * GIB),
    ],
)
def test_long_ones(sizes: Sequence[int], tmp_path: Path) -> None:
    """Only the frame is written; the content is a hole in the file, so it is all zeros."""
    made = Archive([Member(f"{number}.bin", size, NOON) for number, size in enumerate(sizes)])
    sums = {number: zlib.crc32(bytes(size)) if size < 100 else 0x1234 for number, size in enumerate(sizes)}
    path, at = tmp_path / "long.zip", 0
    with path.open("wb") as file:
        for piece in made.pieces(0, made.size):
            file.seek(at)
            if piece.kind != "content":
                file.write(made.frame(piece, sums))
            at += piece.length
    assert (path.stat().st_size, at) == (made.size, made.size)
    with zipfile.ZipFile(path) as opened:
        found = opened.infolist()
        assert [(info.file_size, info.compress_size, info.CRC) for info in found] == [
            (size, size, sums[number]) for number, size in enumerate(sizes)
        ]
        with opened.open(found[-1]) as last:  # its header is where the directory says
            assert last.read1(4) == b"\0\0\0\0"
    unzip = shutil.which("zipinfo")
    if unzip is not None and 0xFFFFFFFF not in sizes:  # this very size it takes for the mark that it is elsewhere
        told = subprocess.run([unzip, "-1", path], capture_output=True, text=True, check=True)
        assert told.stdout.split() == [f"{number}.bin" for number in range(len(sizes))]


def test_very_many_members() -> None:
    made = Archive([Member(f"{number}.txt", 0, NOON) for number in range(0xFFFF)])
    sums = dict.fromkeys(range(0xFFFF), 0)
    data = b"".join(made.frame(piece, sums) for piece in made.pieces(0, made.size))
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        assert len(opened.infolist()) == 0xFFFF
        assert opened.read("65534.txt") == b""


@pytest.mark.parametrize(
    ("seconds", "date"),
    [(0, (1980, 1, 1, 0, 0, 0)), (NOON + 1, (2023, 11, 14, 22, 13, 20)), (10**12, (2106, 2, 7, 6, 28, 16))],
)
def test_times_of_any_year(seconds: int, date: tuple[int, ...]) -> None:
    made = Archive([Member("a", 0, seconds)])
    data = b"".join(made.frame(piece, {0: 0}) for piece in made.pieces(0, made.size))
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        assert opened.getinfo("a").date_time == date


def test_names_are_safe_and_unique() -> None:
    names = ["a/Sea.pdf", "../Sea.pdf", "SEA.PDF", "/etc/passwd", "..", "Sea (2).pdf", ".env", ".env", "x", "x"]
    found = unique_names(names)
    assert found[:4] == ["Sea.pdf", "Sea (2).pdf", "SEA (3).PDF", "passwd"]
    assert len({name.casefold() for name in found}) == len(names)
    assert not [name for name in found if "/" in name or "\\" in name or name in (".", "..")]
    assert found[-4:] == [".env", ".env (2)", "x", "x (2)"]
