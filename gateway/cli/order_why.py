"""`gateway order why`: why nothing was sent or a download failed, and what support can do about it."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.named import plans
from gateway.cli.options import config_option, json_option
from gateway.cli.output import print_json, print_line, with_tools
from gateway.policy.decide import expiry_of, limits_of
from gateway.policy.diagnosis import Finding, LinkNow, diagnosis
from gateway.policy.shards import shard_of

if TYPE_CHECKING:
    from gateway.bootstrap import Tools
    from gateway.policy.links import Link
    from gateway.policy.model import Plan
    from gateway.policy.standing import Standing
    from gateway.settings import Settings


@click.command(epilog="Example: gateway order why 10001")
@click.argument("order_id", metavar="ORDER")
@config_option
@json_option
def why(order_id: str, config: Path | None, as_json: bool) -> None:
    """Why nothing was sent or a download failed: buyer, network, gateway, bucket, mail or rule."""

    async def work(settings: Settings, tools: Tools) -> list[Finding]:
        shard = shard_of(order_id, settings.shards)
        entries = tools.events.scan(shard, match=lambda fields: fields.get("order.id") == order_id)
        events = [fields async for _, fields in entries]
        plan, standing = plans(settings), await tools.control.read_all()
        links = await tools.links.of_order(order_id)
        now = [await _now(each, tools, plan(each.claims), standing, shard) for each in links]
        return diagnosis(now, events, time.time())

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
