"""Whether all downloads are stopped, for `gateway doctor`: by the control stream, and by the gateway that runs here."""

from __future__ import annotations

from aiohttp import ClientError, ClientSession, ClientTimeout

from gateway.backends.redis_client import Wire
from gateway.backends.redis_control import RedisControl
from gateway.cli.output import utc
from gateway.errors import LedgerDown
from gateway.policy.checkup import of_freeze
from gateway.services.checkup import Report
from gateway.settings_values import Listen

PATIENCE = ClientTimeout(total=1.0)


async def check(wire: Wire, management: Listen, report: Report) -> None:
    """Nothing is said where Redis is away: that is said of Redis itself. Raises GatewayError."""
    workers = await _of_workers(management)
    try:
        frozen = (await RedisControl(wire).read_all()).frozen
    except LedgerDown:
        return
    report(of_freeze(utc(frozen.since) if frozen else "", workers))


async def _of_workers(management: Listen) -> str | None:
    """Since when its workers stop everything, or ""; None where no gateway answers there."""
    try:
        async with ClientSession(timeout=PATIENCE) as client, client.get(f"http://{management}/readyz") as answer:
            told = await answer.json()
    except (ClientError, TimeoutError, OSError, ValueError):
        return None
    if not isinstance(told, dict) or "frozen" not in told or not told.get("workers"):
        return None
    return str(told["frozen"] or "")
