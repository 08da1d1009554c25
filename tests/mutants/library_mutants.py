"""Mistakes in customers' libraries: others' things shown or changed, and what was to be forgotten remembered."""

from __future__ import annotations

from mutant import mutant

_DOOR = "door/test_purchases.py"
_OTHERS = f"{_DOOR}::test_another_customers_things_are_neither_shown_nor_changed"

LIBRARY = (
    mutant(
        "any customer's device may be removed",
        "services/purchases.py",
        ("if order is None or not is_of(account, order):", "if order is None:"),
        test=_OTHERS,
    ),
    mutant(
        "a customer of one shop is one of all shops",
        "policy/purchases.py",
        (" and (not account.shops or order.shop in account.shops)", ""),
        test="policy/test_purchases.py::test_whose_an_order_is",
    ),
    mutant(
        "an id that is written alike is the customer's",
        "backends/order_book.py",
        ("if each.buyer.value.customer_id == customer_id]", "if each]"),
        test="conformance/test_order_book.py::test_a_customers_orders_are_found_by_his_id_alone[sqlite]",
    ),
    mutant(
        "the library shows all shops' orders",
        "services/purchases.py",
        (
            "account.customer_id, shops=account.shops, before=before, most=PAGE",
            "account.customer_id, before=before, most=PAGE",
        ),
        test=_OTHERS,
    ),
    mutant(
        "another site's form is taken",
        "front/purchases.py",
        ('if not self._sessions.is_form_of(session, form.get(FORM_KEY, "")):', "if not form:"),
        test=f"{_DOOR}::test_a_form_of_another_site_does_nothing",
    ),
    mutant(
        "a shop's next word brings back what was erased",
        "policy/orders.py",
        ("buyer = notice.buyer if self.erased_at == NEVER else None", "buyer = notice.buyer"),
        test="policy/test_purchases.py::test_what_a_shop_repeats_is_not_taken_in_again",
    ),
    mutant(
        "where mails went is remembered",
        "services/fulfilment.py",
        ("draft.forgets_recipients = before is not None and before.erased_at != order.erased_at", "pass"),
        test=f"{_DOOR}::test_erasing_forgets_the_buyer_and_keeps_what_was_bought",
    ),
    mutant(
        "a mail that waits is sent to who was forgotten",
        "backends/order_book.py",
        ('mails.c.state == "queued")\n    await', 'mails.c.state == "none")\n    await'),
        test="conformance/test_order_book.py::test_where_mails_went_is_forgotten_in_one_step_with_the_order[sqlite]",
    ),
    mutant(
        "what lapsed is shown as the buyer's",
        "policy/purchases.py",
        ("if until is None or until > now)", "if until != now - now - 1)"),
        test=f"{_DOOR}::test_what_is_gone_is_said_in_plain_words",
    ),
)
