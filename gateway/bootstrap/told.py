"""Who in the front door hears what of a worker's services."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from gateway.services.reloading import Keeper
from gateway.services.settlement import Running


@dataclass(frozen=True, slots=True)
class Told:
    """`ledger`: what is wrong with Redis or the journal, or '', and whether downloads go on all the same; `settled`
    each closed download; `reloaded` what was read again and whether it was `loaded` or `rejected`; `files` what is in
    force of it, and what is wrong with the files that are there now, or ''; `verdict` each word of a rule (see
    Observing); `rolled_back` whether the rules in the file were; `helped` what became of a buyer's question (see
    SelfService). `reload` is set when that is asked for. `keeper` holds good ones.
    """

    ledger: Callable[[str, bool], None]
    settled: Callable[[Running], None]
    reloaded: Callable[[str, str], None]
    files: Callable[[str, str, str], None]
    verdict: Callable[[str, str, str], None]
    rolled_back: Callable[[bool], None]
    helped: Callable[[str], None]
    reload: asyncio.Event
    keeper: Keeper
