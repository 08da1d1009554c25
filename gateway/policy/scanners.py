"""Whether a request seems to come from what opens links in mails before people do: by several signs, never one list.

Law: who is taken for a scanner is served like anyone, so a wrong answer costs nobody anything; who did something that
only a person does is never taken for one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from gateway.policy.model import NETWORK_TYPES, Manner

SUSPECTED_SCANNER = "suspected_scanner"
"""The `signal` of its events."""
SOON = 15 * 60
"""Seconds after a link was sent within which scanners come."""
CLOCKS = 60
"""Seconds that the clock of who made a token may run ahead of ours."""

_AHEAD = ("Sec-Purpose", "Purpose", "X-Purpose", "X-Moz")
_PREVIEW = "x-native-host"
"""Sent by mail programs that look at a link to show what is behind it."""
_BROWSERS_SEND = ("Accept-Language", "Sec-Fetch-Mode")
_AGENTS = re.compile(
    r"barracuda|bingpreview|content-sampling|existence discovery|facebookexternalhit|googleimageproxy|headless"
    r"|imgproxy|linkedinbot|microsoft office|mimecast|ms-office|oneoutlook|phantomjs|proofpoint|puppeteer|safelinks"
    r"|slackbot|symantec|telegrambot|twitterbot|uripreview|whatsapp|zscaler",
    re.IGNORECASE,
)
_WRAPPERS = re.compile(
    r"(?:^|\.)(?:safelinks\.protection\.outlook\.com|urldefense\.com|urldefense\.proofpoint\.com"
    r"|protect(?:-[a-z0-9]+)?\.mimecast\.com|linkprotect\.cudasvc\.com|secure-web\.cisco\.com)$"
)


@dataclass(frozen=True, slots=True)
class Signals:
    """What is known of one request. `since`: seconds since its link was sent, or made; None where neither is known.

    `mailed`: it was mailed by us, so that whoever scans mails is to be expected. `network`: kinds of the address
    (see model.Place). `page`: the link's page is asked for, to which a click in a mail is the way.
    """

    since: float | None
    mailed: bool
    manner: Manner
    network: frozenset[str] = frozenset()
    user_agent: str = ""
    page: bool = False


def manner_of(header: Callable[[str], str | None], *, person: bool) -> Manner:
    """How a client asks, by its headers. `person`: it shows our cookie that says so, or a sign-in."""
    navigated = header("Sec-Fetch-User") == "?1"
    ahead = any(word in (header(name) or "").lower() for name in _AHEAD for word in ("prefetch", "preview"))
    return Manner(
        gesture=person or (navigated and header("Sec-Fetch-Site") == "same-origin"),
        navigated=navigated,
        ahead=ahead or header(_PREVIEW) is not None,
        bare=any(header(name) is None for name in _BROWSERS_SEND),
        wrapped=_is_wrapper(header("Referer") or ""),
    )


def suspected(signals: Signals) -> tuple[str, ...]:
    """The names of the signs that make it a suspected scanner; () where it is none.

    Of a link that was mailed, whoever asks for a file so soon and shows no gesture is one. Of any other it takes a
    weighty sign and one more, so that a program that fetches what was made for it is counted as ever.
    """
    manner = signals.manner
    if signals.since is None or not -CLOCKS <= signals.since <= SOON or manner.gesture:
        return ()
    marks = _marks(signals)
    weighty = any(mark.startswith(_WEIGHTY) for mark in marks)
    if signals.page and manner.navigated:
        # A click in a mail looks like this, and so does a program that drives a browser.
        return ("soon", *marks) if weighty else ()
    if signals.mailed:
        return ("soon", "no_gesture", *marks)
    if _is_browser(signals):
        marks = ("no_gesture", *marks)
    return ("soon", *marks) if weighty and len(marks) > 1 else ()


_WEIGHTY = ("network.", "prefetch")


def _marks(signals: Signals) -> tuple[str, ...]:
    manner = signals.manner
    # What hides somebody is anonymous too, so however many kinds an address is of, that is one sign.
    marks = [f"network.{kind}" for kind in NETWORK_TYPES if kind in signals.network][:1]
    told = {
        "prefetch": manner.ahead,
        "bare_headers": manner.bare and _is_browser(signals),
        "agent": _AGENTS.search(signals.user_agent) is not None,
        "link_wrapper": manner.wrapped,
    }
    return (*marks, *(name for name, holds in told.items() if holds))


def _is_browser(signals: Signals) -> bool:
    """Whether it says that it is one."""
    return signals.user_agent.startswith("Mozilla/")


def _is_wrapper(referer: str) -> bool:
    try:
        host = urlsplit(referer).hostname
    except ValueError:
        return False
    return host is not None and _WRAPPERS.search(host) is not None
