"""The ledger: reservations counted atomically by the scripts in lua/, one shard's keys per order.

This module only lays out keys and arguments: lua/ledger.lua decides what counts, lua/charges.lua what it costs.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gateway.backends.redis_client import Script, Wire
from gateway.backends.redis_shards import RedisShards, meta_key
from gateway.errors import LedgerFault, ReservationGone, SettingsError
from gateway.policy.counting import REFUNDS_MAX, REPEATS_MAX, budget, refund_below, window
from gateway.policy.limits import Devices, Networks
from gateway.policy.model import Charge, Deny, Grant, Outcome, Reservation, Slot
from gateway.policy.reasons import Reason
from gateway.ports import Fields, ReserveAsk, Unasked

log = logging.getLogger(__name__)

REAP_BATCH = 100
POSTPONED_MS = 3_600_000
ABOUT_MAX = 256
"""Characters of a User-Agent that a device's slot keeps; its event has cleaned it."""
REQUEST_KEYS = 8
"""Without META, which older reservations do not name."""


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """What a token has taken: `networks` and `devices` that hold a slot, transfers that are `live` now.

    Slots are counted only where they are limited. `first_ms`: its first charged download, Unix ms; None before it.
    """

    networks: int
    devices: int
    live: int
    first_ms: int | None


class RedisLedger:
    """gateway.ports.Ledger on Redis ≥ 6.2 or Valkey.

    `lease_ms`: how long a silent worker's reservations stay open. `keep_ms`: how long counters outlive their token.
    `clock` replaces the server's clock, for tests.
    """

    def __init__(
        self, wire: Wire, shards: RedisShards, *, lease_ms: int, keep_ms: int, clock: str | None = None
    ) -> None:
        self._wire = wire
        self._shards = shards
        self._lease_ms = lease_ms
        self._keep_ms = keep_ms
        self._warned = False
        self._reserve = Script("shard.lua", "ledger.lua", "charges.lua", "reserve.lua", clock=clock)
        self._renew = Script("shard.lua", "ledger.lua", "charges.lua", "renew.lua", clock=clock)
        self._settle = Script("shard.lua", "ledger.lua", "charges.lua", "settle.lua", clock=clock)
        self._confirm = Script("shard.lua", "ledger.lua", "charges.lua", "confirm.lua", clock=clock)
        self._pace = Script("shard.lua", "pace.lua", clock=clock)
        self._lapsed = Script("lapsed.lua", clock=clock)
        self._standing = Script("standing.lua", clock=clock)
        self._unfinished = Script("unfinished.lua", clock=clock)

    async def reserve(self, ask: ReserveAsk, *, attempt: bool = False) -> Reservation | Deny:
        keys = request_keys(ask.shard, ask.token_key, ask.file_identity, ask.request_id)
        args: list[str | int] = [self._ask_json(ask), "attempt" if attempt else "reserve"]
        reply = await self._shards.run(self._reserve, ask.shard, keys, args)
        if reply[0] == "deny":
            if reply[1] == "closed":
                raise ReservationGone("this request was settled before")
            return Deny(Reason.named(reply[1]))
        return Reservation(
            request_id=ask.request_id,
            transfer_id=reply[1],
            shard=ask.shard,
            keys=tuple(keys),
            asked=ask.asked,
            granted=int(reply[2]),
            window=window(ask.asked, ask.size, ask.start),
            counted=int(reply[3]),
        )

    async def peek(self, ask: ReserveAsk) -> Deny | None:
        keys = request_keys(ask.shard, ask.token_key, ask.file_identity, ask.request_id)
        reply = await self._shards.run(self._reserve, ask.shard, keys, [self._ask_json(ask), "peek"])
        return Deny(Reason.named(reply[1])) if reply[0] == "deny" else None

    async def confirm(self, ask: ReserveAsk) -> bool:
        keys = request_keys(ask.shard, ask.token_key, ask.file_identity, ask.request_id)
        # Hardly any file of a link was ever looked at: a write, which closed shards refuse, is only tried for those.
        if await self._wire.execute("HGET", keys[0], "look") is None:
            return False
        reply = await self._shards.run(self._confirm, ask.shard, keys, [self._ask_json(ask)])
        return bool(reply[0])

    async def has_transfers(self, shard: int, token_key: str, file_identity: str) -> bool:
        return bool(await self._wire.execute("EXISTS", file_keys(shard, token_key, file_identity)[2]))

    async def ping(self) -> None:
        await self._wire.execute("PING")

    async def renew(self, reservation: Reservation, acknowledged: int, granted: int) -> Grant:
        args: list[str | int] = [reservation.request_id, acknowledged, granted, self._lease_ms]
        reply = await self._shards.run(self._renew, reservation.shard, reservation.keys, args)
        if reply[0] == "gone":
            raise ReservationGone("the reservation is closed")
        return Grant(int(reply[1]), Reason.named(reply[2]) if reply[2] else None)

    async def pace(self, reservation: Reservation, rate: int) -> Slot:
        args: list[str | int] = [reservation.request_id, rate]
        reply = await self._shards.run(self._pace, reservation.shard, reservation.keys, args)
        if reply[0] == "gone":
            raise ReservationGone("the reservation is closed")
        return Slot(int(reply[0]), int(reply[1]) / 1_000_000)

    async def settle(self, reservation: Reservation, outcome: Outcome) -> bool:
        args = self._settle_args(reservation, outcome)
        reply = await self._shards.run(self._settle, reservation.shard, reservation.keys, args)
        return bool(reply[0])

    def assume(self, ask: ReserveAsk) -> tuple[Reservation, Unasked]:
        keys = request_keys(ask.shard, ask.token_key, ask.file_identity, ask.request_id)
        reservation = Reservation(
            request_id=ask.request_id,
            transfer_id=ask.request_id,
            shard=ask.shard,
            keys=tuple(keys),
            asked=ask.asked,
            granted=ask.asked,
            window=ask.asked,
            counted=1,
        )
        return reservation, _unasked("reserve", reservation, [self._ask_json(ask, ask.asked), "late"])

    def assume_settled(self, reservation: Reservation, outcome: Outcome) -> Unasked:
        return _unasked("settle", reservation, self._settle_args(reservation, outcome))

    async def tell(self, step: Unasked) -> None:
        script = self._reserve if step.verb == "reserve" else self._settle
        document = step.document
        await self._shards.run(script, document["shard"], document["keys"], document["args"])

    @staticmethod
    def _settle_args(reservation: Reservation, outcome: Outcome) -> list[str | int]:
        own = {
            "id": outcome.event_id,
            "time": outcome.time,
            "type": "download.finished",
            "outcome": outcome.outcome,
            "reason": outcome.reason,
            "duration.ms": str(outcome.duration_ms),
        }
        how = "origin" if outcome.outcome == "origin_failed" else ""
        status = "" if outcome.status is None else str(outcome.status)
        return [reservation.request_id, outcome.delivered, how, _flat_json(own), status]

    async def reap(self, stamp: Callable[[], Fields]) -> int:
        closed = 0
        for shard in range(self._shards.count):
            prefix = _prefix(shard)
            lapsed = await self._wire.run(self._lapsed, [f"{prefix}:leases"], [REAP_BATCH, f"{prefix}:request:"])
            for request_id, keys in zip(*[iter(lapsed)] * 2, strict=True):
                own = {**stamp(), "type": "download.lost"}
                args: list[str | int] = [request_id, -1, "lapsed", _flat_json(own), ""]
                try:
                    own_keys = [*keys.split()[:REQUEST_KEYS], meta_key(shard)]
                    reply = await self._shards.run(self._settle, shard, own_keys, args)
                    closed += int(reply[0])
                except LedgerFault as error:
                    # One unreadable reservation must not hide those behind it.
                    log.error("request %s cannot be closed, next try in an hour: %s", request_id, error)
                    await self._wire.execute("ZINCRBY", f"{prefix}:leases", POSTPONED_MS, request_id)
        return closed

    async def usage(self, shard: int, token_key: str, identities: Sequence[str]) -> dict[str, int]:
        """Downloads charged so far for each of a token's files. Raises LedgerDown."""
        used = {}
        for identity in identities:
            value = await self._wire.execute("HGET", file_keys(shard, token_key, identity)[0], "used")
            used[identity] = int(value or 0)
        return used

    async def is_unfinished(self, shard: int, token_key: str, file_identity: str, repeat_window: int) -> bool:
        file, _, begun = file_keys(shard, token_key, file_identity)
        return bool(await self._wire.run(self._unfinished, [file, begun], [repeat_window * 1000]))

    async def prolong(self, shard: int, token_key: str, identities: Sequence[str], expires_at: int) -> None:
        """Keep a link's counters for its new expiry (Unix s) and as long after it as ever. Raises LedgerDown."""
        at = expires_at * 1000 + self._keep_ms
        keys = {key for identity in identities for key in file_keys(shard, token_key, identity)}
        for key in sorted(keys):
            left = int(await self._wire.execute("PTTL", key))
            seconds, _ = await self._wire.execute("TIME")  # the server's clock, which the counters' ends go by
            if left >= 0 and int(seconds) * 1000 + left < at:
                await self._wire.execute("PEXPIREAT", key, at)

    async def first_download(self, shard: int, token_key: str) -> float | None:
        first = (await self.token_usage(shard, token_key)).first_ms
        return None if first is None else first / 1000

    async def token_usage(self, shard: int, token_key: str) -> TokenUsage:
        """What a token has taken of its limits so far, over all its files. Raises LedgerDown."""
        prefix = _prefix(shard)
        keys = [f"{prefix}:token:{token_key}", f"{prefix}:live:{token_key}"]
        reply = await self._wire.run(self._standing, keys, [Networks.name, Devices.name])
        first, live, networks, devices = reply
        return TokenUsage(int(networks), int(devices), int(live), int(first) if first else None)

    async def agree(self, proposed_secret: str) -> str:
        """Check that this Redis may hold the ledger, and return the device secret that all its gateways share.

        The first gateway's `shards` and `proposed_secret` are kept. Raises SettingsError for a server that evicts
        keys or was first used with other shards, LedgerDown where it cannot be asked.
        """
        memory = await self._wire.execute("INFO", "memory")
        policy = memory.get("maxmemory_policy", "noeviction")
        if policy != "noeviction" and int(memory.get("maxmemory", 0)):
            raise SettingsError(f"redis: maxmemory-policy {policy} would evict counters; set it to noeviction")
        persistence = await self._wire.execute("INFO", "persistence")
        if not int(persistence.get("aof_enabled", 0)) and not self._warned:
            self._warned = True
            log.warning("redis: appendonly is off, so a crash of Redis forgets downloads; set appendonly yes")
        meta = meta_key(0)
        await self._wire.execute("HSETNX", meta, "shards", self._shards.count)
        await self._wire.execute("HSETNX", meta, "device_secret", proposed_secret)
        shards = await self._wire.execute("HGET", meta, "shards")
        if int(shards) != self._shards.count:
            raise SettingsError(f"shards: this Redis was first used with {shards}; set that, or use an empty Redis")
        return str(await self._wire.execute("HGET", meta, "device_secret"))

    def _ask_json(self, ask: ReserveAsk, granted: int | None = None) -> str:
        reasons = [Reason.TOKEN_EXPIRED, *(charge.reason for charge in ask.charges)]
        document = {
            "request": ask.request_id,
            "size": ask.size,
            "etag": ask.etag,
            "start": ask.start,
            "asked": ask.asked,
            "full": ask.full,
            "elsewhere": ask.elsewhere,
            "look": ask.look,
            "window": window(ask.asked, ask.size, ask.start) if granted is None else granted,
            "budget": budget(ask.size),
            "refund_below": refund_below(ask.size, ask.rules.free_below),
            "resume_ms": ask.rules.resume_window * 1000,
            "repeat_ms": ask.rules.repeat_window * 1000,
            "repeats_max": REPEATS_MAX,
            "refunds_max": REFUNDS_MAX,
            "expires": ask.expires_at * 1000,
            "keep_until": max(ask.expires_at, ask.token_expires_at) * 1000,
            "keep_ms": self._keep_ms,
            "lease_ms": self._lease_ms,
            "network": ask.device.network,
            "charges": [_charge_document(charge, ask.event) for charge in ask.charges],
            "refusals": {reason.text: str(reason.status) for reason in reasons},
            "status": str(ask.status),
            "stamp": [text for pair in ask.stamp.items() for text in pair],
            "event": [text for pair in ask.event.items() for text in pair],
        }
        if ask.device.cookie:
            document["cookie"] = ask.device.cookie
        if ask.device.user_agent:
            document["agent"] = ask.device.user_agent
        return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def request_keys(shard: int, token_key: str, file_identity: str, request_id: str) -> list[str]:
    """The keys of one request, as lua/ledger.lua has them, META last: in one slot of a cluster, none with a space."""
    prefix = _prefix(shard)
    token = [f"{prefix}:live:{token_key}", f"{prefix}:streams:{token_key}"]
    own = [f"{prefix}:request:{request_id}", f"{prefix}:leases", f"{prefix}:events"]
    return [*file_keys(shard, token_key, file_identity), *token, *own, meta_key(shard)]


def file_keys(shard: int, token_key: str, file_identity: str) -> list[str]:
    """The keys of one token's one file: its counters and transfers, the token's, and the open transfers."""
    prefix = _prefix(shard)
    digest = hashlib.sha256(file_identity.encode()).hexdigest()[:16]
    return [f"{prefix}:file:{token_key}:{digest}", f"{prefix}:token:{token_key}", f"{prefix}:open:{token_key}:{digest}"]


def _prefix(shard: int) -> str:
    return f"gw:{{{shard}}}"


def _charge_document(charge: Charge, event: Fields) -> dict[str, str | int]:
    document: dict[str, str | int] = {"kind": charge.kind, "reason": charge.reason.text}
    if charge.limit is not None:
        document["limit"] = charge.limit
    if charge.name:
        document |= {"name": charge.name, "value": charge.value}
    if charge.alias not in ("", charge.value):
        document["alias"] = charge.alias
    # Whoever has the device removes it by what it is called.
    if charge.name == Devices.name and (about := event.get("user_agent.original")):
        document["about"] = about[:ABOUT_MAX]
    return document


def _unasked(verb: str, reservation: Reservation, args: Sequence[str | int]) -> Unasked:
    document = {"shard": reservation.shard, "keys": list(reservation.keys), "args": list(args)}
    return Unasked(verb, reservation.request_id, document)


def _flat_json(fields: Fields) -> str:
    return json.dumps([text for pair in fields.items() if pair[1] for text in pair], ensure_ascii=False)
