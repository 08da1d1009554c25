"""What an order itself says of why its buyer has no files: most important first, with what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from gateway.policy.model import FileEntry
from gateway.policy.order_diagnosis import MailNow, order_findings
from gateway.policy.orders import ALL, Buyer, Entitlement, IssuedLink, Line, Notice, Order, Refund, SoldFile, Told
from gateway.policy.products import NO_PRODUCTS, Catalogue, Product

NOW = 1_795_228_200
AT = NOW * 1000
FILE = FileEntry("ebooks/sea.pdf")
SEA, MUG = Line("l 1", sku="SEA", title="The Sea"), Line("l2", sku="MUG")
CATALOGUE = Catalogue("1", by_sku={"SEA": Product((FILE,))})
UNPAID = Order("main-1", "main", "1").heard(Notice("1", AT, lines=(SEA, MUG), buyer=Buyer("jan@example.com")))
PAID = UNPAID.heard(Notice("1", AT, paid=True))
GIVEN = replace(
    PAID,
    entitlements=(Entitlement("l 1", "The Sea", (SoldFile(FILE),), granted_at=AT),),
    links=(IssuedLink("t", ("l 1",), (FILE,), NOW, NOW + 100),),
)
TAKEN = MailNow("accepted", 1, "250 ok", AT)


def said(
    order: Order,
    mails: Sequence[MailNow] = (TAKEN,),
    catalogue: Catalogue = CATALOGUE,
    *,
    confirmed: bool = False,
    used: bool = True,
) -> list[tuple[str | None, str, str]]:
    found = order_findings(order, mails, catalogue, needs_confirmation=confirmed, used=used, now=NOW)
    assert all(finding.facts["order.id"] == "main-1" for finding in found)
    assert "jan@example.com" not in str(found)
    return [(finding.side, finding.text, finding.todo) for finding in found]


def test_an_order_that_is_well_says_so() -> None:
    assert said(GIVEN) == [(None, "the mail of 2026-11-21T02:30:00Z was taken by the mail server", "")]


@pytest.mark.parametrize(
    ("order", "confirmed", "text"),
    [
        (UNPAID, False, "the order is not paid (the shop has not said that it is), so nothing was sent"),
        (
            UNPAID.heard(Notice("1", AT, paid=False)),
            False,
            "the order is not paid (the shop said so at 2026-11-21T02:30:00Z), so nothing was sent",
        ),
        (
            PAID,
            True,
            "the order is paid since 2026-11-21T02:30:00Z, and the shop has not confirmed it, so nothing was sent",
        ),
    ],
)
def test_what_is_not_paid_or_confirmed_is_all_there_is_to_say(order: Order, confirmed: bool, text: str) -> None:
    [(side, found, todo)] = said(order, (), confirmed=confirmed)
    assert (side, found) == ("buyer", text)
    assert "by itself" in todo


@pytest.mark.parametrize(
    ("order", "words"),
    [
        (GIVEN.heard(Notice("1", AT + 1, refunds=(Refund("r", (("l 1", 1),)),))), "was refunded"),
        (GIVEN.heard(Notice("1", AT + 1, cancelled=True)), "was cancelled"),
        (GIVEN.heard(Notice("1", AT + 1, charged_back=True)), "was charged back by the buyer's bank"),
        (GIVEN.withdrew(ALL, True, AT + 1), "was taken back here"),
    ],
)
def test_a_line_that_was_taken_back_says_by_whom_and_how_to_undo_it(order: Order, words: str) -> None:
    side, text, todo = said(order)[0]
    assert (side, text) == ("rule", f"The Sea (SEA) {words}, so its files are not given")
    assert "`gateway order restore main-1 --line 'l 1'`" in todo


def test_what_was_taken_back_before_it_was_paid_is_not_called_missing() -> None:
    texts = [text for _, text, _ in said(PAID.withdrew(ALL, True, AT + 1), ())]
    assert texts == [
        "The Sea (SEA) was taken back here, so its files are not given",
        "MUG was taken back here, so its files are not given",
    ]


def test_a_product_that_is_missing_or_was() -> None:
    [(side, text, todo)] = said(PAID, (), NO_PRODUCTS)
    assert side == "rule"
    assert text == "the order is paid, and none of its lines is in the products file (The Sea (SEA), MUG)"
    assert "with these very names" in todo
    [(_, text, todo)] = said(PAID, ())
    assert text == "the order is paid, and what it has of these was not in the products file then: The Sea (SEA)"
    assert todo == "they are there now: `gateway order grant main-1` then gives and mails them"
    [(_, text, _)] = said(replace(PAID, lines=Told(())), ())
    assert text.endswith("(no line)")


def test_one_line_of_several_that_was_missing_is_told_and_a_mug_is_not() -> None:
    both = Catalogue("2", by_sku={**CATALOGUE.by_sku, "MUG": Product((FILE,))})
    assert "was not in the products file then: MUG" in said(GIVEN, catalogue=both)[0][1]
    assert len(said(GIVEN)) == 1


def test_a_subscription_that_has_lapsed() -> None:
    ended = GIVEN.heard(Notice("1", AT, ends_at=NOW))
    assert said(ended)[0][:2] == ("rule", "The Sea was the buyer's until 2026-11-21T02:30:00Z")
    assert len(said(GIVEN.heard(Notice("1", AT, ends_at=NOW + 1)))) == 1


@pytest.mark.parametrize(
    ("mails", "text", "todo"),
    [
        ((), "links were made and not mailed: the settings had no mail server", "`gateway order resend main-1`"),
        ((MailNow("bounced", 1, "550 no such user", AT),), "came back: 550 no such user", "--to ADDRESS"),
        ((MailNow("failed", 9, "451 later", AT),), "was given up after 9 tries: 451 later", "--to ADDRESS"),
        ((MailNow("queued", 1, "451 later", AT),), "is still to be sent, after 1 try: 451 later", "tried again"),
        ((MailNow("queued", 0, "", AT),), "waits to be sent", "gateway worker"),
        ((MailNow("bounced", 1, "550", AT), TAKEN), "was taken by the mail server", ""),
    ],
)
def test_the_last_mail_counts(mails: Sequence[MailNow], text: str, todo: str) -> None:
    [(side, found, advice)] = said(GIVEN, mails)
    assert text in found
    assert todo in advice
    assert side == ("mail" if todo else None)


def test_without_an_address_nothing_was_mailed() -> None:
    [(side, text, todo)] = said(replace(GIVEN, buyer=Order("x", "x", "x").buyer), ())
    assert (side, text) == ("mail", "the shop told no e-mail address, so nothing was mailed")
    assert "--to ADDRESS" in todo


def test_links_that_were_mailed_and_never_opened_point_at_the_spam() -> None:
    [(side, text, todo)] = said(GIVEN, used=False)
    assert side == "mail"
    assert "never opened" in text
    assert "spam" in todo


def test_what_its_plan_asks_of_guests_and_the_order_cannot_give_is_said() -> None:
    def of_guests(order: Order, *guests: str) -> list[str | None]:
        found = order_findings(order, [TAKEN], CATALOGUE, needs_confirmation=False, used=True, now=NOW, guests=guests)
        return [finding.facts.get("reason") for finding in found if finding.side == "rule"]

    silent = replace(GIVEN, buyer=Told(Buyer(), AT))
    assert of_guests(silent) == []
    assert of_guests(silent, "bind_ip", "new_device") == ["token.ip", "device.code"]
    assert of_guests(replace(GIVEN, address=Told("203.0.113.9", AT)), "bind_ip", "new_device") == []
