"""`gateway order …`: what happened to an order, told from its events, and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.options import config_option, json_option
from gateway.cli.order_book import book_entry
from gateway.cli.order_changes import erase, grant, resend, restore, revoke
from gateway.cli.order_extend import extend
from gateway.cli.order_why import why
from gateway.cli.output import print_json, print_line, with_tools
from gateway.policy.fronts import is_sent_by_another
from gateway.policy.looks import signs
from gateway.policy.shards import shard_of
from gateway.policy.units import human_size

if TYPE_CHECKING:
    from gateway.bootstrap.redis import Tools
    from gateway.settings import Settings

ENDINGS = ("download.finished", "download.lost")
SHOWN = {
    "link.created": "created",
    "link.opened": "opened",
    "link.revoked": "revoked",
    "link.extended": "extended",
    "download.allowed": "downloading",
    "download.finished": "downloaded",
    "download.lost": "lost",
    "download.confirmed": "confirmed",
    "download.denied": "denied",
    "order.received": "ordered",
    "order.paid": "paid",
    "order.unpaid": "unpaid",
    "order.confirmed": "confirmed",
    "order.granted": "granted",
    "order.nothing": "nothing",
    "order.refunded": "refunded",
    "order.cancelled": "cancelled",
    "order.charged_back": "charged back",
    "order.removed": "removed",
    "order.withdrawn": "taken back",
    "order.restored": "given back",
    "order.renewed": "renewed",
    "order.shortened": "shortened",
    "order.erased": "erased",
    "mail.queued": "to mail",
    "mail.accepted": "mailed",
    "mail.deferred": "mail waits",
    "mail.failed": "mail failed",
    "mail.bounced": "mail bounced",
    "staff.acted": "staff",
    "buyer.acted": "buyer",
}
"""What each type of event is called in the timeline."""


@click.group(epilog="Example: gateway order show 10001")
def order() -> None:
    """What happened to an order, and why."""


for command in (why, revoke, restore, resend, extend, grant, erase):
    order.add_command(command)


@order.command(epilog="Example: gateway order show 10001 --json")
@click.argument("name", metavar="ORDER")
@config_option
@json_option
def show(name: str, config: Path | None, as_json: bool) -> None:
    """An order's timeline: paid, mailed, opened, downloaded, denied; from where, how much and how long."""
    entry = book_entry(config, name)
    order_id = name if entry is None else entry.order.order_id

    async def work(settings: Settings, tools: Tools) -> tuple[int, list[dict[str, str]]]:
        shard = shard_of(order_id, settings.shards)
        entries = tools.events.scan(shard, match=lambda fields: fields.get("order.id") == order_id)
        events = [fields async for _, fields in entries]
        return len(await tools.links.of_order(order_id)), events

    links, events = with_tools(config, work)
    if not links and not events and entry is None:
        raise click.ClickException(f"nothing is known of order {order_id}; check its id with `gateway link list`")
    steps = timeline(events)
    if as_json:
        known = {} if entry is None else {"book": entry.document()}
        print_json({"order": order_id, "links": links, "timeline": steps, **known})
        return
    print_line(f"order {order_id}: {links} link{'' if links == 1 else 's'}")
    for line in () if entry is None else entry.lines():
        print_line(line)
    for step in steps:
        print_line(told(step))


def timeline(events: Iterable[Mapping[str, str]]) -> list[dict[str, str]]:
    """One step an event, in their order, but one only for a request that began and ended: at its end, with both."""
    begun: dict[str, Mapping[str, str]] = {}
    steps: dict[str, dict[str, str]] = {}
    for event in events:
        kind, request = event.get("type", ""), event.get("request.id", "")
        opening = begun.get(request, {})
        step = dict(event)
        if kind == "download.allowed":
            begun[request] = event
        elif kind in ENDINGS and opening:
            steps.pop(opening["id"], None)
            step = {**opening, **event, "began": opening["time"], "counted": _sum(opening, event)}
        sent_on = kind == "download.finished" and is_sent_by_another(event)
        steps[event["id"]] = {"what": "sent on" if sent_on else SHOWN.get(kind, kind), **step}
    return list(steps.values())


def told(step: Mapping[str, str]) -> str:
    """A step as one line for people."""
    parts = [_second(step.get("time", "")), f"{step['what']:<12}"]
    if step["what"] == "denied":
        parts.append(step.get("reason", "") + (f" ({step['rule']})" if "rule" in step else ""))
    if "file.key" in step:
        parts.append(step["file.key"])
    elif step["what"] in ("created", "revoked", "extended"):
        parts.append(f"link {step.get('token.id', '')}")
    if step["what"] == "staff":
        refused = step.get("http.response.status_code", "2")[0] != "2"
        parts.append(f"{step.get('staff.name', '')}: {step.get('staff.action', '')}{', refused' if refused else ''}")
    if step["what"] == "buyer":
        parts.append(f"{step.get('buyer.action', '')} (at the {step.get('buyer.at', '')})")
    if "line.id" in step:
        parts.append(f"line {step['line.id']} {step.get('line.title', '')}".strip())
    if step.get("type", "").startswith("mail."):
        kind = "code" if step.get("mail.purpose") == "code" else ""
        parts += [part for part in (kind, step.get("mail.answer") or step.get("reason", "")) if part]
    parts += [part for part in (_bytes(step), _duration(step), _origin(step), _result(step), _scanner(step)) if part]
    return "  ".join(parts)


def _bytes(step: Mapping[str, str]) -> str:
    if step["what"] == "sent on":
        return ""  # its bytes are another server's affair
    delivered, size = _number(step, "bytes.delivered"), _number(step, "file.size")
    if delivered is None:
        return ""
    return human_size(delivered) if size is None else f"{human_size(delivered)} of {human_size(size)}"


def _duration(step: Mapping[str, str]) -> str:
    milliseconds = None if step["what"] == "sent on" else _number(step, "duration.ms")
    return "" if milliseconds is None else f"in {milliseconds / 1000:.1f} s"


def _origin(step: Mapping[str, str]) -> str:
    if "client.address" not in step:
        return ""
    country = step.get("geo.country.iso_code")
    return f"from {step['client.address']}" + (f" ({country})" if country else "")


def _result(step: Mapping[str, str]) -> str:
    if step["what"] not in ("downloaded", "sent on", "lost", "downloading"):
        return ""
    counted = {"1": "counted", "0": "not counted"}.get(step.get("counted", ""), "")
    outcome = "arrival not known" if step["what"] == "sent on" else step.get("outcome", "").replace("_", " ")
    return ", ".join(part for part in (outcome, counted) if part)


def _scanner(step: Mapping[str, str]) -> str:
    if step.get("type") == "download.confirmed":
        return "a person after all, counted"
    return f"suspected scanner ({why})" if (why := signs(step)) else ""


def _sum(opening: Mapping[str, str], ending: Mapping[str, str]) -> str:
    """What a request added to the count in the end: its ending says −1 where its charge was given back."""
    return str((_number(opening, "counted") or 0) + (_number(ending, "counted") or 0))


def _number(step: Mapping[str, str], name: str) -> int | None:
    text = step.get(name, "")
    return int(text) if text.removeprefix("-").isdecimal() else None


def _second(time: str) -> str:
    return f"{time[:19]}Z" if time.endswith("Z") else time
