"""What an S3 answer's head says, checked: anything that is not surely the object's own bytes is an error. No I/O."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from http import HTTPStatus

from gateway.errors import FileMissing, GatewayError, OriginChanged, OriginDown
from gateway.policy.model import ByteRange, StoredObject, Sums
from gateway.store_ports import Headers

_STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e]+"')  # RFC 9110 §8.8.3; obs-text no store sends
_LENGTH = re.compile(r"[0-9]{1,19}")
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19})", re.IGNORECASE)
_REGION = re.compile(r"[a-z0-9-]{1,40}")
_MEDIA_TYPE = re.compile(r"[\x20-\x7e]{1,255}")
_SHA256_BYTES, _CRC32_BYTES = 32, 4
# Some stores keep the upload's own transfer coding as if it were the object's: its bytes are plain all the same.
_PLAIN = {"", "identity", "aws-chunked"}
_HINTS: Mapping[int, str] = {
    301: "the bucket is elsewhere: is the region or endpoint right?",
    307: "the bucket is elsewhere: is the region or endpoint right?",
    400: "is the region right, and are the credentials whole?",
    401: "are the credentials right?",
    403: "are the credentials and the clock right? Without s3:ListBucket a missing key looks like this too",
}


def refusal(status: int, headers: Headers) -> GatewayError:
    """The error that a status other than 200 and 206 stands for."""
    if status == HTTPStatus.NOT_FOUND:
        return FileMissing("the store has no such key")
    if status in (HTTPStatus.PRECONDITION_FAILED, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE):
        return OriginChanged(f"the object was replaced since the download began (the store answered {status})")
    text = f"the store answered {status}"
    if status in _HINTS:
        text += f": {_HINTS[status]}"
    region = headers.get("x-amz-bucket-region", "")
    if status in (301, 307, 400) and _REGION.fullmatch(region):
        text += f" It says that the bucket's region is {region}"
    return OriginDown(text)


def stored_object(key: str, headers: Headers) -> StoredObject:
    """What the 200 to a HEAD says. Raises OriginDown where it lacks what a safe resume needs."""
    _check_plain(headers)
    size = _length(headers)
    if size is None:
        raise OriginDown("the store gave no Content-Length")
    try:
        modified = int(parsedate_to_datetime(headers.get("Last-Modified", "")).timestamp())
    except (ValueError, OverflowError):
        raise OriginDown("the store gave no valid Last-Modified") from None
    content_type = headers.get("Content-Type", "")
    if not _MEDIA_TYPE.fullmatch(content_type):
        content_type = "application/octet-stream"
    return StoredObject(key, size, _etag(headers), max(0, modified), content_type, _sums(headers))


def check_part(stored: StoredObject, part: ByteRange, status: int, headers: Headers) -> None:
    """Whether this 200 or 206 carries exactly `part` of `stored`. Raises OriginChanged, OriginDown."""
    _check_plain(headers)
    if _etag(headers) != stored.etag:
        raise OriginChanged("the object was replaced since the download began (another ETag)")
    length = _length(headers)
    ranges = headers.getall("Content-Range", [])
    if status == HTTPStatus.OK and not ranges:
        # RFC 9110 §14.2 lets a server ignore Range: good only where the whole object was meant, and is surely this one.
        if part != ByteRange(0, stored.size) or length != stored.size:
            raise OriginDown("the store ignored the Range header and answered with something else")
        return
    # Some stores (rclone, lakeFS) say 200 where they mean 206, with the Content-Range of what they send.
    if status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
        raise OriginDown(f"the store answered {status} to a range")
    found = _CONTENT_RANGE.fullmatch(ranges[0]) if len(ranges) == 1 else None
    if found is None or tuple(map(int, found.groups())) != (part.start, part.stop - 1, stored.size):
        raise OriginDown("the store answered with another range than the one asked for")
    if length is not None and length != part.length:
        raise OriginDown("the store's Content-Length does not fit its Content-Range")


def _sums(headers: Headers) -> Sums:
    """Those of the whole object: of one that came in parts S3 may know only a sum of the parts' sums (`…-3`)."""
    if headers.get("x-amz-checksum-type", "FULL_OBJECT") != "FULL_OBJECT":
        return Sums()
    sha256, crc32 = (_decoded(headers.get(f"x-amz-checksum-{name}", "")) for name in ("sha256", "crc32"))
    return Sums(
        sha256.hex() if len(sha256) == _SHA256_BYTES else "",
        int.from_bytes(crc32) if len(crc32) == _CRC32_BYTES else None,
    )


def _decoded(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except ValueError:
        return b""


def _etag(headers: Headers) -> str:
    etags = headers.getall("ETag", [])
    if len(etags) != 1 or not _STRONG_ETAG.fullmatch(etags[0]):
        raise OriginDown("the store gave no strong ETag: a download could not be resumed safely")
    return etags[0]


def _length(headers: Headers) -> int | None:
    lengths = headers.getall("Content-Length", [])
    if not lengths:
        return None
    if len(lengths) != 1 or not _LENGTH.fullmatch(lengths[0]):
        raise OriginDown("the store gave an unclear Content-Length")
    return int(lengths[0])


def _check_plain(headers: Headers) -> None:
    codings = {coding.strip().lower() for coding in ",".join(headers.getall("Content-Encoding", [])).split(",")}
    if not codings <= _PLAIN:
        raise OriginDown("the object comes with a Content-Encoding: it would not arrive as the file it is")
