"""`gateway hooks send`: a sample webhook, signed as the shop would sign it, to see what the gateway makes of it."""

from __future__ import annotations

import asyncio
import secrets
import shlex
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from gateway.cli.options import config_option, json_option
from gateway.cli.output import print_json, print_line, read_settings
from gateway.errors import GatewayError
from gateway.services.identifiers import now_ms
from gateway.shops import SHOPS
from gateway.shops.samples import Wanted, Webhook, sample

if TYPE_CHECKING:
    from gateway.settings import Settings
    from gateway.settings_sections import ShopSettings

SECONDS = 10
SAID_MAX = 2000
_GOOD = range(200, 300)


@click.group(epilog="Example: gateway hooks send --shop main --sku SEA-PDF --email you@example.com")
def hooks() -> None:
    """Try the webhooks of the shops."""


@hooks.command(epilog="Example: gateway hooks send --shop main --order 10001 --sku SEA-PDF --email you@example.com")
@click.option("--shop", "name", help="A shop of the settings; the only one where there is one.")
@click.option("--sample", "kind", type=click.Choice(tuple(SHOPS)), help="The kind that this shop must be of.")
@click.option("--to", help="Another address than the settings' own, such as http://127.0.0.1:8080.")
@click.option("--topic", default="", help="The webhook's topic.  [default: the one of a paid order]")
@click.option("--order", default="10001", show_default=True, help="The order's id in the shop.")
@click.option("--email", default="buyer@example.com", show_default=True, help='The buyer\'s address; "" for none.')
@click.option("--sku", default="SAMPLE", show_default=True, help="The SKU of the order's one line.")
@click.option("--unpaid", is_flag=True, help="An order that has not been paid.")
@click.option("--refund", is_flag=True, help="A refund of that order.")
@click.option("--print", "printed", is_flag=True, help="Print it as a curl command, and send nothing.")
@config_option
@json_option
def send(  # noqa: PLR0913, PLR0917  # one parameter per option
    name: str | None,
    kind: str | None,
    to: str | None,
    topic: str,
    order: str,
    email: str,
    sku: str,
    unpaid: bool,
    refund: bool,
    printed: bool,
    config: Path | None,
    as_json: bool,
) -> None:
    """Send a sample order of a shop to the gateway, and show what it answers."""
    if unpaid and refund:
        raise click.UsageError("an order that was not paid is not refunded; give only one of --unpaid and --refund")
    if not topic.isascii() or not topic.isprintable():
        raise click.UsageError("--topic has letters that no header can hold; write one like orders/paid")
    settings = read_settings(config)
    shop = _shop(settings, name, kind)
    wanted = Wanted(order, now_ms(), secrets.token_hex(8), sku, email, paid=not unpaid, refund=refund, topic=topic)
    webhook = sample(shop.kind, wanted, shop.secrets[0].get_secret_value().encode())
    address = _address(to or settings.base_url, shop.name)
    if printed:
        print(_curl(address, webhook), flush=True)
        return
    status, said = asyncio.run(_sent(address, webhook))
    if as_json:
        print_json({"status": status, "said": said})
    else:
        print_line(f"{status}  {said}".rstrip())
    if status not in _GOOD:
        raise click.exceptions.Exit(1)


def _shop(settings: Settings, name: str | None, kind: str | None) -> ShopSettings:
    known = {shop.name: shop for shop in settings.shops}
    if not known:
        raise GatewayError("the settings have no shops; write one under shops:, see docs/shops.md")
    if name is None and len(known) > 1:
        raise click.UsageError(f"there are several shops; give --shop one of {', '.join(known)}")
    shop = known.get(name) if name is not None else next(iter(known.values()))
    if shop is None:
        raise GatewayError(f"there is no shop {name}; write one of {', '.join(known)}")
    if kind not in (None, shop.kind):
        raise GatewayError(f"the shop {shop.name} is of the kind {shop.kind}; leave out --sample, or write that")
    return shop


def _address(base: str, shop: str) -> str:
    """Where the shop would send it; an address with a path of its own is taken as it is."""
    try:
        parts = urlsplit(base)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise click.UsageError("--to is no address; write it like http://127.0.0.1:8080")
    return f"{base.rstrip('/')}/hooks/{shop}" if parts.path in ("", "/") else base


def _curl(address: str, webhook: Webhook) -> str:
    headers = [f"-H {shlex.quote(f'{name}: {value}')}" for name, value in webhook.headers.items()]
    # The answer's status is what one wants to see, and curl alone does not show it.
    shown = "curl -sS -w '\\n%{http_code}\\n'"
    return " \\\n  ".join(
        [shown, *headers, f"--data-binary {shlex.quote(webhook.body.decode())}", shlex.quote(address)]
    )


async def _sent(address: str, webhook: Webhook) -> tuple[int, str]:
    """The answer's status, and the beginning of what it says."""
    from aiohttp import ClientError, ClientSession, ClientTimeout  # noqa: PLC0415  # `--print` needs none of it

    try:
        async with (
            ClientSession(timeout=ClientTimeout(total=SECONDS)) as session,
            session.post(address, data=webhook.body, headers=webhook.headers, allow_redirects=False) as answer,
        ):
            begun = await answer.content.read(SAID_MAX)
            return answer.status, begun.decode(errors="replace").strip()
    except (ClientError, TimeoutError, ValueError) as error:
        # An address may hold a password, so only the kind of the failure is told.
        raise click.ClickException(
            f"nobody took the webhook ({type(error).__name__}); start `gateway serve`, or say where: --to http://127.0.0.1:8080"
        ) from None
