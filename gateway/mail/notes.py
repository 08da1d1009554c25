"""What a link allows and until when, in the buyer's words."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.mail.letter import LinkAddresses
from gateway.words import Words

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


def notes(link: LinkAddresses, words: Words, now: int) -> Iterator[str]:
    """One sentence for each limit that a buyer could run into; `now` in Unix seconds."""
    left = duration(link.expires_at - now, words)
    yield words.say("note.until", date=words.date(link.expires_at), duration=left)
    after_first = link.limits.get("valid_after_first")
    if after_first is not None and after_first < link.expires_at - now:
        yield words.say("note.after_first", duration=duration(after_first, words))
    for name in ("downloads", "networks", "devices", "concurrent"):
        most = link.limits.get(name)
        if most is not None:
            yield words.count(f"note.{name}", most)
        if most is not None and name == "downloads":
            yield words.text("note.resume")
    for asked in link.guests:
        yield words.text(f"note.{asked}")
    if link.account:
        yield words.text("note.account")


def duration(seconds: int, words: Words) -> str:
    """About that long, in whole days, hours or minutes; a minute at least."""
    for unit, length, least in (("days", _DAY, 2 * _DAY), ("hours", _HOUR, 2 * _HOUR)):
        # Half an hour short of two days still reads as two days: the mail was composed a little after the link.
        rounded = (seconds + length // 2) // length
        if rounded * length >= least:
            return words.count(f"duration.{unit}", rounded)
    return words.count("duration.minutes", max(1, seconds // _MINUTE))
