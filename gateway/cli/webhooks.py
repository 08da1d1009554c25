"""`gateway webhooks test`: a signed sample of an event, sent to an endpoint, to see what that makes of it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.options import config_option, json_option
from gateway.cli.output import print_json, print_line, read_settings
from gateway.errors import GatewayError
from gateway.policy.events import TYPES, new_event
from gateway.policy.webhooks import Answer, secret_key, webhook
from gateway.services.identifiers import new_id, now_ms

if TYPE_CHECKING:
    from gateway.settings_sections import WebhookSettings

SAMPLE = {
    "outcome": "complete",
    "token.id": "sample",
    "order.id": "10001",
    "file.key": "ebooks/sample.pdf",
    "bytes.delivered": "1048576",
    "client.address": "203.0.113.9",
}


@click.group(epilog="Example: gateway webhooks test --url https://shop.example.com/downloads")
def webhooks() -> None:
    """Try the webhooks to the shop."""


@webhooks.command(epilog="Example: gateway webhooks test --url https://shop.example.com/downloads")
@click.option("--url", help="An address of the settings' webhooks; the only one where there is one.")
@click.option("--type", "kind", type=click.Choice(TYPES), help="The type of event.  [default: its first]")
@config_option
@json_option
def test(url: str | None, kind: str | None, config: Path | None, as_json: bool) -> None:
    """Send a signed sample of an event to an endpoint once, and show what it answers."""
    endpoint = _endpoint(read_settings(config).webhooks, url)
    event = new_event(kind or endpoint.events[0], new_id(), now_ms(), SAMPLE)
    answer = asyncio.run(_sent(endpoint, event))
    if as_json:
        print_json({"outcome": answer.outcome, "said": answer.said, "webhook_id": event["id"]})
    else:
        print_line(f"{answer.outcome}: {answer.said}  (webhook-id {event['id']})")
    if answer.outcome != "taken":
        raise click.exceptions.Exit(1)


def _endpoint(known: tuple[WebhookSettings, ...], url: str | None) -> WebhookSettings:
    """The endpoint with this address, which is signed with a secret of its own."""
    if not known:
        raise GatewayError("the settings have no webhooks; write one under webhooks:, see docs/webhooks.md")
    if url is None and len(known) > 1:
        raise click.UsageError("there are several endpoints; give --url the address of one")
    found = [each for each in known if url in (None, each.url.get_secret_value())]
    if not found:
        raise GatewayError("webhooks: has no such address; write it as it stands there, with its secret")
    return found[0]


async def _sent(endpoint: WebhookSettings, event: dict[str, str]) -> Answer:
    from gateway.backends.webhook_sender import HttpSender  # noqa: PLC0415  `gateway --help` needs none of it

    key = secret_key(endpoint.secret.get_secret_value())
    async with HttpSender(endpoint.url.get_secret_value()) as sender:
        return await sender.send(webhook(event, key, int(time.time())))
