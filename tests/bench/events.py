"""Writes made-up events as a busy shop would have them, for measuring `rules replay`: to a file, or to a Redis stream.

python tests/bench/events.py 1000000 /tmp/events.jsonl
python tests/bench/events.py 1000000 redis://127.0.0.1:6379/0
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Iterator
from ipaddress import ip_address
from itertools import islice
from pathlib import Path

from redis import Redis

from gateway.policy.events import new_event
from gateway.policy.model import Allow, Claims, Deny, Device, DownloadRequest, FileEntry, Limits, Place, StoredObject
from gateway.policy.reasons import Reason
from gateway.policy.record import describe

DAYS = 30
GEO = "GeoLite2-City 2026-11-18, GeoLite2-ASN 2026-11-18, GeoIP2-Anonymous-IP 2026-11-18"
AGENTS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_7 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.1",
    "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
    "curl/8.5.0",
)


def events(count: int) -> Iterator[dict[str, str]]:
    """About one request and a closing event for two events; a twelfth refused by country."""
    chance = random.Random(6)
    now_ms = int(time.time() * 1000)
    at = now_ms - DAYS * 86_400_000
    step = DAYS * 86_400_000 * 23 // (12 * max(count, 1))
    files = [
        (f"music/{number // 12}/track-{number % 12}.flac", chance.randrange(10**6, 10**8)) for number in range(600)
    ]
    places = [
        Place(country, continent, f"{country}-{region:02d}", f"City {region}", 64500 + region, frozenset(), GEO)
        for country, continent in (("PL", "EU"), ("DE", "EU"), ("US", "NA"), ("JP", "AS"), ("CU", "NA"))
        for region in range(12)
    ]
    tokens = max(count // 12, 1)
    number = 0
    while True:
        at = min(at + step, now_ms - 60_000)
        number += 1
        buyer = chance.randrange(tokens)
        own = random.Random(buyer)
        file, size = files[(own.randrange(600) + chance.randrange(3)) % 600]
        place = places[own.randrange(52)]
        address = f"198.{18 + own.randrange(2)}.{own.randrange(256)}.{own.randrange(1, 255)}"
        claims = Claims(
            "", f"{buyer:032x}", (now_ms // 1000) + own.randrange(1, 90) * 86_400, (),
            issued_at=(now_ms // 1000) - 40 * 86_400, customer_id=f"c{buyer % 50_000}", order_id=str(100_000 + buyer),
            plan=own.choice([None, "standard", "gold"]), tier=own.choice([None, None, None, "free"]), limits=Limits(),
        )  # fmt: skip
        request_id = f"019ac5f0-{number:012x}-7000-8000"
        request = DownloadRequest(
            request_id, "", 1, "GET", ip_address(address), f"{address.rpartition('.')[0]}.0/24",
            range=None if chance.random() < 0.8 else f"bytes={size // 2}-", user_agent=own.choice(AGENTS),
        )  # fmt: skip
        device = Device(f"{buyer:020x}", request.client_network, None, f"{buyer:020x}")
        entry = FileEntry(file)
        decision: Allow | Deny = Allow(
            entry, (), claims.expires_at, plan=claims.plan or "standard", rule="otherwise", limits=Limits(downloads=5)
        )
        if place.country == "CU":
            decision = Deny(Reason.RULE_DENIED, rule="embargo", plan="standard")
        stored = StoredObject(file, size, '"9a0364b9e99bb480dd25e1f0284c8555"', 0, "")
        told = describe(
            request, claims=claims, file=entry, device=device, place=place, decision=decision,
            stored=stored if isinstance(decision, Allow) else None, asked=size if isinstance(decision, Allow) else None,
        )  # fmt: skip
        told["rules.version"] = "1f0c3a9b8d7e"
        event_id = f"019ac5f1-{number:012x}-7000-8000"
        if isinstance(decision, Deny):
            told |= {"reason": decision.reason.text, "http.response.status_code": "403"}
            yield new_event("download.denied", event_id, at, told)
            continue
        told |= {"http.response.status_code": "206" if request.range else "200", "transfer.id": request_id}
        yield new_event("download.allowed", event_id, at, {**told, "counted": 1})
        closing = {"outcome": "complete", "counted": 0, "bytes.delivered": size, "duration.ms": 4211}
        yield new_event("download.finished", event_id[:-1] + "1", at + 4211, {**told, **closing})


def main(count: int, target: str) -> None:
    made = islice(events(count), count)
    if "://" not in target:
        with Path(target).open("w", encoding="utf-8") as out:
            out.writelines(json.dumps(event, separators=(",", ":")) + "\n" for event in made)
        return
    with Redis.from_url(target) as client:
        while batch := list(islice(made, 500)):
            pipeline = client.pipeline(transaction=False)
            for event in batch:
                pipeline.xadd("gw:{0}:events", event)
            pipeline.execute()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
