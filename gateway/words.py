"""The words of one language, all from its file: texts, plural forms, numbers and dates. No code knows a language.

What a file leaves out is said in the default language, with that language's own plural forms.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.resources.abc import Traversable

OTHER = "other"
CATEGORIES = ("zero", "one", "two", "few", "many")
"""CLDR's plural categories that a rule describes; a number that no rule holds for is `other`."""

_TWO_DIGITS = 9.95  # from here on the number rounds to 10 or more, and its decimal says little
_LAST_MOMENT = int(datetime(9999, 12, 31, tzinfo=UTC).timestamp())
_RELATION = re.compile(r"([nivwftce]) (?:% ([1-9][0-9]*) )?(!?=) ([0-9]+(?:\.\.[0-9]+)?(?:,[0-9]+(?:\.\.[0-9]+)?)*)")


@dataclass(frozen=True, slots=True)
class _Relation:
    """`n % 10 = 2..4`: of a whole number `n` and `i` are the number, and CLDR's other operands 0."""

    of_number: bool
    modulus: int | None
    equal: bool
    spans: tuple[tuple[int, int], ...]

    def holds(self, number: int) -> bool:
        value = number if self.of_number else 0
        value = value % self.modulus if self.modulus else value
        return self.equal == any(low <= value <= high for low, high in self.spans)


class PluralRule:
    """When a plural form is used, as CLDR's plurals.xml writes it: `v = 0 and i % 10 = 2..4 and i % 100 != 12..14`."""

    def __init__(self, text: str) -> None:
        """Raises ValueError for what is not CLDR's grammar."""
        self._either = [[_relation(part.strip()) for part in either.split(" and ")] for either in text.split(" or ")]

    def holds(self, number: int) -> bool:
        """Whether this whole number takes the form."""
        return any(all(relation.holds(number) for relation in every) for every in self._either)


@dataclass(frozen=True, slots=True)
class Words:
    """What one language says; `texts` by their dotted keys."""

    language: str
    texts: Mapping[str, str] = field(repr=False)
    plurals: Mapping[str, PluralRule] = field(repr=False)
    fallback: Words | None = field(default=None, repr=False)

    def text(self, key: str) -> str:
        """The text as it is written, its {places} still empty."""
        if self.fallback is None or key in self.texts:
            return self.texts[key]
        return self.fallback.text(key)

    def knows(self, key: str) -> bool:
        """Whether there is such a text, here or in the default language."""
        return key in self.texts or (self.fallback is not None and self.fallback.knows(key))

    def say(self, key: str, **values: object) -> str:
        """The text with its places filled in."""
        return self.text(key).format(**values)

    def count(self, key: str, number: int) -> str:
        """The plural form of `key` that this whole number takes, with it as {count}."""
        if self.fallback is not None and f"{key}.{OTHER}" not in self.texts:
            return self.fallback.count(key, number)
        forms = (f"{key}.{category}" for category, rule in self.plurals.items() if rule.holds(number))
        form = next((form for form in forms if form in self.texts), f"{key}.{OTHER}")
        return self.texts[form].format(count=number)

    def size(self, size: int) -> str:
        """Bytes as people read them, in powers of 1000: `532 B`, `1.2 MB`, `34 GB`."""
        units = self.text("number.units").split()
        scaled, unit = float(size), 0
        while len(number := _rounded(scaled)) > len("999") and unit < len(units) - 1:
            scaled, unit = scaled / 1000, unit + 1
        number = number.replace(".", self.text("number.decimal_point"))
        return self.say("number.size", number=number, unit=units[unit])

    def date(self, seconds: int) -> str:
        """Unix seconds as a day and a time in UTC."""
        moment = datetime.fromtimestamp(min(max(seconds, 0), _LAST_MOMENT), UTC)
        month = self.text("date.months").split()[moment.month - 1]
        time = f"{moment:%H:%M}"
        return self.say("date.format", day=moment.day, month=month, year=moment.year, time=time)


def load_words(folder: Traversable, default: str) -> dict[str, Words]:
    """Every language of a folder by its tag. Raises KeyError without the default one, ValueError for a broken file."""
    files = {file.name.removesuffix(".toml"): file for file in folder.iterdir() if file.name.endswith(".toml")}
    tables = {tag: dict(_flat(tomllib.loads(file.read_text("utf-8")))) for tag, file in sorted(files.items())}
    fallback = _words(default, tables[default])
    return {tag: fallback if tag == default else _words(tag, texts, fallback) for tag, texts in tables.items()}


def _words(tag: str, texts: Mapping[str, str], fallback: Words | None = None) -> Words:
    named = ((category, texts.get(f"plural.{category}")) for category in CATEGORIES)
    return Words(tag, texts, {category: PluralRule(rule) for category, rule in named if rule is not None}, fallback)


def _flat(table: Mapping[str, object], above: str = "") -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", str(value)


def _relation(text: str) -> _Relation:
    match = _RELATION.fullmatch(text)
    if match is None:
        raise ValueError(f"a plural rule has {text!r}; CLDR writes it like: n % 10 = 2..4 and n % 100 != 12..14")
    operand, modulus, sign, listed = match.groups()
    spans = (span.partition("..") for span in listed.split(","))
    return _Relation(
        of_number=operand in "ni",
        modulus=int(modulus) if modulus else None,
        equal=sign == "=",
        spans=tuple((int(low), int(high or low)) for low, _, high in spans),
    )


def _rounded(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0") if number < _TWO_DIGITS else f"{number:.0f}"
