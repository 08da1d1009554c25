"""Content types of what shops sell, by file name, for stores that do not know any; a fixed table, alike everywhere."""

from __future__ import annotations

import re

DEFAULT = "application/octet-stream"
PDF = "application/pdf"
TEXT = "text/plain"
SEALED = "default-src 'none'; sandbox"
"""The Content-Security-Policy of what is only downloaded."""
_STYLED = "default-src 'none'; style-src 'unsafe-inline'"
_UNSAID = frozenset({"", DEFAULT, "binary/octet-stream", "application/x-www-form-urlencoded"})
_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_MEDIA_TYPE = re.compile(rf'{_WORD}/{_WORD}(?: ?; ?{_WORD}=(?:{_WORD}|"[^"\\\x00-\x1f\x7f-\U0010ffff]*"))*')
_LENGTH_MAX = 200

_BY_SUFFIX = {
    # books and papers
    "pdf": "application/pdf",
    "epub": "application/epub+zip",
    "mobi": "application/x-mobipocket-ebook",
    "azw": "application/vnd.amazon.ebook",
    "azw3": "application/vnd.amazon.ebook",
    "djvu": "image/vnd.djvu",
    "cbz": "application/vnd.comicbook+zip",
    "cbr": "application/vnd.comicbook-rar",
    "doc": "application/msword",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "xls": "application/vnd.ms-excel",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "ppt": "application/vnd.ms-powerpoint",
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    "odt": "application/vnd.oasis.opendocument.text",
    "ods": "application/vnd.oasis.opendocument.spreadsheet",
    "rtf": "application/rtf",
    "txt": "text/plain",
    "md": "text/markdown",
    "csv": "text/csv",
    "json": "application/json",
    "xml": "application/xml",
    "html": "text/html",
    "htm": "text/html",
    # sound
    "mp3": "audio/mpeg",
    "m4a": "audio/mp4",
    "m4b": "audio/mp4",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "aif": "audio/aiff",
    "aiff": "audio/aiff",
    "ogg": "audio/ogg",
    "opus": "audio/ogg",
    "mid": "audio/midi",
    # pictures
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "png": "image/png",
    "gif": "image/gif",
    "webp": "image/webp",
    "avif": "image/avif",
    "heic": "image/heic",
    "tif": "image/tiff",
    "tiff": "image/tiff",
    "svg": "image/svg+xml",
    "psd": "image/vnd.adobe.photoshop",
    "ai": "application/postscript",
    "eps": "application/postscript",
    "dng": "image/x-adobe-dng",
    # film
    "mp4": "video/mp4",
    "m4v": "video/mp4",
    "mov": "video/quicktime",
    "mkv": "video/matroska",
    "webm": "video/webm",
    "avi": "video/vnd.avi",
    "srt": "application/x-subrip",
    "vtt": "text/vtt",
    # type, models, patterns
    "ttf": "font/ttf",
    "otf": "font/otf",
    "woff": "font/woff",
    "woff2": "font/woff2",
    "stl": "model/stl",
    "obj": "model/obj",
    "3mf": "model/3mf",
    "glb": "model/gltf-binary",
    "dxf": "image/vnd.dxf",
    # packed
    "zip": "application/zip",
    "7z": "application/x-7z-compressed",
    "rar": "application/vnd.rar",
    "tar": "application/x-tar",
    "gz": "application/gzip",
    "tgz": "application/gzip",
    "iso": "application/x-iso9660-image",
    "dmg": "application/x-apple-diskimage",
    "apk": "application/vnd.android.package-archive",
}

_VIEWABLE = frozenset({PDF, TEXT, "image/jpeg", "image/png", "image/gif", "image/webp", "image/avif"})


def content_type(name: str, stored: str | None = None) -> str:
    """The store's content type where it says something and is a valid media type (RFC 9110 §8.3.1), else by name."""
    said = (stored or "").strip(" \t")
    if len(said) <= _LENGTH_MAX and said.lower() not in _UNSAID and _MEDIA_TYPE.fullmatch(said):
        return said
    return _BY_SUFFIX.get(name.rpartition(".")[2].lower(), DEFAULT)


def may_view(content_type: str) -> bool:
    """Whether a browser may show it inline on the shop's own address: only types in which no script can run."""
    essence = _essence(content_type)
    return essence in _VIEWABLE or essence.startswith(("audio/", "video/"))


def as_viewed(content_type: str) -> str:
    """The content type to show it with: text that does not say its charset is taken for UTF-8, never guessed at."""
    return f"{TEXT}; charset=utf-8" if content_type.strip(" \t").lower() == TEXT else content_type


def viewing_policy(content_type: str) -> str:
    """The strictest Content-Security-Policy in which browsers still show it; for every other type it is SEALED.

    The page that a browser builds around a file obeys the file's own policy: in a sandbox a player may not fetch its
    file, and Safari shows no PDF.
    """
    essence = _essence(content_type)
    if not may_view(essence):
        return SEALED
    if essence == PDF:
        return f"{_STYLED}; object-src 'self'"
    return f"{_STYLED}; media-src 'self'" if essence.startswith(("audio/", "video/")) else f"{_STYLED}; sandbox"


def _essence(content_type: str) -> str:
    return content_type.partition(";")[0].strip(" \t").lower()
