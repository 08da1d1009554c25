"""`gateway order extend`, and that what people do at the command line is on record like what they do over the API."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis

from gateway.bootstrap.orders import open_desk
from gateway.policy.orders import Buyer, Line, Notice
from gateway.services.identifiers import now_ms
from gateway.settings import load

Run = Callable[..., subprocess.CompletedProcess[str]]
ORDERS = """
shops: [{{name: main, kind: signed, secrets: [0123456789abcdef0123456789abcdef]}}]
orders: {{url: "sqlite:///{folder}/orders.db"}}
products: {folder}/products.yaml
mail: {{server: "smtp+plain://127.0.0.1:9", sender: shop@example.com}}
"""
PRODUCTS = "version: 1\nproducts:\n  - {sku: SEA, files: [ebooks/sea.pdf], lasts: 1d}\n"


@pytest.fixture
def sold(config: Path, tmp_path: Path) -> Path:
    """The settings of a gateway with one paid order, main-10001."""
    (tmp_path / "products.yaml").write_text(PRODUCTS)
    config.write_text(config.read_text() + ORDERS.format(folder=tmp_path))
    notice = Notice(
        "10001", now_ms(), "#10001", paid=True, buyer=Buyer("buyer@example.com"), lines=(Line("1", sku="SEA"),)
    )

    async def sell() -> None:
        async with open_desk(load(config, {})) as (_, fulfilment):
            await fulfilment.hear("main", notice)

    asyncio.run(sell())
    return config


def recorded(config: Path, order: str) -> list[tuple[str, str]]:
    """Acts still in the book, by type or action, with the end of what the order gives."""

    async def look() -> list[tuple[str, str]]:
        async with open_desk(load(config, {})) as (book, _):
            told = [each.fields for each in await book.outgoing(100) if each.fields.get("order.id") == order]
            return [(each["type"], each.get("staff.action", "")) for each in told]

    return asyncio.run(look())


def test_what_an_order_gives_lasts_longer(run: Run, sold: Path, redis_db: str) -> None:
    shown = run("order", "extend", "10001", "--until", "2090-01-31", "--config", sold)
    assert (shown.returncode, shown.stderr) == (0, "")
    said = "what order main-10001 gives lasts until 2090-01-31T23:59:59Z at least, and so do its links\n"
    assert shown.stdout == said
    assert recorded(sold, "main-10001")[-2:] == [("staff.acted", "order.extend"), ("order.renewed", "")]
    with Redis.from_url(redis_db, decode_responses=True) as client:
        (_, command), *rest = client.xrange("gw:{0}:control")
    assert (command["verb"], command["expires_at"], rest) == ("extend", "3789590399", [])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["10001"], "give either --expires or --until"),
        (["10001", "--until", "2020-01-01"], "until lies in the past"),
        (["none", "--expires", "1d"], "the order book has no order none"),
    ],
)
def test_what_cannot_be_extended(options: list[str], says: str, run: Run, sold: Path) -> None:
    shown = run("order", "extend", *options, "--config", sold)
    assert (shown.returncode != 0, says in shown.stderr) == (True, True), shown.stderr
    assert "staff.acted" not in [kind for kind, _ in recorded(sold, "main-10001")]


def test_without_an_order_book(run: Run, config: Path) -> None:
    shown = run("order", "extend", "10001", "--expires", "1d", "--config", config)
    assert (shown.returncode, "orders: is not set" in shown.stderr) == (1, True)


def test_every_command_that_changes_an_order_says_who_gave_it(run: Run, sold: Path, monkeypatch) -> None:
    monkeypatch.setenv("LOGNAME", "anna")
    for command in ("revoke", "restore", "resend", "grant", "erase"):
        shown = run("order", command, "main-10001", "--config", sold)
        assert (command, shown.returncode, shown.stderr) == (command, 0, "")
    acts = [action for kind, action in recorded(sold, "main-10001") if kind == "staff.acted"]
    assert acts == ["order.revoke", "order.restore", "order.resend", "order.grant", "order.erase"]

    async def names() -> set[str]:
        async with open_desk(load(sold, {})) as (book, _):
            return {each.fields["staff.name"] for each in await book.outgoing(100) if "staff.name" in each.fields}

    assert asyncio.run(names()) == {"cli:anna"}


def test_a_buyer_is_forgotten_once_and_for_all(run: Run, sold: Path) -> None:
    said = (
        "erased the buyer's personal data of order main-10001; it had no customer id, "
        "and its events stay until events.keep\n"
    )
    for _ in range(2):
        shown = run("order", "erase", "10001", "--config", sold)
        assert (shown.returncode, shown.stderr, shown.stdout) == (0, "", said)
    kinds = [kind for kind, _ in recorded(sold, "main-10001")]
    assert (kinds.count("order.erased"), kinds.count("staff.acted")) == (1, 2)
    why = run("order", "why", "10001", "--config", sold)
    assert "@" not in why.stdout
    resent = run("order", "resend", "10001", "--config", sold)
    assert (resent.returncode, "has no e-mail address" in resent.stderr) == (1, True)


def test_a_link_command_is_on_record_before_its_link(run: Run, config: Path, redis_db: str) -> None:
    made = run("link", "create", "--file", "a", "--json", "--config", config, LOGNAME="anna")
    token_id = json.loads(made.stdout)["token_id"]
    run("link", "extend", token_id, "--expires", "90d", "--config", config, LOGNAME="anna")
    run("link", "revoke", token_id, "--config", config, LOGNAME="anna")
    with Redis.from_url(redis_db, decode_responses=True) as client:
        told = [fields for shard in range(4) for _, fields in client.xrange(f"gw:{{{shard}}}:events")]
    assert [(each["type"], each.get("staff.action")) for each in told] == [
        ("staff.acted", "link.create"),
        ("link.created", None),
        ("staff.acted", "link.extend"),
        ("link.extended", None),
        ("staff.acted", "link.revoke"),
        ("link.revoked", None),
    ]
    assert {(each["staff.name"], each["token.id"]) for each in told if "staff.name" in each} == {("cli:anna", token_id)}
