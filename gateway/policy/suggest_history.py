"""What recorded downloads would have needed, and where those that came to nothing came from (for policy.suggest).

A download is a transfer that holds its charge. It is completed where a request of it ended as `complete`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import ceil, inf
from operator import gt

from gateway.policy.countries import CONTINENTS, COUNTRIES
from gateway.policy.model import Limits
from gateway.policy.reasons import Reason
from gateway.policy.recorded import NotRecorded, moment_of
from gateway.policy.replay_changes import Change
from gateway.policy.ruleset import RuleSet

Fields = Mapping[str, str]
Origin = frozenset[tuple[str, str]]
"""Where a request came from, as conditions and the values with which they hold: `("country", "CU")`."""

NUMBERS = ("downloads", "networks", "devices", "concurrent", "valid_after_first")
"""The limits that refuse, in the order of `Download.needs`."""
UNITS: Mapping[str, int] = {"valid_after_first": 3600}
"""In what a limit's needs are counted, where that is not 1: whole hours."""

_TYPES = frozenset({"hosting", "vpn", "proxy", "tor"})
_PROGRAM = re.compile(r"([a-z][a-z0-9_.-]{1,39})/")
_BROWSERS = frozenset({"mozilla", "opera"})
_OTHERS_FAULT = frozenset({"rule.denied", "account.required"})
"""Refusals that say nothing of a place: the rules have their word there already, or somebody only has to sign in."""
_CLIENTS_FAULT = range(400, 500)


@dataclass(frozen=True, slots=True, eq=False)
class Download:
    """One completed download. `plan` is the one in force, "" for none; `needs` the smallest number of each of NUMBERS
    under which it would have been let in; `origins` those of its requests.
    """

    id: str
    token: str
    plan: str
    needs: tuple[int, ...]
    origins: tuple[Origin, ...]


@dataclass(slots=True)
class Tried:
    """Requests of one origin that were refused or came to no completed download, and the networks they came from."""

    requests: int = 0
    networks: set[str] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class _Transfer:
    id: str
    file: str
    at: float
    network: str
    device: str
    cookie: str
    plan: str | None
    extended: bool
    is_told: bool
    origins: tuple[Origin, ...]
    concurrent: int = 0
    charged: bool = True
    complete: bool = False


class History:
    """Fed with events, of one shard after the other, each oldest first. Downloads that began before `since` (Unix s)
    count for the later ones of their link and are not told. `rules` are those that there are.
    """

    def __init__(self, since: float, rules: RuleSet) -> None:
        self.left_out = 0
        """How many completed downloads the rules refuse as they are, once `downloads` was asked."""
        self._since = since
        self._default = rules.default_plan or ""
        self._most = {name: _most(plan.limits) for name, plan in rules.plans.items()}
        self._tokens: dict[str, list[_Transfer]] = {}
        self._transfers: dict[str, _Transfer] = {}
        self._looks: dict[str, _Transfer] = {}
        self._running: dict[str, tuple[str, str]] = {}
        self._live: dict[str, Counter[str]] = {}
        self._moved: dict[str, list[str]] = {}
        self._refused: set[str] = set()
        self._denied: dict[Origin, Tried] = {}

    def take(self, fields: Fields) -> None:
        """One event; those that are of no download tell nothing."""
        try:
            match fields.get("type"):
                case "download.allowed":
                    self._begin(fields)
                case "download.finished" | "download.lost":
                    self._end(fields)
                case "download.denied":
                    self._deny(fields)
                case "download.confirmed":
                    self._confirm(fields)
        except NotRecorded:
            return

    def leave_out(self, changes: Iterable[Change]) -> None:
        """What the rules file refuses as it is; no suggestion could be held to account for it."""
        self._refused |= self.refused(changes)

    def refused(self, changes: Iterable[Change]) -> set[str]:
        """The downloads of which a request is refused now."""
        found: set[str] = set()
        for change in changes:
            if change.kind == "refused":
                found.add(change.fields.get("transfer.id", ""))
                found.update(self._moved.get(change.fields.get("request.id", ""), ()))
        return found

    def downloads(self) -> Sequence[Download]:
        """The completed ones, once all events were taken."""
        return [each for token, transfers in self._tokens.items() for each in self._completed(token, transfers)]

    @property
    def span(self) -> float:
        """The time between the first and the last transfer, in seconds."""
        moments = [transfer.at for transfer in self._transfers.values()]
        return max(moments, default=0.0) - min(moments, default=0.0)

    def tried(self) -> Mapping[Origin, Tried]:
        """What came to nothing, once all events were taken."""
        found = {origin: Tried(each.requests, set(each.networks)) for origin, each in self._denied.items()}
        for transfer in self._transfers.values():
            if not transfer.complete and transfer.at >= self._since:
                for origin in transfer.origins:
                    _count(found, origin, transfer.network)
        return found

    def _begin(self, fields: Fields) -> None:
        token, transfer_id = fields.get("token.id", ""), fields.get("transfer.id", "")
        transfer = self._transfers.get(transfer_id)
        if fields.get("counted") == "1":
            transfer = self._pay(token, transfer_id, fields, transfer)
        elif transfer is None and "signal" in fields:
            self._looks.setdefault(transfer_id, self._made(transfer_id, fields))
        if transfer is None:
            return
        origin = origin_of(fields)
        if origin not in transfer.origins:
            transfer.origins = (*transfer.origins, origin)
        live = self._live.setdefault(token, Counter())
        if not live[transfer_id]:
            transfer.concurrent = max(transfer.concurrent, len(live) + 1)
        live[transfer_id] += 1
        self._running[fields.get("request.id", "")] = token, transfer_id

    def _pay(self, token: str, transfer_id: str, fields: Fields, again: _Transfer | None = None) -> _Transfer:
        """`again`: one whose charge was given back, and which is charged anew."""
        transfers = self._tokens.setdefault(token, [])
        if again is not None:
            transfers.remove(again)
        transfer = again or self._looks.get(transfer_id) or self._made(transfer_id, fields)
        transfer.charged, transfer.at = True, moment_of(fields)
        transfers.append(transfer)
        self._transfers[transfer_id] = transfer
        return transfer

    def _made(self, transfer_id: str, fields: Fields) -> _Transfer:
        own, at = fields.get("device.id", ""), moment_of(fields)
        return _Transfer(
            transfer_id,
            fields.get("file.key", ""),
            at,
            fields.get("client.network", ""),
            own,
            fields.get("device.cookie", own),
            fields.get("token.plan"),
            "token.extended_to" in fields,
            at >= self._since and "token.expires_at" in fields,
            (origin_of(fields),),
        )

    def _confirm(self, fields: Fields) -> None:
        """A scanner's look was a person's download after all."""
        token, transfer_id = fields.get("token.id", ""), fields.get("transfer.id", "")
        self._pay(token, transfer_id, fields, self._transfers.get(transfer_id))

    def _end(self, fields: Fields) -> None:
        request = fields.get("request.id", "")
        if (look := self._looks.get(fields.get("transfer.id", ""))) is not None:
            look.complete |= fields.get("outcome") == "complete"
        token, begun = self._running.pop(request, ("", ""))
        if not begun:
            return
        live = self._live[token]
        live[begun] -= 1
        if not live[begun]:
            del live[begun]
        now = fields.get("transfer.id", begun)
        counted = fields.get("counted")
        transfer = self._transfers.get(now)
        if now != begun:
            self._moved.setdefault(request, []).append(now)
            if counted == "1":
                transfer = self._pay(token, now, fields, transfer)
        if transfer is None:
            return
        transfer.charged &= counted != "-1"
        transfer.complete |= fields.get("outcome") == "complete"

    def _deny(self, fields: Fields) -> None:
        reason = fields.get("reason", "")
        if reason not in _OTHERS_FAULT and moment_of(fields) >= self._since:
            try:
                is_clients = Reason.named(reason).status in _CLIENTS_FAULT
            except KeyError:
                return
            if is_clients:
                _count(self._denied, origin_of(fields), fields.get("client.network", ""))

    def _completed(self, token: str, transfers: Iterable[_Transfer]) -> Iterator[Download]:
        used: Counter[str] = Counter()
        networks: dict[str, int] = {}
        devices: dict[str, int] = {}
        first: float | None = None
        seen = 0
        for each in transfers:
            if not each.charged:
                continue
            first = each.at if first is None else first
            used[each.file] += 1
            network = networks.setdefault(each.network, len(networks) + 1)
            if each.device not in devices:
                seen += 1
            device = devices.setdefault(each.device, seen)
            devices.setdefault(each.cookie, device)
            if not each.complete or not each.is_told:
                continue
            hours = 0 if each.extended else ceil((each.at - first) / UNITS["valid_after_first"])
            needs = (used[each.file], network, device, each.concurrent, hours)
            plan = self._default if each.plan is None else each.plan
            most = self._most.get(plan)
            # A replay takes the ledger's recorded word as long as a link's limits are the recorded ones.
            if each.id in self._refused or (most and any(map(gt, needs, most))):
                self.left_out += 1
                continue
            yield Download(each.id, token, plan, needs, each.origins)


def _most(limits: Limits) -> tuple[float, ...]:
    """The largest needs that these limits let in."""
    numbers = [(limits.get(name), UNITS.get(name, 1)) for name in NUMBERS]
    return tuple(inf if number is None else ceil(number / unit) for number, unit in numbers)


def origin_of(fields: Fields) -> Origin:
    """Of the event's request."""
    return _origin(
        fields.get("client.network.type", ""),
        fields.get("geo.continent.code", ""),
        fields.get("geo.country.iso_code", ""),
        fields.get("user_agent.original", ""),
    )


@lru_cache(65_536)
def _origin(types: str, continent: str, country: str, agent: str) -> Origin:
    found = {("network", each) for each in _TYPES.intersection(types.split(","))}
    if continent in CONTINENTS:
        found.add(("continent", continent))
    if country in COUNTRIES:
        found.add(("country", country))
    program = _PROGRAM.match(agent.lower())
    if not agent:
        found.add(("user_agent", ""))
    elif program is not None and program[1] not in _BROWSERS:
        found.add(("user_agent", f"{program[1]}/*"))
    return frozenset(found)


def _count(into: dict[Origin, Tried], origin: Origin, network: str) -> None:
    tried = into.setdefault(origin, Tried())
    tried.requests += 1
    tried.networks.add(network)
