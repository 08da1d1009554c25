"""The addresses that mails and pages carry: signed anew, good now, and of nothing that is not the buyer's any more."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.errors import GatewayError
from gateway.mail.letter import FileAddress
from gateway.policy.granting import claims_of
from gateway.policy.keys import KeySet, load_key
from gateway.policy.model import Claims, FileEntry, Limits, Plan
from gateway.policy.orders import ALL, Entitlement, IssuedLink, Line, Notice, Order, Refund, SoldFile
from gateway.policy.ruleset import RuleSet
from gateway.policy.tokens import verify
from gateway.services.addressing import Addressing

NOW = 1_795_228_200
BASE = "https://dl.example.com/shop"
BOOK, SONG = FileEntry("ebooks/sea.pdf"), FileEntry("music/Pieśń.wav", name="Pieśń 1.wav")
SEA = Entitlement("l1", "The Sea", (SoldFile(BOOK, "e", 5),), granted_at=1, plan="standard")
WAVE = Entitlement("l2", "Waves", (SoldFile(SONG),), granted_at=1, plan="standard")
LINK = IssuedLink("t1", ("l1", "l2"), (BOOK, SONG), NOW - 100, NOW + 100, plan="standard")
ORDER = replace(
    Order("main-1", "main", "1").heard(Notice("1", 1, paid=True, lines=(Line("l1"), Line("l2")))),
    entitlements=(SEA, WAVE),
    links=(LINK,),
)
SIGNING = load_key(kid="a", alg="HS256", use="sign", secret="0123456789" * 4)
RULES = RuleSet(plans={"standard": Plan("standard", Limits(downloads=5), new_device=True)})


def addressing(keys: KeySet | None = None) -> Addressing:
    return Addressing(
        keys or KeySet([SIGNING]),
        "shop.example.com",
        BASE,
        lambda: RULES,
        lambda order: order.holding(needs_confirmation=False),
    )


def token_of(address: str) -> Claims:
    claims = verify(address.partition("/l/")[2], KeySet([SIGNING]), "shop.example.com", NOW)
    assert isinstance(claims, Claims), claims
    return claims


def test_a_link_has_a_page_and_each_of_its_files() -> None:
    [link] = addressing().of(ORDER, NOW)
    assert token_of(link.address) == claims_of(ORDER, LINK, "shop.example.com")
    token = link.address.rpartition("/")[2]
    assert link.address == f"{BASE}/l/{token}"
    assert link.files == (
        FileAddress("sea.pdf", f"{BASE}/d/{token}/1/sea.pdf", 5),
        FileAddress("Pieśń 1.wav", f"{BASE}/d/{token}/2/Pie%C5%9B%C5%84%201.wav", None),
    )
    assert (link.title, link.expires_at, link.account) == ("The Sea, Waves", NOW + 100, False)
    assert link.limits.get("downloads") == 5
    assert token not in repr(link)


def test_what_was_taken_back_has_no_address_and_the_others_keep_their_numbers() -> None:
    partly = ORDER.heard(Notice("1", 2, refunds=(Refund("r", (("l1", 1),)),)))
    [link] = addressing().of(partly, NOW)
    [file] = link.files
    assert file.address.rsplit("/", 2)[1] == "2"
    assert addressing().of(ORDER.withdrew(ALL, True, 5), NOW) == []
    assert addressing().of(ORDER.heard(Notice("1", 2, paid=False)), NOW) == []


@pytest.mark.parametrize(("ends_at", "count"), [(None, 2), (NOW, 1), (NOW + 1, 2)])
def test_what_has_lapsed_has_no_address(ends_at: int | None, count: int) -> None:
    [link] = addressing().of(replace(ORDER, entitlements=(replace(SEA, ends_at=ends_at), WAVE)), NOW)
    assert len(link.files) == count


def test_a_later_link_stands_in_for_an_earlier_one_and_an_expired_one_for_none() -> None:
    later = replace(LINK, token_id="t2", expires_at=NOW + 500)
    [link] = addressing().of(replace(ORDER, links=(LINK, later)), NOW)
    assert token_of(link.address).token_id == "t2"
    assert addressing().of(ORDER, LINK.expires_at) == []
    [link] = addressing().of(replace(ORDER, links=(LINK, later)), LINK.expires_at)
    assert link.expires_at == NOW + 500


def test_a_plan_that_is_gone_leaves_the_links_own_limits() -> None:
    gone = replace(LINK, plan="gone", limits=Limits(downloads=3))
    [link] = addressing().of(replace(ORDER, links=(gone,)), NOW)
    assert link.limits.get("downloads") == 3


def test_without_a_key_that_signs_it_says_what_to_do() -> None:
    verifying = KeySet([load_key(kid="a", alg="HS256", use="verify", secret="0123456789" * 4)])
    with pytest.raises(GatewayError, match="use: sign"):
        addressing(verifying).of(ORDER, NOW)


def test_a_registered_customers_link_is_named_by_its_order_where_accounts_are_asked_for() -> None:
    asked = replace(addressing(), short=True)
    [open_to_all] = asked.of(ORDER, NOW)
    assert "/l/" in open_to_all.address
    mine = replace(LINK, account=True)
    [link] = asked.of(replace(ORDER, order_id="main-#1", links=(mine,)), NOW)
    assert link.address == f"{BASE}/o/main-%231"
    assert {file.address for file in link.files} == {link.address}
    # Several links of an order each lead to their own.
    one, two = replace(mine, files=(BOOK,)), replace(mine, token_id="t2", files=(SONG,))
    assert [each.address for each in asked.of(replace(ORDER, links=(one, two)), NOW)] == [
        f"{BASE}/o/t1",
        f"{BASE}/o/t2",
    ]
    [plain] = addressing().of(replace(ORDER, links=(mine,)), NOW)
    assert token_of(plain.address).account


def test_what_the_plan_asks_of_guests_is_told() -> None:
    [link] = addressing().of(ORDER, NOW)
    assert link.guests == ("new_device",)
