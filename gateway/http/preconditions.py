"""Whether a conditional request goes on, and whether its Range still counts (RFC 9110 §13), in the order of §13.2.2.

What cannot be read never helps the client to a wrong file: a broken date is ignored, a broken If-Match fails,
a broken If-Range gives the whole file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto

_TAG = re.compile(r'(W/)?("[^"\x00-\x20\x7f]*")')
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_CLOCK = r"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_MONTH = f"(?P<month>{'|'.join(_MONTHS)})"
_LONG_DAYS = "Mon|Tues|Wednes|Thurs|Fri|Satur|Sun"
_DATES = (
    re.compile(rf"(?:{'|'.join(_DAYS)}), (?P<day>[0-9]{{2}}) {_MONTH} (?P<year>[0-9]{{4}}) {_CLOCK} GMT"),
    re.compile(rf"(?:{_LONG_DAYS})day, (?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_CLOCK} GMT"),
    re.compile(rf"(?:{'|'.join(_DAYS)}) {_MONTH} (?P<day>[0-9 ][0-9]) {_CLOCK} (?P<year>[0-9]{{4}})"),
)
_SHORT_YEAR = 2
_STRONG_AFTER = 60


class Verdict(Enum):
    """What the preconditions say: send it, 304, or 412."""

    PROCEED = auto()
    NOT_MODIFIED = auto()
    FAILED = auto()


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The verdict, and whether a Range header, if there is one, may be followed."""

    verdict: Verdict
    range_allowed: bool = False


def evaluate(  # noqa: PLR0913 (one for each header of RFC 9110 §13.1)
    method: str,
    etag: str,
    last_modified: int,
    *,
    now: int,
    if_match: str | None = None,
    if_none_match: str | None = None,
    if_modified_since: str | None = None,
    if_unmodified_since: str | None = None,
    if_range: str | None = None,
) -> Evaluation:
    """Evaluate the headers against a file that exists. `last_modified` and `now` (the response's Date) in Unix s."""
    if if_match is not None:
        if not _listed(if_match, etag, strong=True):
            return Evaluation(Verdict.FAILED)
    elif _later(last_modified, if_unmodified_since, now) is True:
        return Evaluation(Verdict.FAILED)

    reading = method in ("GET", "HEAD")
    if if_none_match is not None:
        if _listed(if_none_match, etag, strong=False):
            return Evaluation(Verdict.NOT_MODIFIED if reading else Verdict.FAILED)
    elif reading and _later(last_modified, if_modified_since, now) is False:
        return Evaluation(Verdict.NOT_MODIFIED)

    range_allowed = method == "GET" and (if_range is None or _unchanged(if_range, etag, last_modified, now))
    return Evaluation(Verdict.PROCEED, range_allowed)


def http_date(seconds: int) -> str:
    """Unix seconds as an IMF-fixdate (RFC 9110 §5.6.7), whatever the locale."""
    moment = datetime.fromtimestamp(seconds, UTC)
    day, month = _DAYS[moment.weekday()], _MONTHS[moment.month - 1]
    return f"{day}, {moment.day:02} {month} {moment.year:04} {moment:%H:%M:%S} GMT"


def parse_http_date(text: str, now: int) -> int | None:
    """Unix seconds of any of the three forms of RFC 9110 §5.6.7, or None. `now` places a two-digit year."""
    match = next((match for form in _DATES if (match := form.fullmatch(text.strip(" \t")))), None)
    if match is None:
        return None
    year = int(match["year"])
    if len(match["year"]) == _SHORT_YEAR:
        this_year = datetime.fromtimestamp(now, UTC).year
        year += this_year // 100 * 100
        if year > this_year + 50:
            year -= 100
    try:
        moment = datetime(
            year,
            _MONTHS.index(match["month"]) + 1,
            int(match["day"]),
            int(match["hour"]),
            int(match["minute"]),
            int(match["second"]),
            tzinfo=UTC,
        )
    except ValueError:
        return None
    return int(moment.timestamp())


def _listed(header: str, etag: str, *, strong: bool) -> bool:
    """Whether the header is `*` or lists the ETag (RFC 9110 §8.8.3.2); a list that cannot be read lists nothing."""
    if header.strip(" \t") == "*":
        return True
    if _TAG.sub("", header).strip(" \t,"):
        return False
    return any(_same(weak + opaque, etag, strong=strong) for weak, opaque in _TAG.findall(header))


def _same(one: str, other: str, *, strong: bool) -> bool:
    if strong:
        return one == other and not one.startswith("W/")
    return one.removeprefix("W/") == other.removeprefix("W/")


def _later(last_modified: int, header: str | None, now: int) -> bool | None:
    """Whether the file changed after the header's date; None where there is no date to compare with."""
    since = parse_http_date(header, now) if header is not None else None
    return None if since is None else last_modified > since


def _unchanged(if_range: str, etag: str, last_modified: int, now: int) -> bool:
    """RFC 9110 §13.1.5. A date is a strong validator only when the file was already a minute old (§8.8.2.2)."""
    validator = if_range.strip(" \t")
    if _TAG.fullmatch(validator):
        return _same(validator, etag, strong=True)
    return now - last_modified >= _STRONG_AFTER and parse_http_date(validator, now) == last_modified
