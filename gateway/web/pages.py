"""The two pages a buyer may see, and the words for every refusal: nothing in them is loaded from anywhere.

Words live in texts/<language>.toml; a key that a language lacks is said in the default language.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files as package_files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from gateway.http import problem
from gateway.http.disposition import file_name

UNKNOWN_REASON = "unknown"
_HREF = re.compile(r"(?:https?://[^\s\"'<>/]+)?/(?!/)[^\s\"'<>]*")
_UNITS = ("B", "KB", "MB", "GB", "TB")
_TWO_DIGITS = 9.95  # from here on the number rounds to 10 or more, and its decimal says little
_LAST_MOMENT = int(datetime(9999, 12, 31, tzinfo=UTC).timestamp())


@dataclass(frozen=True, slots=True)
class LinkFile:
    """A row of the link page; `href` is the file's address with the token in it, so it stays out of the repr."""

    name: str
    size_text: str | None
    href: str

    def __post_init__(self) -> None:
        if not _HREF.fullmatch(self.href):
            raise ValueError("a file's href is a path from the root or an http(s) address")

    def __repr__(self) -> str:
        return f"LinkFile({self.name!r})"


class Pages:
    """Renders pages and problem bodies. Serve a page with `content_security_policy` in that header."""

    def __init__(self, default_language: str = "en") -> None:
        """Load every language; raises KeyError where there are no texts for the default one."""
        texts = dict(_load_texts())
        self._default_language = default_language
        self._texts = {language: {**texts[default_language], **own} for language, own in texts.items()}
        self._environment = Environment(
            loader=PackageLoader("gateway.web"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        style = self._environment.get_template("style.html.j2").render()
        self._environment.globals["style"] = Markup(style)  # noqa: S704 (our own file, nothing from outside)
        digest = b64encode(hashlib.sha256(style.encode()).digest()).decode()
        self.content_security_policy = (
            f"default-src 'none'; style-src 'sha256-{digest}'; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages there are texts for, to choose from with problem.pick_language."""
        return tuple(self._texts)

    def refusal_html(
        self,
        reason: str,
        status: int,
        request_id: str,
        language: str,
        *,
        message: str | None = None,
        retry_after: int | None = None,
    ) -> str:
        """The page for one refusal. `message` is the deciding rule's own text, `retry_after` in seconds."""
        title, advice = self._explain(reason, language)
        return self._render(
            "refusal.html.j2",
            language,
            title=title,
            help=advice,
            message=message,
            retry=self._retry_text(retry_after, language),
            request_id=request_id,
            status=status,
            reason=reason,
        )

    def refusal_problem(
        self,
        reason: str,
        status: int,
        request_id: str,
        language: str,
        *,
        message: str | None = None,
        retry_after: int | None = None,
        rule: str | None = None,
    ) -> bytes:
        """The same refusal for programs (RFC 9457)."""
        title, advice = self._explain(reason, language)
        detail = message or advice
        return problem.problem(status, reason, title, detail, request_id, rule=rule, retry_after=retry_after)

    def link_html(self, files: Sequence[LinkFile], language: str, *, expires_text: str | None = None) -> str:
        """The link page: one file starts by itself after a second, several wait to be chosen."""
        shown = [LinkFile(file_name(file.name), file.size_text, file.href) for file in files]
        return self._render("link.html.j2", language, files=shown, expires_text=expires_text)

    def size_text(self, size: int, language: str) -> str:
        """Bytes as people read them, in powers of 1000: `532 B`, `1.2 MB`, `34 GB`."""
        scaled, unit = float(size), 0
        while len(number := _rounded(scaled)) > len("999") and unit < len(_UNITS) - 1:
            scaled, unit = scaled / 1000, unit + 1
        number = number.replace(".", self._say(language, "number.decimal_point"))
        return self._say(language, "number.size", number=number, unit=_UNITS[unit])

    def date_text(self, seconds: int, language: str) -> str:
        """Unix seconds as a day and a time in UTC."""
        moment = datetime.fromtimestamp(min(max(seconds, 0), _LAST_MOMENT), UTC)
        month = self._say(language, "date.months").split()[moment.month - 1]
        time = f"{moment:%H:%M}"
        return self._say(language, "date.format", day=moment.day, month=month, year=moment.year, time=time)

    def _explain(self, reason: str, language: str) -> tuple[str, str]:
        known = reason if f"reason.{reason}.title" in self._texts[self._default_language] else UNKNOWN_REASON
        return self._say(language, f"reason.{known}.title"), self._say(language, f"reason.{known}.help")

    def _retry_text(self, retry_after: int | None, language: str) -> str | None:
        if retry_after is None:
            return None
        minutes = -(-retry_after // 60)
        if minutes <= 1:
            return self._say(language, "refusal.retry_soon")
        return self._say(language, "refusal.retry_minutes", minutes=minutes)

    def _say(self, language: str, key: str, **values: object) -> str:
        return self._words(language)[key].format(**values)

    def _words(self, language: str) -> Mapping[str, str]:
        return self._texts.get(language, self._texts[self._default_language])

    def _render(self, template: str, language: str, **values: object) -> str:
        words = self._words(language)

        def say(key: str, **parts: object) -> Markup:
            return escape(words[key]).format(**parts)

        shown = language if language in self._texts else self._default_language
        page = self._environment.get_template(template).render(language=shown, say=say, **values)
        # An unpaired surrogate in a rule's message would otherwise break the response when it is encoded.
        return page.encode("utf-8", "replace").decode()


def _rounded(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0") if number < _TWO_DIGITS else f"{number:.0f}"


def _load_texts() -> Iterator[tuple[str, dict[str, str]]]:
    for file in sorted(package_files("gateway.web").joinpath("texts").iterdir(), key=lambda file: file.name):
        if file.name.endswith(".toml"):
            yield file.name.removesuffix(".toml"), dict(_flat(tomllib.loads(file.read_text("utf-8"))))


def _flat(table: Mapping[str, object], above: str = "") -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", str(value)
