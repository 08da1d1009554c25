"""What callers send: the members of each body and each query, one strict type each; nothing unknown is taken."""

from __future__ import annotations

import re
from datetime import datetime
from ipaddress import ip_network
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, WithJsonSchema, model_validator

from gateway.policy.claims import FILES_MAX, KEY_BYTES_MAX, TEXT_MAX, URL_MAX
from gateway.policy.limits import LIMIT_MAX

EVENTS_MAX = 500
NETWORKS_MAX = 100
_ADDRESS_MAX = 320
_SAID = "[^\\s\\x00-\\x1f\\x7f-\\x9f\\u2028\\u2029]"
_TEXT = f"^{_SAID}(?:[^\\x00-\\x1f\\x7f-\\x9f\\u2028\\u2029]*{_SAID})?$"
"""No control characters, and no spaces around it."""
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII)


def seconds(moment: str) -> int:
    """Unix seconds of an RFC 3339 time. Raises ValueError for what is none."""
    right = "is no time; write one like 2027-01-31T18:00:00Z"
    if not _RFC3339.fullmatch(moment.upper()):
        raise ValueError(right)
    try:
        return int(datetime.fromisoformat(re.sub(r"\.\d+", "", moment.upper())).timestamp())
    except (ValueError, OverflowError):
        raise ValueError(right) from None


def _moment(value: str) -> str:
    seconds(value)
    return value


def _network(value: str) -> str:
    try:
        ip_network(value)
    except ValueError:
        raise ValueError("is no network; write one like 203.0.113.0/24, without host bits") from None
    return value


def _nameless(value: str) -> str:
    if "@" in value:
        raise ValueError("holds an @, and everybody can read a token; write an id that is no e-mail address")
    return value


Text = Annotated[str, StringConstraints(min_length=1, max_length=TEXT_MAX, pattern=_TEXT)]
PublicId = Annotated[Text, AfterValidator(_nameless)]
Moment = Annotated[
    str,
    AfterValidator(_moment),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2027-01-31T18:00:00Z"]}),
]
Network = Annotated[
    str, AfterValidator(_network), WithJsonSchema({"type": "string", "examples": ["203.0.113.0/24", "2001:db8::/32"]})
]
Most = Annotated[int, Field(ge=1, le=LIMIT_MAX)]


class Body(BaseModel):
    """A JSON object of these members only."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class Query(BaseModel):
    """These parameters only."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class NewFile(Body):
    """Either a storage key, or an https address at one of `external_hosts`; `name` is what it is saved as."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["key"]}, {"required": ["url"]}]})

    key: Annotated[str, StringConstraints(min_length=1, max_length=KEY_BYTES_MAX)] = Field(
        default="", examples=["ebooks/sea.pdf"]
    )
    url: Annotated[str, StringConstraints(min_length=9, max_length=URL_MAX, pattern="^https://")] = Field(
        default="", examples=["https://files.example.com/sea.pdf"]
    )
    name: Text | None = Field(default=None, examples=["Sea.pdf"])

    @model_validator(mode="after")
    def _check(self) -> Self:
        if bool(self.key) == bool(self.url):
            raise ValueError("a file has either a key or a url")
        return self


class NewLimits(Body):
    """What the link allows besides its plan, which it can only tighten."""

    valid_after_first: Most | None = Field(default=None, description="Seconds after the first download.")
    downloads: Most | None = Field(default=None, description="Downloads of each file.")
    networks: Most | None = Field(default=None, description="Different networks that may download.")
    devices: Most | None = Field(default=None, description="Different devices that may download.")
    concurrent: Most | None = Field(default=None, description="Downloads at the same time.")
    rate: Most | None = Field(default=None, description="Bytes a second, for all downloads together.")


class AskedLink(Body):
    """A link to be made. Everybody can read a token: no e-mail address belongs into it."""

    files: Annotated[tuple[NewFile, ...], Field(min_length=1, max_length=FILES_MAX)]
    order_id: PublicId | None = Field(default=None, description="Without @.", examples=["10001"])
    customer_id: PublicId | None = Field(default=None, description="Without @.", examples=["C7"])
    plan: Text | None = Field(default=None, description="A plan of the rules file; else its default plan.")
    tier: Text | None = None
    expires: Moment | None = Field(default=None, description="Else as the plan says, else in 30 days.")
    ip: Annotated[tuple[Network, ...], Field(max_length=NETWORKS_MAX)] = ()
    account: bool = Field(default=False, description="Only for the customer, logged in.")
    limits: NewLimits = NewLimits()


class Until(Body):
    """Until when it is to be valid."""

    until: Moment


class Resend(Body):
    """`to` is the order's address from then on; `new_links` where the old ones have expired or are used up."""

    to: Annotated[str, Field(min_length=3, max_length=_ADDRESS_MAX)] | None = Field(
        default=None, examples=["buyer@example.com"]
    )
    new_links: bool = False


class WhichLine(Body):
    """One line of the order, by its id; without it all lines."""

    line: Annotated[str, Field(min_length=1, max_length=TEXT_MAX)] | None = Field(default=None, examples=["1"])


class Email(Body):
    """Where an order's mails go from now on."""

    email: Annotated[str, Field(min_length=3, max_length=_ADDRESS_MAX)] = Field(examples=["buyer@example.com"])


class Freeze(Body):
    """Why downloads are stopped, for buyers. Without a message the one there is stays; an empty one takes it away."""

    message: Text | Literal[""] | None = Field(default=None, examples=["Back at 18:00, after maintenance."])


class Nothing(Body):
    """An empty object, or no body at all."""


class OfOrder(Query):
    """Whose links."""

    order: Text = Field(description="The order's id.")


class Search(Query):
    """What to look for."""

    q: Text = Field(description="An order's id or number, an e-mail address, or a customer's id.")


class Page(Query):
    """Which part of the timeline."""

    after: str | None = Field(
        default=None, pattern=r"^[0-9]{1,15}-[0-9]{1,10}$", description="`next` of the page before."
    )
    limit: int = Field(default=100, ge=1, le=EVENTS_MAX)
