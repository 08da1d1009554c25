"""What an event says of its request, as the nouns that decided it: so that it can be decided again.

It is the other side of policy.record; what that leaves out, no condition can ask.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import urlsplit

from gateway.policy.accounts import Account
from gateway.policy.events import LENGTHS
from gateway.policy.fronts import FRONTS, HTTP
from gateway.policy.limits import BY_NAME
from gateway.policy.model import Address, Claims, Facts, FileEntry, Limits, Place
from gateway.policy.record import UNKNOWN

_NUMBER = re.compile(r"[0-9]{1,15}")


class NotRecorded(ValueError):
    """The event does not say enough to decide its request again; the text says what is missing."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """One request for a file. `now` in Unix seconds, `extended_to` too (see Standing), `view`: it was to be shown.

    `place.version` is empty where no geo database was asked. `front`: the door it came by (see policy.fronts).
    """

    claims: Claims
    file: FileEntry
    address: Address
    place: Place
    method: str
    user_agent: str
    now: float
    view: bool
    extended_to: int | None
    front: str
    account: Account | None = None

    def facts(self, plan: str | None) -> Facts:
        """What rules may ask of it under this plan."""
        return Facts(self.claims, self.file, plan, self.address, self.place, self.method, self.user_agent, self.now)


def read_recorded(fields: Mapping[str, str]) -> Recorded:
    """The request of a `download.…` event. Raises NotRecorded."""
    file = file_of(_required(fields, "file.key"))
    return Recorded(
        claims=claims_of(fields, file),
        file=file,
        address=address_of(fields),
        place=place_of(fields),
        method=_required(fields, "http.request.method"),
        user_agent=agent_of(fields),
        now=moment_of(fields),
        view=fields.get("file.use") == "view",
        extended_to=_optional(fields, "token.extended_to"),
        front=front_of(fields),
        account=account_of(fields),
    )


def claims_of(fields: Mapping[str, str], *files: FileEntry) -> Claims:
    """What the token said, without what no rule asks: its issuer, its not-before, its networks and its other files.

    Raises NotRecorded, also for events of versions that did not keep what the token says.
    """
    return Claims(
        issuer="",
        token_id=_required(fields, "token.id"),
        expires_at=number_of(_required(fields, "token.expires_at"), "token.expires_at"),
        files=files,
        issued_at=_optional(fields, "token.issued_at"),
        customer_id=fields.get("customer.id"),
        order_id=fields.get("order.id"),
        plan=fields.get("token.plan"),
        tier=fields.get("tier"),
        account=fields.get("token.account") == "true",
        limits=limits_of(fields.get("token.limits", "")),
    )


@lru_cache(4096)
def limits_of(text: str) -> Limits:
    """What `str(Limits(…))` wrote. Raises NotRecorded."""
    pairs = [entry.partition("=") for entry in text.split(",")] if text else []
    if not all(name in BY_NAME and _NUMBER.fullmatch(value) for name, _, value in pairs):
        raise NotRecorded("its limits are none of this version")
    return Limits(**{name: int(value) for name, _, value in pairs})


@lru_cache(4096)
def file_of(key: str) -> FileEntry:
    """The file of an event's `file.key`; of an external one the address without its query. Raises NotRecorded."""
    if not key.startswith("url:"):
        return FileEntry(key)
    url = key.removeprefix("url:")
    try:
        urlsplit(url)
    except ValueError as error:
        raise NotRecorded("its file's address cannot be read") from error
    return FileEntry(None, url)


def account_of(fields: Mapping[str, str]) -> Account | None:
    """Who had signed in. Of which shops' customers it was one is not recorded: that was asked when they did."""
    return Account(fields["account"]) if "account" in fields else None


def front_of(fields: Mapping[str, str]) -> str:
    """The door that it came by. Raises NotRecorded for one that this version has not."""
    front = fields.get("front", HTTP.name)
    if front not in FRONTS:
        raise NotRecorded("its front door is none of this version")
    return front


def waived_of(fields: Mapping[str, str]) -> frozenset[str]:
    """The limits that its door did not have to keep then."""
    return frozenset(fields["limits.waived"].split(",")) if "limits.waived" in fields else frozenset()


def guests_of(fields: Mapping[str, str]) -> frozenset[str]:
    """What its plan asked then that no rule changes (see Plan.guests)."""
    return frozenset(fields["plan.guests"].split(",")) if "plan.guests" in fields else frozenset()


def place_of(fields: Mapping[str, str]) -> Place:
    """What the geo databases said then."""
    return _place(*[fields.get(name, "") for name in _PLACE]) if "geo.version" in fields else Place()


_PLACE = (
    "geo.version",
    "geo.country.iso_code",
    "geo.continent.code",
    "geo.region.iso_code",
    "geo.city.name",
    "as.number",
    "client.network.type",
)


@lru_cache(4096)
def _place(version: str, country: str, continent: str, region: str, city: str, asn: str, types: str) -> Place:  # noqa: PLR0917  # the fields of _PLACE
    return Place(
        country=None if country in ("", UNKNOWN) else country,
        continent=continent or None,
        region=region or None,
        city=city or None,
        asn=int(asn) if _NUMBER.fullmatch(asn) else None,
        network=None if types == UNKNOWN else frozenset(types.split(",")) if types else frozenset(),
        version=version,
    )


def moment_of(fields: Mapping[str, str]) -> float:
    """When it was decided, in Unix seconds. Raises NotRecorded."""
    try:
        moment = datetime.fromisoformat(fields["time"])
        # Without a zone it would be this machine's, which is not the gateway's.
        if moment.tzinfo is not None:
            return moment.timestamp()
    except (KeyError, ValueError, OverflowError) as error:
        raise NotRecorded("its time cannot be read") from error
    raise NotRecorded("its time cannot be read")


def agent_of(fields: Mapping[str, str]) -> str:
    """The whole User-Agent. Raises NotRecorded."""
    agent = fields.get("user_agent.original", "")
    if len(agent) >= LENGTHS["user_agent.original"]:
        raise NotRecorded("its user agent was too long to be kept whole")
    return agent


def address_of(fields: Mapping[str, str]) -> Address:
    """The client's address. Raises NotRecorded."""
    return _address(_required(fields, "client.address"))


@lru_cache(4096)
def _address(address: str) -> Address:
    try:
        return ip_address(address)
    except ValueError as error:
        raise NotRecorded("its address cannot be read") from error


def _required(fields: Mapping[str, str], name: str) -> str:
    if not (value := fields.get(name)):
        raise NotRecorded(f"it has no {name}")
    return value


def _optional(fields: Mapping[str, str], name: str) -> int | None:
    return number_of(fields[name], name) if name in fields else None


def number_of(text: str, name: str) -> int:
    """The whole number in the field of this name. Raises NotRecorded."""
    if not _NUMBER.fullmatch(text):
        raise NotRecorded(f"its {name} cannot be read")
    return int(text)


_DATABASES = {"city": ("City", "Country", "Enterprise"), "asn": ("ASN", "ISP"), "anonymous": ("Anonymous",)}
"""The part of a database's type (as in its `geo.version`) that tells its kind."""


def databases_of(version: str) -> frozenset[str]:
    """Which geo databases answered, of `city`, `asn`, `anonymous`, by an event's `geo.version`."""
    return frozenset(kind for kind, words in _DATABASES.items() if any(word in version for word in words))
