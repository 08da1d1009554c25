"""`gateway order why`: why nothing was sent or a download failed, and what support can do about it."""

from __future__ import annotations

import time
from collections.abc import Set
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.named import plans
from gateway.cli.options import config_option, json_option
from gateway.cli.order_book import book_entry
from gateway.cli.output import print_json, print_line, with_tools
from gateway.policy.decide import expiry_of, limits_of
from gateway.policy.diagnosis import Finding, LinkNow, diagnosis, frozen_finding
from gateway.policy.looks import apart
from gateway.policy.reasons import Reason
from gateway.policy.shards import shard_of

if TYPE_CHECKING:
    from gateway.bootstrap.redis import Tools
    from gateway.policy.links import Link
    from gateway.policy.model import Plan
    from gateway.policy.standing import Standing
    from gateway.settings import Settings

_SAID_BY_ORDERS = frozenset({Reason.TOKEN_REVOKED.text, Reason.ORDER_UNPAID.text})


@click.command(epilog="Example: gateway order why 10001")
@click.argument("name", metavar="ORDER")
@config_option
@json_option
def why(name: str, config: Path | None, as_json: bool) -> None:
    """Why nothing was sent or a download failed: buyer, network, gateway, bucket, mail or rule."""
    entry = book_entry(config, name)
    order_id = name if entry is None else entry.order.order_id

    async def work(settings: Settings, tools: Tools) -> list[Finding]:
        shard = shard_of(order_id, settings.shards)
        entries = tools.events.scan(shard, match=lambda fields: fields.get("order.id") == order_id)
        events = [fields async for _, fields in entries]
        plan, standing = plans(settings), await tools.control.read_all()
        links = await tools.links.of_order(order_id)
        now = [await _now(each, tools, plan(each.claims), standing, shard) for each in links]
        found = frozen_finding(standing) + diagnosis(now, events, time.time())
        if entry is None:
            return found
        people, _ = apart(events)
        used = any(event.get("type", "").startswith(("link.opened", "download.")) for event in people)
        own = entry.findings(time.time(), used=used)
        said = {finding.facts.get("reason", "") for finding in own}
        # What the order itself explains, its links need not say again; and of its mails the order book knows more.
        return own + [each for each in found if each.side != "mail" and not (each.now and _follows(each, said))]

    found = with_tools(config, work)
    if not found:
        raise click.ClickException(f"nothing is known of order {order_id}; check its id with `gateway link list`")
    if as_json:
        print_json({"order": order_id, "findings": [asdict(each) for each in found]})
        return
    for each in found:
        print_line(f"{each.side or 'well':<8} {_still(each):<5} {each.text}")
        if each.todo:
            print_line(f"{'':<14} → {each.todo}")


def _follows(finding: Finding, said: Set[str]) -> bool:
    """Whether the refusal comes of what is wrong with the order itself."""
    return finding.facts.get("reason") in _SAID_BY_ORDERS and any(reason.startswith("order.") for reason in said)


def _still(finding: Finding) -> str:
    """Whether it stands in the way now, is over, or passes by itself."""
    if finding.now:
        return "now"
    return "over" if finding.side and not finding.todo else ""


async def _now(link: Link, tools: Tools, plan: Plan, standing: Standing, shard: int) -> LinkNow:
    claims = link.claims
    used = await tools.ledger.usage(shard, claims.token_key, [file.identity for file in claims.files])
    limits = limits_of(claims, plan, standing)
    first = await tools.ledger.first_download(shard, claims.token_key)
    return LinkNow(link, limits, expiry_of(claims, plan, standing), used, standing.is_revoked(claims), first)
