"""The demo's shop files: real ones of several kinds, made here from nothing and the same every time.

Their names have what names have in life: spaces, Polish letters, an emoji.
"""

from __future__ import annotations

import cmath
import hashlib
import io
import math
import wave
import zipfile
import zlib
from array import array
from collections.abc import Callable, Mapping
from pathlib import Path

BOOK = "ebooks/sea.pdf"
NOVEL = "ebooks/Żółw i morze.epub"
TUNE = "music/01 Tide.wav"
STORM = "music/02 Sztorm 🌊.wav"
COVER = "music/cover.png"
TEMPLATES = "templates/budget templates.zip"
TABLE = "extras/tide table.csv"

_SOUND_RATE = 44_100
_SCALE = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11, "c": 12}
_MELODY = "CEGcGEC-FAcAGFE-DFABAFD-CEGcBGE-FAGFEDC-EGcGEGC-FcAFGBG-CGEGcGE-"
_MELODY_SECONDS = 0.5
_LOUDNESS = 9_000
_MIDDLE_C = 261.63
_DECAY = 5
_EPOCH = (2026, 1, 1, 0, 0, 0)
_PNG_SIDE = 256


def write_samples(folder: Path) -> dict[str, str]:
    """Write every sample below `folder`; returns the SHA-256 of each by its storage key. Raises OSError."""
    digests = {}
    for key, make in _SAMPLES.items():
        data = make()
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        digests[key] = hashlib.sha256(data).hexdigest()
    return digests


def _pdf() -> bytes:
    """One page (ISO 32000-1 §7.5: header, body, cross-reference table, trailer)."""
    lines = ("The Sea, in One Page", "", "The tide comes in, the tide goes out.", "Delivered once, counted once.")
    shown = " T* ".join(f"({line}) Tj" for line in lines)
    content = f"BT /F1 24 Tf 32 TL 72 740 Td {shown} ET".encode()
    objects = (
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R /Resources <</Font <</F1 5 0 R>>>> >>",
        b"<< /Length %d >>\nstream\n%b\nendstream" % (len(content), content),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Times-Roman >>",
    )
    data = bytearray(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
    entries = [b"0000000000 65535 f \n"]
    for number, body in enumerate(objects, 1):
        entries.append(b"%010d 00000 n \n" % len(data))
        data += b"%d 0 obj\n%b\nendobj\n" % (number, body)
    table = len(data)
    count = len(entries)
    data += b"xref\n0 %d\n%b" % (count, b"".join(entries))
    data += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (count, table)
    return bytes(data)


def _epub() -> bytes:
    """EPUB 3: a ZIP whose first member says what it is, uncompressed (EPUB 3.3 §4.2.5)."""
    page = (
        '<html xmlns="http://www.w3.org/1999/xhtml"{more}>'
        "<head><title>Żółw i morze</title></head><body>{body}</body></html>"
    )
    chapter = "<h1>Żółw i morze</h1><p>Żółw szedł do morza. Morze czekało.</p>"
    contents = '<nav epub:type="toc"><ol><li><a href="chapter.xhtml">Żółw i morze</a></li></ol></nav>'
    package = """<package xmlns="http://www.idpf.org/2007/opf" version="3.0" unique-identifier="id">
<metadata xmlns:dc="http://purl.org/dc/elements/1.1/">
<dc:identifier id="id">urn:uuid:8a1c2f5e-0000-4000-8000-000000010004</dc:identifier>
<dc:title>Żółw i morze</dc:title><dc:language>pl</dc:language>
<meta property="dcterms:modified">2026-01-01T00:00:00Z</meta></metadata>
<manifest><item id="c" href="chapter.xhtml" media-type="application/xhtml+xml"/>
<item id="n" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/></manifest>
<spine><itemref idref="c"/></spine></package>"""
    container = """<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container" version="1.0">
<rootfiles><rootfile full-path="book.opf" media-type="application/oebps-package+xml"/></rootfiles></container>"""
    members = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": container,
        "book.opf": package,
        "nav.xhtml": page.format(more=' xmlns:epub="http://www.idpf.org/2007/ops"', body=contents),
        "chapter.xhtml": page.format(more="", body=chapter),
    }
    return _zip(members, stored="mimetype")


def _templates() -> bytes:
    month = "category,planned,spent\nrent,2400,\nfood,1200,\nbooks,150,\n"
    year = month.replace("planned", "planned per month")
    return _zip({"month.csv": month, "year.csv": year, "README.txt": "Enjoy!\n"})


def _zip(members: Mapping[str, str], stored: str = "") -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, text in members.items():
            kind = zipfile.ZIP_STORED if name == stored else zipfile.ZIP_DEFLATED
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), text, kind)
    return target.getvalue()


def _tune() -> bytes:
    return _wav(_MELODY, 0)


def _storm() -> bytes:
    return _wav(_MELODY[::-2], -12)


def _wav(melody: str, semitones: int) -> bytes:
    """Stereo, 16 bits; `semitones` moves the whole melody up or down."""
    notes = {name: _note(name, semitones) for name in set(melody)}
    mono = array("h", b"".join(notes[name].tobytes() for name in melody))
    stereo = array("h", bytes(4 * len(mono)))
    stereo[0::2] = stereo[1::2] = mono
    target = io.BytesIO()
    with wave.open(target, "wb") as sound:
        sound.setparams((2, 2, _SOUND_RATE, 0, "NONE", ""))
        sound.writeframes(stereo.tobytes())
    return target.getvalue()


def _note(name: str, semitones: int) -> array[int]:
    """A plucked string, more or less; `-` is a rest."""
    samples = range(int(_SOUND_RATE * _MELODY_SECONDS))
    if name not in _SCALE:
        return array("h", bytes(2 * len(samples)))
    pitch = _MIDDLE_C * 2 ** ((_SCALE[name] + semitones) / 12)
    turn = cmath.exp(complex(-_DECAY, 2 * math.pi * pitch) / _SOUND_RATE)
    sound, swing = array("h"), complex(_LOUDNESS)
    for _ in samples:
        sound.append(int(swing.imag))
        swing *= turn
    return sound


def _png() -> bytes:
    """A sunset over the sea: 8-bit RGB, no filter (PNG §5, §11.2)."""
    rows = bytearray()
    for y in range(_PNG_SIDE):
        sky = y < _PNG_SIDE * 5 // 8
        colour = (255 - y // 2, 90 + y // 2, 60 + y // 2) if sky else (10, 60 + y // 4, 110 + y // 4)
        rows += b"\0" + bytes(colour) * _PNG_SIDE
    header = _PNG_SIDE.to_bytes(4) * 2 + bytes((8, 2, 0, 0, 0))
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4) for kind, data in chunks
    )


def _table() -> bytes:
    rows = (f"2026-07-{day:02d},{day % 24:02d}:{day * 7 % 60:02d},{2 + math.sin(day / 3):.2f}" for day in range(1, 32))
    return "\r\n".join(("date,high tide,height in m", *rows, "")).encode()


_SAMPLES: dict[str, Callable[[], bytes]] = {
    BOOK: _pdf,
    NOVEL: _epub,
    TUNE: _tune,
    STORM: _storm,
    COVER: _png,
    TEMPLATES: _templates,
    TABLE: _table,
}
