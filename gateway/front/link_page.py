"""The page that e-mails link to: what a buyer may have, in the buyer's language; for programs the same as JSON.

It counts nothing and waits for nobody: facts that are not there in time are left out.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence

from gateway.front.head import Head
from gateway.front.pages import LinkFile, LinkZip, Pages
from gateway.front.plain import Answer
from gateway.http.disposition import file_name
from gateway.http.media import content_type, may_view
from gateway.http.problem import wants_html
from gateway.policy.links import file_path, zip_path
from gateway.policy.model import Allow, DownloadRequest
from gateway.ports import Ledger
from gateway.services.gatekeeper import Opened
from gateway.services.link_facts import FileFacts, look
from gateway.services.zipping import zip_name
from gateway.store_ports import ObjectStore


class LinkPage:
    """Answers for links that may be opened. `prefix` stands in front of our paths in the public address.

    `repeat_window` in seconds, as in the settings.
    """

    def __init__(
        self,
        pages: Pages,
        *,
        prefix: str,
        shop: str,
        repeat_window: int,
        store: ObjectStore,
        ledger: Ledger,
        archives: bool = True,
        acts: bool = True,
    ) -> None:
        """`archives`: whether the door also gives all files as one ZIP; `acts`: whether it takes POSTs to a link."""
        self._pages = pages
        self._repeat_window = repeat_window
        self._prefix = prefix
        self._shop = shop
        self._store = store
        self._ledger = ledger
        self._archives = archives
        self._acts = acts

    async def answer(
        self, head: Head, asked: DownloadRequest, opened: Opened, language: str, headers: Mapping[str, str]
    ) -> Answer | None:
        """The answer with these headers; None where every file of the link is used up."""
        facts = await look(opened, self._store, self._ledger, self._repeat_window)
        if all(fact.used_up for fact in facts):
            return None
        files = [
            self._file(opened, allow, number, fact, asked.token, language)
            for (number, allow), fact in zip(opened.files, facts, strict=True)
        ]
        whole = self._zip(opened, facts, asked.token, language)
        if wants_html(head.headers.get("Accept")):
            page = self._pages.link_html(
                files,
                language,
                expires_at=opened.expires_at,
                now=int(time.time()),
                whole=whole,
                request_id=asked.request_id,
                watches=self._acts,
            )
            policy = {"Content-Language": language, "Content-Security-Policy": self._pages.policy_of(page)}
            return Answer.text(page, "text/html", {**headers, **policy})
        if len(files) == 1:
            return Answer(303, {**headers, "Location": files[0].href}, length=0)
        return _listed(opened, files, facts, whole, headers)

    def _file(  # noqa: PLR0917  what a row is made of
        self, opened: Opened, allow: Allow, number: int, fact: FileFacts, token: str, language: str
    ) -> LinkFile:
        key = allow.file.key
        name = file_name(allow.file.shown_name)
        href = file_path(self._prefix, token, number, name)
        shows = opened.may_view and key is not None and may_view(content_type(key))
        return LinkFile(
            name,
            None if fact.size is None else self._pages.size_text(fact.size, language),
            href,
            view_href=f"{href}?view=1" if shows else None,
            left=fact.left,
            limit=fact.limit,
            used_up=fact.used_up,
            sha256=fact.sha256,
        )

    def _zip(self, opened: Opened, facts: Sequence[FileFacts], token: str, language: str) -> LinkZip | None:
        """The way to all files at once; None where there is one file only, or where any of them would be refused."""
        if not self._archives or not 1 < len(opened.files) == len(opened.claims.files):
            return None
        if any(allow.file.key is None for _, allow in opened.files) or any(fact.used_up for fact in facts):
            return None
        sizes = [fact.size for fact in facts if fact.size is not None]
        size_text = self._pages.size_text(sum(sizes), language) if len(sizes) == len(facts) else None
        return LinkZip(zip_path(self._prefix, token, file_name(zip_name(self._shop, opened.claims))), size_text)


def _listed(
    opened: Opened,
    files: Sequence[LinkFile],
    facts: Sequence[FileFacts],
    whole: LinkZip | None,
    headers: Mapping[str, str],
) -> Answer:
    shown = []
    for (number, _), file, fact in zip(opened.files, files, facts, strict=True):
        told = {"number": number, "name": file.name, "href": file.href, "size": fact.size, "left": fact.left}
        told["sha256"] = fact.sha256 or None
        shown.append({name: value for name, value in told.items() if value is not None})
    body: dict[str, object] = {"files": shown, "expires_at": opened.expires_at}
    if whole is not None:
        body["zip"] = whole.href
    return Answer.text(
        json.dumps(body) + "\n",
        "application/json",
        {**headers, "Content-Disposition": 'inline; filename="files.json"'},
    )
