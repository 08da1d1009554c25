"""The ledger: reservations counted atomically by the scripts in lua/, one shard's keys per order.

This module only lays out keys and arguments; what counts as a download is decided in lua/ledger.lua.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence

from gateway.backends.redis_client import Script, Wire
from gateway.errors import LedgerFault, ReservationGone, SettingsError
from gateway.policy.counting import REFUNDS_MAX, REPEATS_MAX, budget, refund_below, window
from gateway.policy.model import Deny, Grant, Outcome, Reservation
from gateway.policy.reasons import Reason
from gateway.ports import Fields, ReserveAsk

log = logging.getLogger(__name__)

REAP_BATCH = 100
POSTPONED_MS = 3_600_000


class RedisLedger:
    """gateway.ports.Ledger on Redis ≥ 6.2 or Valkey.

    `lease_ms`: how long a silent worker's reservations stay open. `keep_ms`: how long counters outlive their token.
    `clock` replaces the server's clock, for tests.
    """

    def __init__(self, wire: Wire, *, shards: int, lease_ms: int, keep_ms: int, clock: str | None = None) -> None:
        self._wire = wire
        self._shards = shards
        self._lease_ms = lease_ms
        self._keep_ms = keep_ms
        self._reserve = Script("ledger.lua", "reserve.lua", clock=clock)
        self._renew = Script("ledger.lua", "renew.lua", clock=clock)
        self._settle = Script("ledger.lua", "settle.lua", clock=clock)
        self._lapsed = Script("lapsed.lua", clock=clock)

    async def reserve(self, ask: ReserveAsk) -> Reservation | Deny:
        keys = request_keys(ask.shard, ask.token_key, ask.file_identity, ask.request_id)
        reply = await self._wire.run(self._reserve, keys, [self._ask_json(ask), "reserve"])
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
        reply = await self._wire.run(self._reserve, keys, [self._ask_json(ask), "peek"])
        return Deny(Reason.named(reply[1])) if reply[0] == "deny" else None

    async def has_transfers(self, shard: int, token_key: str, file_identity: str) -> bool:
        return bool(await self._wire.execute("EXISTS", file_keys(shard, token_key, file_identity)[2]))

    async def ping(self) -> None:
        await self._wire.execute("PING")

    async def renew(self, reservation: Reservation, acknowledged: int, granted: int) -> Grant:
        args: list[str | int] = [reservation.request_id, acknowledged, granted, self._lease_ms]
        reply = await self._wire.run(self._renew, reservation.keys, args)
        if reply[0] == "gone":
            raise ReservationGone("the reservation is closed")
        return Grant(int(reply[1]), Reason.named(reply[2]) if reply[2] else None)

    async def settle(self, reservation: Reservation, outcome: Outcome) -> bool:
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
        args: list[str | int] = [reservation.request_id, outcome.delivered, how, _flat_json(own), status]
        return bool(await self._wire.run(self._settle, reservation.keys, args))

    async def reap(self, stamp: Callable[[], Fields]) -> int:
        closed = 0
        for shard in range(self._shards):
            prefix = _prefix(shard)
            lapsed = await self._wire.run(self._lapsed, [f"{prefix}:leases"], [REAP_BATCH, f"{prefix}:request:"])
            for request_id, file, token, opened in zip(*[iter(lapsed)] * 4, strict=True):
                keys = [file, token, opened, f"{prefix}:request:{request_id}", f"{prefix}:leases", f"{prefix}:events"]
                own = {**stamp(), "type": "download.lost"}
                args: list[str | int] = [request_id, -1, "lapsed", _flat_json(own), ""]
                try:
                    closed += int(await self._wire.run(self._settle, keys, args))
                except LedgerFault as error:
                    # One unreadable reservation must not hide those behind it.
                    log.error("request %s cannot be closed, next try in an hour: %s", request_id, error)
                    await self._wire.execute("ZINCRBY", keys[4], POSTPONED_MS, request_id)
        return closed

    async def usage(self, shard: int, token_key: str, identities: Sequence[str]) -> dict[str, int]:
        """Downloads charged so far for each of a token's files. Raises LedgerDown."""
        used = {}
        for identity in identities:
            value = await self._wire.execute("HGET", file_keys(shard, token_key, identity)[0], "used")
            used[identity] = int(value or 0)
        return used

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
        if not int(persistence.get("aof_enabled", 0)):
            log.warning("redis: appendonly is off, so a crash of Redis forgets downloads; set appendonly yes")
        meta = f"{_prefix(0)}:meta"
        await self._wire.execute("HSETNX", meta, "shards", self._shards)
        await self._wire.execute("HSETNX", meta, "device_secret", proposed_secret)
        shards = await self._wire.execute("HGET", meta, "shards")
        if int(shards) != self._shards:
            raise SettingsError(f"shards: this Redis was first used with {shards}; set that, or use an empty Redis")
        return str(await self._wire.execute("HGET", meta, "device_secret"))

    def _ask_json(self, ask: ReserveAsk) -> str:
        reasons = [Reason.TOKEN_EXPIRED, *(charge.reason for charge in ask.charges)]
        document = {
            "request": ask.request_id,
            "size": ask.size,
            "etag": ask.etag,
            "start": ask.start,
            "asked": ask.asked,
            "full": ask.full,
            "window": window(ask.asked, ask.size, ask.start),
            "budget": budget(ask.size),
            "refund_below": refund_below(ask.size, ask.rules.free_below),
            "resume_ms": ask.rules.resume_window * 1000,
            "repeat_ms": ask.rules.repeat_window * 1000,
            "repeats_max": REPEATS_MAX,
            "refunds_max": REFUNDS_MAX,
            "expires": ask.expires_at * 1000,
            "keep_ms": self._keep_ms,
            "lease_ms": self._lease_ms,
            "network": ask.device.network,
            "charges": [
                {"kind": charge.kind, "reason": charge.reason.text}
                | ({} if charge.limit is None else {"limit": charge.limit})
                for charge in ask.charges
            ],
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
    """The six keys of one request, in the order of lua/ledger.lua; all in one slot of a cluster."""
    prefix = _prefix(shard)
    own = [f"{prefix}:request:{request_id}", f"{prefix}:leases", f"{prefix}:events"]
    return file_keys(shard, token_key, file_identity) + own


def file_keys(shard: int, token_key: str, file_identity: str) -> list[str]:
    """The keys of one token's one file: its counters and transfers, the token's, and the open transfers."""
    prefix = _prefix(shard)
    digest = hashlib.sha256(file_identity.encode()).hexdigest()[:16]
    return [f"{prefix}:file:{token_key}:{digest}", f"{prefix}:token:{token_key}", f"{prefix}:open:{token_key}:{digest}"]


def _prefix(shard: int) -> str:
    return f"gw:{{{shard}}}"


def _flat_json(fields: Fields) -> str:
    return json.dumps([text for pair in fields.items() if pair[1] for text in pair], ensure_ascii=False)
