"""What is given of a request, by people: in a test of the rules, in their documentation, as options of a command.

What is left out is not known: no place, no token's claims, a browser's GET for a file without a name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from ipaddress import IPv4Address, ip_address
from typing import Any, TypeVar
from urllib.parse import urlsplit

from gateway.document import Mistakes, Node, join
from gateway.policy.accounts import Account
from gateway.policy.conditions import INDEXED
from gateway.policy.conditions.times import moment, second
from gateway.policy.conditions.words import UNKNOWN, exact_text, network_type
from gateway.policy.fronts import FRONTS, HTTP
from gateway.policy.model import Address, Claims, Facts, FileEntry, Place
from gateway.policy.networks import unmapped
from gateway.policy.tree_reader import TreeReader, unknown

T = TypeVar("T", Place, Claims, Facts)

NOON = 946_900_800.0
"""Monday, 3 January 2000, 12:00 UTC: when a request is, of which no time is given. The same today and tomorrow."""
LAST = 253_370_764_800.0
"""The first second of the year 9999: a later time has none in some zones."""
NOWHERE = IPv4Address("0.0.0.0")  # noqa: S104  no client has it (RFC 1122 §3.2.1.3)
"""The address of a request of which none is given."""
BROWSER = "Mozilla/5.0"
NONE = "none"
"""Written for a network that is known and of no type, where a list cannot be empty."""


@dataclass(frozen=True, slots=True)
class Given:
    """One request. `view`: the file is to be shown in the browser; `front`: the door it comes by."""

    facts: Facts
    view: bool = False
    front: str = HTTP.name
    account: Account | None = None


def nothing_known(now: float = NOON) -> Given:
    """A request of which nothing is given. `now` in Unix seconds."""
    claims = Claims(issuer="", token_id="", expires_at=0, files=())
    return Given(Facts(claims, FileEntry(""), None, NOWHERE, Place(), "GET", BROWSER, now))


def taken(given: Given, key: str, text: str) -> Given:
    """The same with this one in place of what was known of it. Raises ValueError saying what is wrong with it."""
    facts = given.facts
    if key in _PLACE:
        return replace(given, facts=replace(facts, place=_PLACE[key](facts.place, text)))
    if key in _CLAIMS:
        claims = _CLAIMS[key](facts.claims, text)
        return replace(given, facts=replace(facts, claims=claims, plan=claims.plan or facts.plan))
    if key in _FACTS:
        return replace(given, facts=_FACTS[key](facts, text))
    if key == "front":
        return replace(given, front=_front(text))
    if key == "signed_in":
        return replace(given, account=Account(exact_text(text)))
    return replace(given, view=_truth(text))


def networks(texts: Collection[str]) -> frozenset[str] | None:
    """The types that an address's network is known to have; None: it is not known. Raises ValueError."""
    types = {network_type(text) for text in texts if text != NONE}
    if len(texts) > 1 and (None in types or NONE in texts):
        raise ValueError(f"is no type beside others; write {UNKNOWN} or {NONE} alone")
    return None if None in types else frozenset(text for text in types if text is not None)


def written(given: Given) -> dict[str, str | list[str]]:
    """What `GivenReader.given` reads as this, to the second; what is not known is left out, and so is an external
    address's query (see FileEntry.recorded).
    """
    facts, claims, place = given.facts, given.facts.claims, given.facts.place
    unsaid = nothing_known().facts
    known: dict[str, object] = {
        **{kind.key: kind.fact(facts) for kind in INDEXED if kind.fact(facts) != kind.fact(unsaid)},
        "ip": None if facts.address == NOWHERE else facts.address,
        "network": None if place.network is None else sorted(place.network),
        "file": facts.file.key or facts.file.recorded.removeprefix("url:") or None,
        "plan": claims.plan,
        "user_agent": None if facts.user_agent == BROWSER else facts.user_agent,
        "time": second(facts.now),
        "account": "true" if claims.account else None,
        "signed_in": None if given.account is None else given.account.customer_id,
        "view": "true" if given.view else None,
        "front": None if given.front == HTTP.name else given.front,
    }
    shown = {key: known[key] for key in KEYS if known.get(key) is not None}
    return {key: value if isinstance(value, list) else str(value) for key, value in shown.items()}


@dataclass(slots=True)
class GivenReader(TreeReader):
    """Reads a `given:`. `plans`: the names of those that there are."""

    plans: Collection[str]
    mistakes: Mistakes = field(default_factory=Mistakes)

    def given(self, node: Node, key: str) -> Given:
        """What a mapping says of a request. Mistakes go to the reader."""
        found = nothing_known()
        if not isinstance(node.value, dict):
            self.mistakes.add(node, key, "is no mapping; write {country: PL, file: masters/a.wav}, or {} for nothing")
            return found
        for name, child in self.section(node, key, KEYS, "fact of a request").members.items():
            found = self._taken(found, name, child, join(key, name))
        return found

    def _taken(self, given: Given, name: str, node: Node, key: str) -> Given:
        if name == "network" and isinstance(node.value, list):
            texts = [self.text(each, join(key, at), "write one type") for at, each in enumerate(node.value)]
            try:
                types = networks([text for text in texts if text is not None])
            except ValueError as error:
                self.wrong(node, key, str(error))
                return given
            return with_networks(given, types)
        text = self.text(node, key, "write one value, or leave it out")
        if text is None:
            return given
        if name == "plan" and text not in self.plans:
            self.mistakes.add(node, key, unknown("plan of the rules file", text, self.plans, "add it under plans"))
            return given
        try:
            return taken(given, name, text)
        except ValueError as error:
            self.wrong(node, key, str(error))
            return given


def with_networks(given: Given, types: frozenset[str] | None) -> Given:
    """The same with these types of network, see `networks`."""
    return replace(given, facts=replace(given.facts, place=replace(given.facts.place, network=types)))


def _address(text: str) -> Address:
    try:
        return unmapped(ip_address(text))
    except ValueError:
        raise ValueError("is no address; write one such as 203.0.113.9 or 2001:db8::1") from None


def file_given(text: str) -> FileEntry:
    """A key, or an address of an external file. Raises ValueError."""
    if "://" in text:
        try:
            urlsplit(text).hostname  # noqa: B018  read as decide reads it, which has nobody to tell what is wrong
        except ValueError:
            raise ValueError("is no address; write one such as https://cdn.example.com/a.zip") from None
        return FileEntry(None, text)
    if text.startswith("/") or text.endswith("/") or not text:
        raise ValueError("is no file's key; write it without a slash at its ends, such as masters/a.wav")
    return FileEntry(text)


def _time(text: str) -> float:
    seconds = moment(text)
    if not 0 <= seconds < LAST:
        raise ValueError("is no time that a request can have; write one between 1970 and 9998")
    return seconds


def _truth(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("is not what can stand here; write true or false")
    return text == "true"


def _front(text: str) -> str:
    if text not in FRONTS:
        raise ValueError(f"is no front door; write one of {', '.join(FRONTS)}")
    return text


def _own(noun: type[T]) -> Mapping[str, Callable[[T, str], T]]:
    """The conditions whose fact this noun holds under their own key: what is given is read by their word."""
    names = {each.name for each in fields(noun)}
    return {kind.key: _setter(kind.key, kind.word) for kind in INDEXED if kind.key in names}


def _setter(name: str, word: Callable[[str], Any]) -> Callable[[T, str], T]:
    return lambda noun, text: replace(noun, **{name: word(text)})


_PLACE: Mapping[str, Callable[[Place, str], Place]] = {
    **_own(Place),
    "network": lambda place, text: replace(place, network=networks([text])),
}
_CLAIMS: Mapping[str, Callable[[Claims, str], Claims]] = {
    **_own(Claims),
    "order": lambda claims, text: replace(claims, order_id=exact_text(text)),
    "customer": lambda claims, text: replace(claims, customer_id=exact_text(text)),
    "account": lambda claims, text: replace(claims, account=_truth(text)),
}
_FACTS: Mapping[str, Callable[[Facts, str], Facts]] = {
    "ip": lambda facts, text: replace(facts, address=_address(text)),
    "file": lambda facts, text: replace(facts, file=file_given(text)),
    "user_agent": lambda facts, text: replace(facts, user_agent=text),
    **_own(Facts),
    "time": lambda facts, text: replace(facts, now=_time(text)),
}

KEYS = tuple(dict.fromkeys(("ip", *_PLACE, "file", *_CLAIMS, *_FACTS, "signed_in", "view", "front")))
"""What can be given of a request."""
