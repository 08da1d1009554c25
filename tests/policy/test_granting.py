"""What follows from a paid order: only what is missing, in as few links as will do, and told as it happened."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.granting import LIFE, claims_of, files_of, granted, happened, linked, ungranted
from gateway.policy.keys import SigningKey, load_key
from gateway.policy.model import FileEntry, Plan
from gateway.policy.orders import ALL, Buyer, Line, Notice, Order, Refund, SoldFile
from gateway.policy.products import Catalogue, Product
from gateway.policy.tokens import TOKEN_MAX, encode

BOOK, SONG = FileEntry("ebooks/sea.pdf"), FileEntry("music/song.wav", name="Song.wav")
NEW = Order("main-1", "main", "1")
LINES = (Line("l1", sku="SEA", title="The Sea"), Line("l2", sku="WAVE"), Line("l3", sku="MUG"))
CATALOGUE = Catalogue(
    "1",
    by_sku={
        "SEA": Product((BOOK,), plan="standard"),
        "WAVE": Product((SONG, BOOK), title="Waves", plan="standard", lasts=100),
        "LOST": Product((SONG,), plan="gone"),
        "VIP": Product((SONG,), plan="standard", tier="gold", account=True),
    },
)
PLANS = {"standard": Plan("standard", valid_for=3600)}
NOW = 1_795_228_200


def order(*lines: Line) -> Order:
    return NEW.heard(Notice("1", 1, paid=True, lines=lines or LINES))


def fulfilled(wanted: Order, *, anew: bool = False, now: int = NOW, default: str | None = None) -> Order:
    given_now = granted(wanted, ungranted(wanted, CATALOGUE, PLANS), {BOOK: SoldFile(BOOK, "e", 5)}, now * 1000)
    numbers = count(len(wanted.links) + 1)
    return linked(given_now, PLANS, default, issuer="s", now=now, new_token_id=lambda: f"t{next(numbers)}", anew=anew)


def test_what_stands_for_no_product_waits_and_so_does_a_plan_that_is_gone() -> None:
    wanted = ungranted(order(*LINES, Line("l4", sku="LOST")), CATALOGUE, PLANS)
    assert [line.line_id for line, _ in wanted] == ["l1", "l2"]
    assert files_of(wanted) == [BOOK, SONG]


def test_an_entitlement_is_what_the_products_file_says_now() -> None:
    sea, wave = fulfilled(order()).entitlements
    assert (sea.line_id, sea.title, sea.files, sea.ends_at) == ("l1", "The Sea", (SoldFile(BOOK, "e", 5),), None)
    assert (wave.title, wave.files, wave.ends_at) == ("Waves", (SoldFile(SONG), SoldFile(BOOK, "e", 5)), NOW + 100)
    assert {sea.granted_at, wave.granted_at} == {NOW * 1000}


@given(st.permutations([*LINES, Line("l4", sku="VIP")]), st.integers(1, 3))
def test_done_again_it_adds_nothing(lines: list[Line], times: int) -> None:
    once = again = fulfilled(order(*lines))
    for _ in range(times):
        again = fulfilled(again, now=NOW + 50)
    assert again == once
    assert list(happened(once, again)) == []


def test_one_link_for_each_plan_and_tier_with_each_file_once() -> None:
    made = fulfilled(order(*LINES, Line("l4", sku="VIP")))
    assert [(link.token_id, link.line_ids, link.files, link.tier, link.account) for link in made.links] == [
        ("t1", ("l1", "l2"), (BOOK, SONG), None, False),
        ("t2", ("l4",), (SONG,), "gold", True),
    ]
    assert {link.expires_at for link in made.links} == {NOW + 3600}


def test_a_link_without_a_plan_lasts_as_the_default_plan_or_for_long() -> None:
    catalogue = Catalogue("1", by_sku={"SEA": Product((BOOK,))})
    wanted = order(LINES[0])
    given_now = granted(wanted, ungranted(wanted, catalogue, PLANS), {}, 0)
    for default, lasts in ((None, LIFE), ("standard", 3600), ("unknown", LIFE)):
        [link] = linked(given_now, PLANS, default, issuer="s", now=NOW, new_token_id=lambda: "t").links
        assert link.expires_at - NOW == lasts
        assert link.plan is None, "the plan is the default one, whichever that is when the link is used"


def test_a_line_that_comes_later_has_a_link_of_its_own() -> None:
    first = fulfilled(order(LINES[0]))
    both = fulfilled(first.heard(Notice("1", 2, lines=LINES)))
    assert both.links[0] == first.links[0]
    assert [link.line_ids for link in both.links] == [("l1",), ("l2",)]


def test_what_was_taken_back_is_in_no_link() -> None:
    refund = Notice("1", 2, refunds=(Refund("r", (("l1", 1),)),))
    assert [link.line_ids for link in fulfilled(order().heard(refund)).links] == [("l2",)]
    assert fulfilled(order().heard(Notice("1", 2, refunded=True))).links == ()
    anew = fulfilled(fulfilled(order()).heard(refund), anew=True)
    assert [link.line_ids for link in anew.links] == [("l1", "l2"), ("l2",)]


def test_every_token_fits_however_many_files_there_are() -> None:
    files = tuple(
        FileEntry(f"albums/ł{'x' * 50}/{number:04d}.flac", name=f"{number} – Ł.flac") for number in range(100)
    )
    catalogue = Catalogue("1", by_sku={"SEA": Product(files)})
    wanted = order(LINES[0])
    given_now = granted(wanted, ungranted(wanted, catalogue, {}), {}, 0)
    numbers = count()
    made = linked(given_now, {}, None, issuer="s", now=NOW, new_token_id=lambda: f"{next(numbers):024x}")
    assert len(made.links) > 1
    assert [file for link in made.links for file in link.files] == list(files)
    key = load_key(kid="k" * 20, alg="HS256", use="sign", secret="0123456789" * 4)
    assert isinstance(key, SigningKey)
    assert all(len(encode(claims_of(made, link, "s"), key)) <= TOKEN_MAX for link in made.links)
    assert len({link.token_id for link in made.links}) == len(made.links)


@pytest.mark.parametrize(("customer", "claimed"), [("c-1", "c-1"), ("", None), ("jan@example.com", None)])
def test_nothing_of_the_buyer_is_in_a_token_but_an_opaque_id(customer: str, claimed: str | None) -> None:
    sold = fulfilled(order().heard(Notice("1", 3, buyer=Buyer("jan@example.com", "Jan", customer))))
    claims = claims_of(sold, sold.links[0], "s")
    assert claims.customer_id == claimed
    assert "jan" not in repr(claims).lower()
    assert (claims.order_id, claims.token_id, claims.issued_at) == ("main-1", "t1", NOW)


def kinds(before: Order | None, after: Order) -> list[str]:
    return [f"{kind}:{fields['line.id']}" if "line.id" in fields else kind for kind, fields in happened(before, after)]


def test_what_happened_is_told_in_its_sequence() -> None:
    paid = fulfilled(order(*LINES[:2]))
    assert kinds(None, paid) == ["order.received", "order.paid", "order.granted:l1", "order.granted:l2"]
    assert kinds(paid, paid.heard(Notice("1", 2, confirmed=True))) == ["order.confirmed"]
    assert kinds(paid, paid.heard(Notice("1", 2, paid=False))) == ["order.unpaid"]
    refunded = paid.heard(Notice("1", 2, refunds=(Refund("r", (("l1", 1),)),)))
    assert kinds(paid, refunded) == ["order.refunded:l1"]
    assert kinds(refunded, refunded.withdrew("l1", False, 9)) == ["order.restored:l1"]
    assert kinds(paid, paid.withdrew(ALL, True, 9)) == ["order.withdrawn:l1", "order.withdrawn:l2"]
    assert kinds(paid, paid.heard(Notice("1", 2, charged_back=True)))[0] == "order.charged_back:l1"
    assert kinds(paid, paid.heard(Notice("1", 2, ends_at=NOW))) == ["order.renewed"]
    assert kinds(paid, replace(paid)) == []


def test_a_line_that_was_taken_back_before_it_was_paid_was_never_given() -> None:
    unpaid = NEW.heard(Notice("1", 1, lines=LINES[:1], refunded=True))
    told = kinds(unpaid, fulfilled(unpaid.heard(Notice("1", 2, paid=True))))
    assert "order.granted:l1" not in told
