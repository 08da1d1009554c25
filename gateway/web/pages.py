"""The two pages a buyer may see, and the words for every refusal: nothing in them is loaded from anywhere.

Words live in texts/<language>.toml, a file for each language.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files as package_files
from importlib.resources.abc import Traversable

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from gateway.http import problem
from gateway.http.disposition import file_name
from gateway.web.words import Words, load_words

UNKNOWN_REASON = "unknown"
_HREF = re.compile(r"(?:https?://[^\s\"'<>/]+)?/(?!/)[^\s\"'<>]*")


@dataclass(frozen=True, slots=True)
class LinkFile:
    """A row of the link page; `href` is the file's address with the token in it, so it stays out of the repr.

    `view_href`: where the browser shows it, None where it may only be downloaded.
    """

    name: str
    size_text: str | None
    href: str
    view_href: str | None = None

    def __post_init__(self) -> None:
        if not all(_HREF.fullmatch(href) for href in (self.href, self.view_href) if href is not None):
            raise ValueError("a file's href is a path from the root or an http(s) address")

    def __repr__(self) -> str:
        return f"LinkFile({self.name!r})"


class Pages:
    """Renders pages and problem bodies. Serve a page with `content_security_policy` in that header."""

    def __init__(self, texts: Traversable | None = None) -> None:
        """Load every language of the folder, ours unless another is given; see load_words for what it raises."""
        folder = texts or package_files("gateway.web").joinpath("texts")
        self._words = load_words(folder, problem.DEFAULT_LANGUAGE)
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
        return tuple(self._words)

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
        shown = [replace(file, name=file_name(file.name)) for file in files]
        return self._render("link.html.j2", language, files=shown, expires_text=expires_text)

    def size_text(self, size: int, language: str) -> str:
        """Bytes as people of this language read them."""
        return self._of(language).size(size)

    def date_text(self, seconds: int, language: str) -> str:
        """Unix seconds as a day and a time in UTC."""
        return self._of(language).date(seconds)

    def _of(self, language: str) -> Words:
        return self._words.get(language, self._words[problem.DEFAULT_LANGUAGE])

    def _explain(self, reason: str, language: str) -> tuple[str, str]:
        words = self._of(language)
        known = reason if words.knows(f"reason.{reason}.title") else UNKNOWN_REASON
        return words.text(f"reason.{known}.title"), words.text(f"reason.{known}.help")

    def _retry_text(self, retry_after: int | None, language: str) -> str | None:
        if retry_after is None:
            return None
        minutes = -(-retry_after // 60)
        words = self._of(language)
        return words.text("refusal.retry_soon") if minutes <= 1 else words.count("refusal.retry_minutes", minutes)

    def _render(self, template: str, language: str, **values: object) -> str:
        words = self._of(language)

        def say(key: str, **parts: object) -> Markup:
            return escape(words.text(key)).format(**parts)

        page = self._environment.get_template(template).render(language=words.language, say=say, **values)
        # An unpaired surrogate in a rule's message would otherwise break the response when it is encoded.
        return page.encode("utf-8", "replace").decode()
