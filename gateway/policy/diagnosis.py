"""Why nothing was sent, or a download failed: an order's links and events as findings, each with what support can do.

What stands in the way now comes first, then what failed last. Nothing is guessed: a finding says what was seen.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum
from typing import TypeVar

from gateway.policy.attempts import Attempt, Event, attempts, number
from gateway.policy.explanations import CUT, INTERNAL, LEFT_OFTEN, LEFT_ONCE, LOST, REFUSED, Explanation, Side
from gateway.policy.fronts import is_sent_by_another
from gateway.policy.limits import BY_NAME, Downloads, ValidAfterFirst
from gateway.policy.links import Link
from gateway.policy.looks import apart, signs
from gateway.policy.model import FileEntry, Limits
from gateway.policy.reasons import Reason
from gateway.policy.standing import Standing
from gateway.policy.units import format_duration, human_size

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

OFTEN = 2
"""What the buyer's side closed so often is the network's matter, not a change of mind."""


_BY_US = {"link.created", "link.revoked", "link.extended"}


class _Rank(IntEnum):
    """In which order findings are told."""

    BLOCKED = 0
    REFUSED = 1
    FAILED = 2
    OVER = 3
    WELL = 4


@dataclass(frozen=True, slots=True)
class LinkNow:
    """A registered link as it stands: `limits` with its plan's, `expires_at` (Unix s) as extended, downloads `used`
    by file identity.
    """

    link: Link
    limits: Limits
    expires_at: int
    used: Mapping[str, int]
    revoked: bool = False
    first: float | None = None
    """When its first download that is still charged began, in Unix seconds."""

    @property
    def token_id(self) -> str:
        return self.link.claims.token_id


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that explains. `side` whose matter it is, None where nothing is wrong; `now`: it still stands in the
    way; `facts`: event fields, with `count` and `first` where it happened more than once.
    """

    side: Side | None
    now: bool
    text: str
    todo: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Told:
    finding: Finding
    rank: _Rank
    time: str


def diagnosis(links: Sequence[LinkNow], events: Iterable[Event], now: float) -> list[Finding]:
    """What is to be said of one order; `events` are its own, oldest first, `now` in Unix seconds.

    Empty where nothing is known. A link that was not registered here is known by its events alone.
    """
    kept = list(events)
    of_token: dict[str, list[Event]] = {link.token_id: [] for link in links}
    for event in kept:
        # What people did with a link is not what became of it.
        if (token := event.get("token.id")) and event.get("type") not in ("staff.acted", "buyer.acted"):
            of_token.setdefault(token, []).append(event)
    known = {link.token_id: link for link in links}
    renewed = {event.get("token.id"): event for event in kept if event.get("buyer.action") == "link.renew"}
    told: list[_Told] = []
    for token, own in of_token.items():
        found = list(_of_link(token, known.get(token), own, now))
        if token in renewed:
            # Whatever this one refuses, another stands in its place.
            found = [_renewed(token, renewed[token]), *(each for each in found if each.rank is _Rank.WELL)]
        told += found
    if not of_token:
        told = [_order_revoked(event) for event in kept if event.get("type") == "link.revoked"]
    told.sort(key=lambda each: each.time, reverse=True)
    told.sort(key=lambda each: each.rank)
    return [each.finding for each in told]


def frozen_finding(standing: Standing) -> list[Finding]:
    """What stands in everybody's way."""
    if standing.frozen is None:
        return []
    said = f"all downloads are stopped since {_utc(standing.frozen.since)}"
    return [Finding("gateway", True, said, REFUSED[Reason.FROZEN].todo, {"reason": Reason.FROZEN.text})]


def _of_link(token: str, link: LinkNow | None, events: list[Event], now: float) -> Iterator[_Told]:
    events, looks = apart(events)
    done = attempts(events)
    standing = [] if link is None else list(_standing(link, events, now))
    yield from standing
    said = {_topic(each.finding.facts) for each in standing}
    denied = [event for event in events if event.get("type") == "download.denied"]
    for group in _groups(denied, lambda event: (event.get("file.key"), event.get("reason"), event.get("rule"))):
        if _topic(group[-1]) not in said:
            yield _refused(group, link, done, events, now)
    stopped = [attempt for attempt in done if not attempt.is_whole and not attempt.is_running]
    for broken in _groups(stopped, lambda attempt: (attempt.file, attempt.outcome, attempt.last.get("reason"))):
        yield _failed(broken, link, done)
    if not done and not denied and not standing:
        yield _never_used(token, link, events, "never opened by a person" if looks else "never opened")
    for own in _groups([attempt for attempt in done if attempt.is_whole], lambda attempt: attempt.file):
        yield _well(own)
    for attempt in done:
        if attempt.is_running and not attempt.is_whole:
            yield _running(attempt)
    if looks:
        yield _looked(token, looks)


def _standing(link: LinkNow, events: list[Event], now: float) -> Iterator[_Told]:
    """What the link itself refuses now: one thing of the whole link, and the files that are used up."""
    claims = link.link.claims
    after_first = link.limits.get(ValidAfterFirst.name)
    if link.revoked:
        revoked = [_at(event) for event in events if event.get("type") == "link.revoked"]
        yield _blocked(Reason.TOKEN_REVOKED, link, events, f"was revoked{f' at {revoked[-1]}' if revoked else ''}")
    elif link.expires_at <= now:
        yield _blocked(Reason.TOKEN_EXPIRED, link, events, f"expired at {_utc(link.expires_at)}")
    elif claims.not_before is not None and claims.not_before > now:
        yield _blocked(Reason.TOKEN_NOT_YET, link, events, f"is not valid before {_utc(claims.not_before)}")
    elif link.first is not None and after_first is not None and link.first + after_first <= now:
        said = f"was valid for {format_duration(after_first)} after its first download at {_utc(link.first)}"
        yield _blocked(Reason.TOKEN_EXPIRED, link, events, said)
    most = link.limits.get(Downloads.name)
    for file in claims.files:
        if most is not None and link.used.get(file.identity, 0) >= most:
            own = [event for event in events if event.get("file.key") == file.recorded]
            said = f"has used {link.used[file.identity]} of {most} downloads of {file.recorded}"
            last = [event for event in own if event.get("type") == "download.allowed"]
            said += f", the last at {_at(last[-1])}{_from(last[-1])}" if last else ""
            yield _blocked(Reason.LIMIT_DOWNLOADS, link, own, said, file=file.recorded)


def _blocked(reason: Reason, link: LinkNow, events: list[Event], said: str, file: str | None = None) -> _Told:
    words = REFUSED[reason]
    claims = link.link.claims
    facts = {"reason": reason.text, "token.id": claims.token_id, "order.id": claims.order_id or ""}
    facts |= {"file.key": file} if file is not None else {}
    refused = [event for event in events if event.get("reason") == reason.text]
    if refused:
        said += f"; refused for that {_times(refused)}"
    elif file is None and _is_unopened(events):
        said += "; it was never opened"
    named = {**facts, "file.key": file or claims.files[0].recorded}
    finding = Finding(words.side, True, f"the link {claims.token_id} {said}", _filled(words.todo, named, link), facts)
    return _Told(finding, _Rank.BLOCKED, refused[-1].get("time", "") if refused else "")


def _refused(group: list[Event], link: LinkNow | None, done: list[Attempt], events: list[Event], now: float) -> _Told:
    last = group[-1]
    reason = _named(last)
    words = INTERNAL if reason is None else REFUSED[reason]
    said = f"{last.get('file.key', 'the link')} was refused {_times(group)}: {_filled(words.text, last, link)}"
    said += f" ({last.get('reason', 'no reason')})"
    since = _since(last, done)
    if since is not None:
        said += f"; it was downloaded after that, at {_at(since.last)}"
    elif reason is Reason.TOKEN_EXPIRED and (extended := _later(last, events, "link.extended")):
        said += f"; it was extended after that, at {_at(extended)}"
    elif reason is Reason.TOKEN_NOT_YET and link is not None and (link.link.claims.not_before or 0) <= now:
        said += "; it has begun since"
    else:
        rank = _Rank.REFUSED if words.lasts else _Rank.FAILED
        todo = _filled(words.todo, last, link)
        return _Told(Finding(words.side, words.lasts, said, todo, _facts(group)), rank, last.get("time", ""))
    return _Told(Finding(words.side, False, said, "", _facts(group)), _Rank.OVER, last.get("time", ""))


def _failed(group: list[Attempt], link: LinkNow | None, done: list[Attempt]) -> _Told:
    last = group[-1].last
    words = _why(group)
    got = f"{human_size(group[-1].delivered)} of {human_size(number(last, 'file.size'))}"
    said = f"{last.get('file.key', 'the file')} was broken off {_times([each.last for each in group])}, after {got}: "
    said += _filled(words.text, last, link)
    said += f" ({last['reason']})" if "reason" in last else ""
    since = _since(last, done)
    if since is not None:
        said += f"; it was downloaded after that, at {_at(since.last)}"
    todo = "" if since else _filled(words.todo, last, link)
    facts = {**_facts([each.last for each in group]), "bytes.delivered": str(group[-1].delivered)}
    finding = Finding(words.side, words.lasts and since is None, said, todo, facts)
    return _Told(finding, _Rank.OVER if since else _Rank.FAILED, group[-1].time)


def _why(group: list[Attempt]) -> Explanation:
    last = group[-1].last
    match group[-1].outcome:
        case "lost":
            return LOST
        case "client_left" | "complete":
            return LEFT_OFTEN if sum(len(each.endings) for each in group) >= OFTEN else LEFT_ONCE
        case "origin_failed":
            return REFUSED[_named(last) or Reason.ORIGIN_DOWN]
        case _:
            return CUT.get(last.get("reason", ""), INTERNAL)


def _never_used(token: str, link: LinkNow | None, events: list[Event], never: str) -> _Told:
    opened = [event for event in events if event.get("type") == "link.opened"]
    facts = {"token.id": token, "order.id": link.link.claims.order_id or "" if link else ""}
    if opened:
        said = f"the link {token} was opened {_times(opened)}, and no download from its page was counted"
        todo = "ask the buyer to press the button on the page, and to try another browser where nothing happens"
        return _Told(Finding("buyer", True, said, todo, {**facts, **_facts(opened)}), _Rank.REFUSED, _time(opened))
    if not _is_unopened(events):
        said = f"of the link {token} no download and no opening is known, as far back as events are kept"
        return _Told(Finding(None, False, said, "", facts), _Rank.FAILED, _time(events))
    said = f"the link {token} was made at {_at(events[0])} and {never}"
    said += "; whether it was mailed is not known to the gateway"
    todo = "see in the shop's mail whether it was sent and where to, and send it again; where it is lost, "
    todo += "`gateway link create {new}` makes another"
    named = {**facts, "file.key": link.link.claims.files[0].recorded if link is not None else ""}
    return _Told(Finding("mail", True, said, _filled(todo, named, link), facts), _Rank.REFUSED, _time(events))


def _looked(token: str, events: list[Event]) -> _Told:
    looks = [event for event in events if event.get("type") in {"link.opened", "download.allowed"}] or events
    said = f"what seems to be a mail scanner was at the link {token} {_times(looks)}: {signs(looks[-1])}"
    said += "; nothing was counted" if any("transfer.id" in event for event in looks) else ""
    return _Told(Finding(None, False, said, "", _facts(looks)), _Rank.WELL, _time(looks))


def _is_unopened(events: list[Event]) -> bool:
    """Whether everything since the link was made is kept, and nobody but the ops did anything with it."""
    kinds = [event.get("type") for event in events]
    return "link.created" in kinds and set(kinds) <= _BY_US


def _order_revoked(event: Event) -> _Told:
    said = f"all links of the order that were made until {_at(event)} are revoked, which is final"
    todo = _filled(REFUSED[Reason.TOKEN_REVOKED].todo, event, None)
    return _Told(Finding("rule", True, said, todo, _facts([event])), _Rank.BLOCKED, event.get("time", ""))


def _renewed(token: str, event: Event) -> _Told:
    said = f"the link {token} was used up, and its buyer had it renewed at {_at(event)}: another one took its place"
    return _Told(Finding("buyer", False, said, "", _facts([event])), _Rank.OVER, _time([event]))


def _well(whole: list[Attempt]) -> _Told:
    last = whole[-1].last
    file = last.get("file.key", "the file")
    if file.startswith("url:"):
        said = f"the buyer was sent on to {file.removeprefix('url:')}, and counted,"
    elif is_sent_by_another(last):
        said = f"{file} was handed to the proxy in front, which sends it and does not tell how much arrived,"
    else:
        said = f"{file} was downloaded completely"
    said += f" {_times([each.last for each in whole])}"
    return _Told(Finding(None, False, said, "", _facts([each.last for each in whole])), _Rank.WELL, whole[-1].time)


def _running(attempt: Attempt) -> _Told:
    said = f"{attempt.file or 'the file'} is being downloaded since {_at(attempt.last)}{_from(attempt.last)}"
    return _Told(Finding(None, False, said, "", _facts([attempt.last])), _Rank.WELL, attempt.time)


def _groups(items: Iterable[T], key: Callable[[T], K]) -> list[list[T]]:
    found: dict[K, list[T]] = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    return list(found.values())


def _topic(event: Event) -> tuple[str, str]:
    """What a link's own state and its refusals may both be about; downloads are used up file by file."""
    reason = event.get("reason", "")
    return reason, event.get("file.key", "") if reason == Reason.LIMIT_DOWNLOADS.text else ""


def _since(last: Event, done: list[Attempt]) -> Attempt | None:
    """A whole download of the same file, or of any where the event names none, that ended after this."""
    file, time = last.get("file.key"), last.get("time", "")
    later = (each for each in done if each.is_whole and each.time > time and file in (None, each.file))
    return next(later, None)


def _later(last: Event, events: list[Event], kind: str) -> Event | None:
    return next((each for each in events if each.get("type") == kind and each["time"] > last.get("time", "")), None)


def _named(event: Event) -> Reason | None:
    try:
        return Reason.named(event.get("reason", ""))
    except KeyError:
        return None


def _filled(text: str, event: Event, link: LinkNow | None) -> str:
    """The placeholders of policy.explanations, quoted for a shell where they stand in a command."""
    reason = event.get("reason", "")
    most = link.limits.get(reason.removeprefix("limit.")) if link is not None else None
    parts = text.split("`")
    token = event.get("token.id") if link is not None else None
    for place, part in enumerate(parts):
        quote: Callable[[str], str] = shlex.quote if place % 2 else str
        parts[place] = part.format(
            token=quote(token or "LINK"),
            new=_as_sold(event, link),
            file=quote((event.get("file.key") or "FILE").removeprefix("url:")),
            rule=event.get("rule", ""),
            by_rule=f", as the rule {event['rule']} says" if "rule" in event else "",
            address=event.get("client.address", "the buyer's address"),
            request=f"request {event['request.id']}" if "request.id" in event else "its request",
            event=quote(event.get("request.id") or "REQUEST"),
            limit="" if most is None else f" ({most})",
            door=f" ({event['front']})" if "front" in event else "",
        )
    filled = "`".join(parts)
    return f"{filled} (LINK: the link itself, which the buyer has)" if token is None and "LINK" in filled else filled


def _as_sold(event: Event, link: LinkNow | None) -> str:
    """The options that make a link like this one for the event's file, quoted for a shell."""
    key = event.get("file.key") or "FILE"
    options = {"order": event.get("order.id") or "ORDER", "file": key.removeprefix("url:")}
    if link is not None:
        claims = link.link.claims
        file = next((file for file in claims.files if file.recorded == key), FileEntry(key))
        options["file"] = file.identity.removeprefix("url:")
        sold = {"name": file.name, "customer": claims.customer_id, "plan": claims.plan, "tier": claims.tier}
        options |= {option: value for option, value in sold.items() if value is not None}
        options |= {name: BY_NAME[name].write(value) for name, value in claims.limits.values}
    written = [f"--{option.replace('_', '-')} {shlex.quote(value)}" for option, value in options.items()]
    written += [f"--ip {network}" for network in (link.link.claims.ip if link is not None else ())]
    return " ".join(written)


def _facts(events: Sequence[Event]) -> dict[str, str]:
    count = {"count": str(len(events)), "first": events[0].get("time", "")} if len(events) > 1 else {}
    return {**events[-1], **count}


def _times(events: Sequence[Event]) -> str:
    last = f"{_at(events[-1])}{_from(events[-1])}"
    return f"at {last}" if len(events) == 1 else f"{len(events)} times, last at {last}"


def _time(events: Sequence[Event]) -> str:
    return events[-1].get("time", "") if events else ""


def _from(event: Event) -> str:
    if "client.address" not in event:
        return ""
    country = event.get("geo.country.iso_code")
    return f" from {event['client.address']}" + (f" ({country})" if country else "")


def _at(event: Event) -> str:
    return event.get("time", "")[:19].replace("T", " ") + " UTC"


def _utc(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
