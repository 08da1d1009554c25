"""The page on which a new device asks for a one-time code, and enters it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from gateway.front.addresses import FileAddress, LinkAddress, ZipAddress, parse_path
from gateway.front.head import Head
from gateway.front.pages import Pages
from gateway.front.plain import Answer
from gateway.policy.links import link_path
from gateway.policy.reasons import Reason

State = Literal["needed", "sent", "often", "wrong", "none", "unsent"]
_TOKEN = re.compile(r"[A-Za-z0-9_.-]+")
_STATUS: Mapping[State, int] = {"sent": 200, "often": Reason.THROTTLED.status}
"""Of all others it is that of the reason: nothing is given yet."""


@dataclass(frozen=True, slots=True)
class CodeState:
    """How it stands: a code is `needed`; was `sent`; was asked for too `often`; was `wrong`, with so many tries `left`;
    there is `none` to enter; none can be sent (`unsent`).
    """

    name: State
    left: int = 0


class CodePage:
    """`prefix` stands in front of our paths in the public address; `mails`: whether this door can have codes sent."""

    def __init__(self, pages: Pages, prefix: str, *, mails: bool) -> None:
        self._pages = pages
        self._prefix = prefix
        self._mails = mails

    def answer(
        self, head: Head, request_id: str, state: CodeState, language: str, headers: Mapping[str, str]
    ) -> Answer:
        """The page. Its forms lead to the link that the request's path names."""
        address = parse_path(head.path)
        action = ""
        named = isinstance(address, LinkAddress | FileAddress | ZipAddress) and _TOKEN.fullmatch(address.token)
        if self._mails and state.name != "unsent" and named:
            action = link_path(self._prefix, named[0])
        status = _STATUS.get(state.name, Reason.DEVICE_CODE.status)
        page = self._pages.code_html(
            state.name if action else "unsent", language, action=action, left=state.left, request_id=request_id
        )
        own = {"Content-Language": language, "Content-Security-Policy": self._pages.policy_of(page)}
        return Answer.text(page, "text/html", {**headers, **own}, status=status)
