"""Requests of doubtful framing, then mutations of them, directly and through nginx, on servers of their own."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path
from random import Random

from redis import Redis
from smuggling import (
    AT_ONCE,
    FILES,
    FRAMINGS,
    PROGRAM,
    ROOT,
    Attacker,
    Nginx,
    Served,
    content,
    directly,
    name,
    through_nginx,
)

from gateway.backends.embedded_redis import EmbeddedRedis
from gateway.policy.keys import SigningKey, load_key
from gateway.policy.model import Claims, FileEntry
from gateway.policy.tokens import encode

sys.path.append(str(ROOT / "tests" / "chaos"))
from gateway_process import ISSUER, KEY_ID, SECRET, GatewayProcess
from redis_server import free_port

WORKERS = 2


def play(seconds: float, seed: int) -> int:
    """Every framing once, then mutations until the time is up; returns the number of connections."""
    with tempfile.TemporaryDirectory() as folder, EmbeddedRedis(Path(folder) / "redis") as url:
        files = Path(folder) / "files"
        files.mkdir()
        for number in range(FILES):
            (files / name(number)).write_bytes(content(number))
        origin = f'{{url: "file://{files}"}}'
        process = GatewayProcess(Path(folder) / "gateway", redis=url, origin=origin, workers=WORKERS)
        places = [Path(folder) / kind for kind in ("nginx", "nginx-keepalive")] if PROGRAM else []
        for place in places:
            place.mkdir()
        with Redis.from_url(url, decode_responses=True) as redis:
            return asyncio.run(_play(seconds, Random(seed), process, redis, places))


async def _play(seconds: float, rng: Random, process: GatewayProcess, redis: Redis, places: list[Path]) -> int:
    key = load_key(kid=KEY_ID, alg="HS256", use="sign", secret=SECRET)
    assert isinstance(key, SigningKey)

    def token(file: str) -> str:
        return encode(Claims(ISSUER, f"{rng.randrange(10**18)}", int(time.time()) + 3600, (FileEntry(file),)), key)

    await process.start()
    front: list[Nginx] = []
    try:
        for place in places:
            front.append(Nginx(place, free_port(), process.port, keepalive=place is places[-1]))
            await front[-1].ready()
        attacker = Attacker(Served(process.port, redis, token, process.log), rng)
        await _attack(time.monotonic() + seconds, attacker, front)
    finally:
        for nginx in front:
            nginx.close()
        await process.terminate()
    print(
        f"smuggling: {len(attacker.sent)} connections, directly{' and through nginx' if front else '; no nginx here'}"
    )
    return len(attacker.sent)


async def _attack(until: float, attacker: Attacker, front: list[Nginx]) -> None:
    """Everything as it is to each server first, whatever the time."""
    mutated = False
    while not mutated or time.monotonic() < until:
        for nginx in (None, *front):
            if mutated:
                attacks = [attacker.attack(attacker.rng.randrange(FRAMINGS), mutated=True) for _ in range(2 * AT_ONCE)]
            else:
                attacks = attacker.every()
            if nginx is None:
                await directly(attacker.served, attacks, attacker)
            else:
                await through_nginx(attacker.served, nginx, attacks, attacker, rounds=2)
        mutated = True
