"""The calls about orders, end to end, with the log of who did what."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from gateway.backends.order_book import SqlOrderBook
from gateway.backends.redis_events import Entry, RedisEventLog
from gateway.bootstrap.orders import open_desk
from gateway.errors import OrdersDown
from gateway.order_ports import Mail
from gateway.settings import Settings
from gateway.web.api import orders, routes

Ask = Callable[..., Awaitable[Any]]
Acted = Callable[[], Awaitable[list[dict[str, str]]]]


async def test_what_is_known_of_an_order(ask: Ask, paid: str) -> None:
    for text in (paid, "10001", "%2310001", "BUYER@example.com", "C7"):
        found = await ask("read-only", "GET", f"/orders?q={text}")
        assert found.body == {"orders": [{"order_id": paid, "reference": "#10001", "shop": "main", "paid": True}]}
    shown = (await ask("read-only", "GET", f"/orders/{paid}")).body
    assert shown["buyer"] == {"email": "buyer@example.com", "name": "B. Buyer", "customer_id": "C7", "language": "en"}
    assert shown["lines"] == [{"line_id": "1", "title": "The Sea", "sku": "SEA", "quantity": 1, "taken_back": ""}]
    assert [each["file"] for each in shown["holdings"]] == ["ebooks/sea.pdf"]
    assert [each["files"] for each in shown["links"]] == [["ebooks/sea.pdf"]]
    assert [each["state"] for each in shown["mails"]] == ["queued"]


async def test_who_looks_for_a_buyer_by_address_is_on_record_and_the_address_is_not(
    ask: Ask, acted: Acted, paid: str
) -> None:
    await ask("read-only", "GET", f"/orders?q={paid}")
    await ask("read-only", "GET", "/orders?q=buyer@example.com")
    assert await acted() == [
        {"staff.name": "rita", "staff.action": "order.search", "http.response.status_code": "200"},
    ]


async def test_taking_back_and_giving_back(ask: Ask, acted: Acted, paid: str) -> None:
    taken = await ask("ops", "POST", f"/orders/{paid}/revoke", {"line": "1"})
    assert (taken.status, taken.body["holdings"], taken.body["lines"][0]["taken_back"]) == (200, [], "withdrawn")
    given = await ask("ops", "POST", f"/orders/{paid}/restore")
    assert [each["file"] for each in given.body["holdings"]] == ["ebooks/sea.pdf"]
    wrong = await ask("ops", "POST", f"/orders/{paid}/revoke", {"line": "9"})
    assert (wrong.status, "no line 9; write one of 1" in wrong.body["detail"]) == (422, True)
    unknown = await ask("ops", "POST", "/orders/none/revoke")
    assert (unknown.status, unknown.body["reason"]) == (404, "order.unknown")
    said = [(each["staff.action"], each["order.id"], each["http.response.status_code"]) for each in await acted()]
    assert said == [
        ("order.revoke", paid, "200"),
        ("order.restore", paid, "200"),
        ("order.revoke", paid, "422"),
        ("order.revoke", "none", "404"),
    ]


async def test_mailing_again_and_a_corrected_address(ask: Ask, paid: str, settings: Settings) -> None:
    corrected = await ask("support", "PUT", f"/orders/{paid}/email", {"email": "new@example.com"})
    assert corrected.body["buyer"]["email"] == "new@example.com"
    assert len(corrected.body["mails"]) == 1
    sent = await ask("support", "POST", f"/orders/{paid}/resend", {"to": "other@example.com", "new_links": True})
    assert (sent.status, len(sent.body["mails"]), len(sent.body["links"])) == (200, 2, 2)
    async with open_desk(settings) as (book, _):
        assert [mail.to for mail in await book.mails(paid)] == ["buyer@example.com", "other@example.com"]
        told = [str(dict(each.fields)) for each in await book.outgoing(100)]
        assert [text for text in told if "example.com'" in text and "@" in text] == []
    for body in ({"to": "no address"}, {"to": "a@b\r\nRCPT TO:<c@example.com>"}):
        refused = await ask("support", "POST", f"/orders/{paid}/resend", body)
        assert (refused.status, "write one like buyer@example.com" in refused.body["detail"]) == (422, True)


async def test_granting_again_changes_nothing_that_is_there(ask: Ask, paid: str) -> None:
    before = (await ask("ops", "GET", f"/orders/{paid}")).body
    assert (await ask("ops", "POST", f"/orders/{paid}/grant")).body == before


async def test_erasing_forgets_the_buyer_and_keeps_what_he_holds(ask: Ask, paid: str, settings: Settings) -> None:
    before = (await ask("ops", "GET", f"/orders/{paid}")).body
    assert before["buyer"]["email"] == "buyer@example.com"
    erased = await ask("ops", "POST", f"/orders/{paid}/erase")
    assert erased.status == 200
    assert erased.body["buyer"] == {"email": "", "name": "", "customer_id": "C7", "language": ""}
    assert {each["state"] for each in erased.body["mails"]} == {"failed"}
    assert (erased.body["holdings"], erased.body["links"]) == (before["holdings"], before["links"])
    assert (await ask("ops", "POST", f"/orders/{paid}/erase")).body == erased.body
    assert (await ask("support", "POST", f"/orders/{paid}/erase")).status == 403
    assert (await ask("read-only", "GET", "/orders?q=buyer@example.com")).body == {"orders": []}
    async with open_desk(settings) as (book, _):
        kinds = [each.fields["type"] for each in await book.outgoing(100)]
    assert kinds.count("order.erased") == 1


async def test_extending_moves_what_is_held_and_the_links(ask: Ask, paid: str, settings: Settings) -> None:
    until = "2090-01-31T18:00:00Z"
    extended = await ask("support", "POST", f"/orders/{paid}/extend", {"until": until})
    assert extended.body["holdings"] == [{"file": "ebooks/sea.pdf", "until": until}]
    assert extended.body["lines"][0]["taken_back"] == ""
    again = await ask("support", "POST", f"/orders/{paid}/extend", {"until": "2040-01-01T00:00:00Z"})
    assert again.body["holdings"][0]["until"] == until
    past = await ask("support", "POST", f"/orders/{paid}/extend", {"until": "2020-01-01T00:00:00Z"})
    assert (past.status, "Until lies in the past" in past.body["detail"]) == (422, True)
    async with open_desk(settings) as (book, _):
        kinds = [each.fields["type"] for each in await book.outgoing(100)]
    assert (kinds.count("order.granted"), kinds.count("order.renewed")) == (1, 1)


@pytest.mark.parametrize("limit", [1, 2, 100])
async def test_the_timeline_in_pages(limit: int, ask: Ask) -> None:
    for order in ("10001", "other", "10001", "10001"):
        assert (await ask("ops", "POST", "/links", {"files": [{"key": "a"}], "order_id": order})).status == 201
    kinds, page, pages = [], {"next": ""}, 0
    while page["next"] is not None:
        after = f"&after={page['next']}" if page["next"] else ""
        page = (await ask("read-only", "GET", f"/orders/10001/events?limit={limit}{after}")).body
        kinds += [event["type"] for event in page["events"]]
        pages += 1
        assert pages < 20
    assert kinds == ["staff.acted", "link.created"] * 3


async def test_a_page_of_a_busy_shop_ends_in_time_and_the_next_goes_on(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Redis as slow as can be: what one page may take is not enough for all of it."""
    for _ in range(6):
        assert (await ask("ops", "POST", "/links", {"files": [{"key": "a"}], "order_id": "10001"})).status == 201
    scan = RedisEventLog.scan

    async def slowly(self: RedisEventLog, *given: Any, **named: Any) -> AsyncIterator[Entry]:
        async for entry in scan(self, *given, **named):
            await asyncio.sleep(0.1)
            yield entry

    monkeypatch.setattr(RedisEventLog, "scan", slowly)
    monkeypatch.setattr(routes, "READ_WITHIN", 1.0)
    monkeypatch.setattr(orders, "LOOK_FOR", 0.2)
    kinds, after, pages = [], "", 0
    while after is not None:
        page = await ask("read-only", "GET", f"/orders/10001/events{after and f'?after={after}'}")
        assert page.status == 200
        kinds += [event["type"] for event in page.body["events"]]
        after, pages = page.body["next"], pages + 1
    assert kinds == ["staff.acted", "link.created"] * 6
    assert pages > 1


@pytest.mark.parametrize("how", ["refuses", "is silent"])
async def test_what_was_done_is_not_asked_for_again_because_the_mails_cannot_be_read(
    how: str, ask: Ask, paid: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(_self: SqlOrderBook, _order_id: str) -> list[Mail]:
        if how == "is silent":
            await asyncio.Event().wait()
        raise OrdersDown("the order book does not answer")

    with monkeypatch.context() as patched:
        patched.setattr(SqlOrderBook, "mails", fails)
        patched.setattr(orders, "ANSWER_WITHIN", 0.3)
        sent = await ask("support", "POST", f"/orders/{paid}/resend", {"to": "other@example.com"})
        assert (sent.status, sent.body.get("mails", "")) == (200, None)
        assert sent.body["buyer"]["email"] == "other@example.com"
        patched.setattr(routes, "READ_WITHIN", 0.6)
        assert (await ask("support", "GET", f"/orders/{paid}")).status == 503
    async with open_desk(settings) as (book, _):
        assert len(await book.mails(paid)) == 2
