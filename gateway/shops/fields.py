"""The kinds of fields that shops' orders have in common: how each is written, and what of it can be meant.

What shops send of their own is cleaned and shortened; `Strict…` are for senders who can put it right, and refuse.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, Decimal
from typing import Annotated

from pydantic import BeforeValidator, Field

from gateway.http.forwarded import parse_address
from gateway.policy.claims import TEXT_MAX, TIME_MAX
from gateway.policy.events import clean
from gateway.policy.model import Address
from gateway.policy.orders import ALL, Buyer, Line, order_id_of
from gateway.policy.standing import is_order_id

ID_MAX = 200
QUANTITY_MAX = 1_000_000
LINES_MAX = 1000

_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)?", re.ASCII)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_EMAIL = re.compile(r"[^\s@<>(),;:\"\[\]\\]{1,64}@[^\s@<>(),;:\"\[\]\\]{1,189}")
_LANGUAGE = re.compile(r"[A-Za-z]{2,8}([-_][A-Za-z0-9]{1,8}){0,3}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LONGEST_SHOP = "s" * 31
_NO_ID = (None, "", 0, "0")


def _id(value: object) -> str:
    """A shop's own id as text: a whole number, or a text that an order's id in a token can hold."""
    text = str(value) if type(value) is int and value >= 0 else value
    if not isinstance(text, str) or not 1 <= len(text) <= ID_MAX or not is_order_id(order_id_of(_LONGEST_SHOP, text)):
        raise ValueError(f"is no id; write a whole number, or a text of 1 to {ID_MAX} characters without controls")
    if text != text.strip() or text == ALL:
        raise ValueError(f"is no id; it has spaces around it, or is {ALL}, which stands for all lines")
    return text


def _id_or_none(value: object) -> str:
    """Some shops write 0 for what is not there."""
    return "" if value in _NO_ID else _id(value)


def _text(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError("is no text")
    return clean(value.strip(), TEXT_MAX).strip()


def _strict_text(value: object) -> str:
    text = _text(value)
    if value is not None and text != value:
        raise ValueError(f"is no text of at most {TEXT_MAX} characters, without controls and without spaces around it")
    return text


def _email(value: object) -> str:
    """ "" for what no mail can be sent to: the order is good without it."""
    text = _text(value)
    return text if is_email(text) else ""


def _strict_email(value: object) -> str:
    text = _strict_text(value)
    if text and not is_email(text):
        raise ValueError("is no mail address; write only the address, like buyer@example.com")
    return text


def is_email(text: str) -> bool:
    """Whether it can be a mail's recipient: one @, printable, nothing that would end or add an address."""
    return _EMAIL.fullmatch(text) is not None and text.isprintable() and text == clean(text)


def _ip(value: object) -> Address | None:
    """None for what is no address: the order is good without it."""
    return parse_address(value.strip()) if isinstance(value, str) else None


def _strict_ip(value: object) -> Address | None:
    address = _ip(value)
    if address is None and value is not None:
        raise ValueError("is no IP address; write it like 203.0.113.9 or 2001:db8::1")
    return address


def _language(value: object) -> str:
    text = _text(value)
    return text.replace("_", "-") if _LANGUAGE.fullmatch(text) else ""


def _strict_language(value: object) -> str:
    text = _strict_text(value)
    if text and not _LANGUAGE.fullmatch(text):
        raise ValueError("is no language; write it like pl or pt-BR")
    return text


def _quantity(value: object) -> int:
    """Whole pieces; of what is sold by weight a part counts as one. 0 is a line that was taken out of its order."""
    if isinstance(value, Decimal) and -QUANTITY_MAX <= value <= QUANTITY_MAX:
        value = int(value.to_integral_value(ROUND_CEILING))
    return _counted(value, 0)


def _strict_quantity(value: object) -> int:
    return _counted(value, 1)


def _counted(value: object, least: int) -> int:
    # type() and not isinstance(): True is an int in Python, not in JSON.
    if type(value) is not int or not least <= value <= QUANTITY_MAX:
        raise ValueError(f"is no whole number from {least} to {QUANTITY_MAX}")
    return value


def _moment(value: object) -> int:
    """Unix ms of RFC 3339 §5.6, whose zone must be there."""
    return _read_moment(value, needs_zone=True)


def _utc(value: object) -> int:
    """Unix ms of the same, in UTC where it names no zone."""
    return _read_moment(value, needs_zone=False)


def _day(value: object) -> int:
    """Unix ms of a moment, or of the beginning of a day in UTC."""
    is_day = isinstance(value, str) and _DATE.fullmatch(value)
    return _moment(f"{value}T00:00:00Z" if is_day else value)


def _read_moment(value: object, *, needs_zone: bool) -> int:
    right = "write it like 2026-11-21T09:30:00Z" if needs_zone else "write it like 2026-11-21T09:30:00"
    found = _RFC3339.fullmatch(value) if isinstance(value, str) else None
    if found is None or (needs_zone and not found[4]):
        raise ValueError(f"is no time; {right}")
    day, clock, fraction, zone = found.groups()
    try:
        moment = datetime.fromisoformat(f"{day}T{clock}{(zone or 'Z').upper()}") - _EPOCH
    except ValueError:
        raise ValueError(f"is no time; {right}") from None
    milliseconds = moment // timedelta(milliseconds=1) + int(((fraction or ".")[1:] + "000")[:3])
    if not 0 <= milliseconds <= TIME_MAX * 1000:
        raise ValueError("is no time from 1970 to 9999")
    return milliseconds


Id = Annotated[str, BeforeValidator(_id)]
IdOrNone = Annotated[str, BeforeValidator(_id_or_none)]
Text = Annotated[str, BeforeValidator(_text)]
StrictText = Annotated[str, BeforeValidator(_strict_text)]
Email = Annotated[str, BeforeValidator(_email)]
StrictEmail = Annotated[str, BeforeValidator(_strict_email)]
Ip = Annotated[Address | None, BeforeValidator(_ip)]
StrictIp = Annotated[Address | None, BeforeValidator(_strict_ip)]
Language = Annotated[str, BeforeValidator(_language)]
StrictLanguage = Annotated[str, BeforeValidator(_strict_language)]
Quantity = Annotated[int, BeforeValidator(_quantity)]
StrictQuantity = Annotated[int, BeforeValidator(_strict_quantity)]
Moment = Annotated[int, BeforeValidator(_moment)]
UtcMoment = Annotated[int, BeforeValidator(_utc)]
Day = Annotated[int, BeforeValidator(_day)]
AtMostLines = Field(max_length=LINES_MAX)


def lines_of(lines: list[Line]) -> tuple[Line, ...]:
    """The lines of which there is something. Raises ValueError where two have one id: refunds would name both."""
    if len({line.line_id for line in lines}) != len(lines):
        raise ValueError("two lines of the order have the same id")
    return tuple(line for line in lines if line.quantity)


def added_up(quantities: list[tuple[str, int]]) -> tuple[tuple[str, int], ...]:
    """How many of each line: a shop may list one line several times."""
    total: dict[str, int] = {}
    for line_id, quantity in quantities:
        total[line_id] = total.get(line_id, 0) + quantity
    return tuple((line_id, quantity) for line_id, quantity in total.items() if quantity)


def named(buyer: Buyer) -> Buyer | None:
    """None where the shop told nothing of the buyer, which forgets nothing of what is known."""
    return None if buyer == Buyer() else buyer
