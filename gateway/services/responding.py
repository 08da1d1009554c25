"""What will be answered for an object that exists: status, headers and body, before anything is charged or opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from urllib.parse import quote

from gateway.http import media
from gateway.http.disposition import content_disposition
from gateway.http.preconditions import Verdict, evaluate, http_date
from gateway.http.ranges import Parts, Unsatisfiable, Whole, multipart, parse
from gateway.policy.model import ByteRange, DownloadRequest, StoredObject

Segment = bytes | ByteRange

_URL_CHARACTERS = "%:/?#[]@!$&'()*+,;=~"
"""RFC 3986 §2: reserved and percent-encoded characters stay; others than these and the unreserved are encoded."""

_SAFE = {
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex, nofollow",
    "Content-Security-Policy": media.SEALED,
}
ALWAYS = {**_SAFE, "Accept-Ranges": "bytes", "Cache-Control": "private, no-transform"}
# A stored redirect would lead to the file without a word to us.
_REDIRECT = {**_SAFE, "Cache-Control": "private, no-store"}


@dataclass(frozen=True, slots=True)
class ResponsePlan:
    """One answer. `length` is its Content-Length; `segments` are sent in order; `start` is −1 for a multipart body.

    `elsewhere`: another server sends the file's bytes, one to which the client is sent, or the proxy in front of us.
    """

    status: int
    headers: Mapping[str, str]
    length: int
    segments: tuple[Segment, ...]
    start: int
    full: bool
    elsewhere: bool = False

    @property
    def sends_body(self) -> bool:
        return bool(self.segments)


def plan_response(
    request: DownloadRequest, stored: StoredObject, name: str, *, now: int, boundary: str, handed: bool = False
) -> ResponsePlan:
    """Preconditions, then ranges (RFC 9110 §13.2.2, §14.2). `now` in Unix s; `boundary`: random text, or
    "": of several ranges the whole is sent, which is always right (§14.2). `handed`: another program sends the body.
    """
    plan = _plan(request, stored, name, now=now, boundary=boundary)
    return replace(plan, elsewhere=True) if handed and plan.sends_body else plan


def _plan(request: DownloadRequest, stored: StoredObject, name: str, *, now: int, boundary: str) -> ResponsePlan:
    evaluation = evaluate(
        request.method,
        stored.etag,
        stored.last_modified,
        now=now,
        if_match=request.if_match,
        if_none_match=request.if_none_match,
        if_modified_since=request.if_modified_since,
        if_unmodified_since=request.if_unmodified_since,
        if_range=request.if_range,
    )
    content_type = media.content_type(stored.key, stored.content_type)
    inline = request.view and media.may_view(content_type)
    headers = {**ALWAYS, "ETag": stored.etag, "Last-Modified": http_date(stored.last_modified)}
    if inline:
        # Also on a 304, whose headers replace those of the stored answer (RFC 9111 §3.2).
        headers["Content-Security-Policy"] = media.viewing_policy(content_type)
        content_type = media.as_viewed(content_type)
    if evaluation.verdict is Verdict.NOT_MODIFIED:
        return ResponsePlan(304, headers, 0, (), 0, False)
    if evaluation.verdict is Verdict.FAILED:
        return ResponsePlan(412, ALWAYS, 0, (), 0, False)
    asked = parse(request.range if evaluation.range_allowed else None, stored.size)
    headers["Content-Disposition"] = content_disposition(name, inline=inline)
    headers["Content-Type"] = content_type
    match asked:
        case Unsatisfiable():
            return ResponsePlan(416, {**ALWAYS, "Content-Range": asked.content_range(stored.size)}, 0, (), 0, False)
        case Whole():
            return _single(request, 200, headers, ByteRange(0, stored.size), stored.size)
        case Parts(ranges=(span,)):
            headers["Content-Range"] = span.content_range(stored.size)
            return _single(request, 206, headers, ByteRange(span.start, span.stop), stored.size)
        case Parts() if not boundary:
            return _single(request, 200, headers, ByteRange(0, stored.size), stored.size)
        case Parts(ranges=spans):
            frame = multipart(spans, stored.size, content_type, boundary)
            headers["Content-Type"] = frame.content_type
            segments: list[Segment] = []
            for head, span in zip(frame.heads, spans, strict=True):
                segments += [head, ByteRange(span.start, span.stop)]
            segments.append(frame.trailer)
            return ResponsePlan(206, headers, frame.content_length, tuple(segments), -1, False)


def plan_redirect(method: str, url: str) -> ResponsePlan:
    """The way to an external file. `url` goes on as the token has it, made safe for a header.

    To HEAD the way is not told: it would be the whole download, and HEAD counts nothing.
    """
    where = {} if method == "HEAD" else {"Location": quote(url, safe=_URL_CHARACTERS)}
    return ResponsePlan(302, {**_REDIRECT, **where}, 0, (), 0, True, elsewhere=True)


def _single(
    request: DownloadRequest, status: int, headers: Mapping[str, str], part: ByteRange, size: int
) -> ResponsePlan:
    body: tuple[Segment, ...] = (part,) if request.method != "HEAD" and part.length else ()
    return ResponsePlan(status, headers, part.length, body, part.start, part.length == size)
