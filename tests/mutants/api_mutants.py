"""Mistakes in the management API: who may do what, what is on record, and what waits for whom."""

from __future__ import annotations

from mutant import mutant

API = (
    mutant(
        "support may do what ops may",
        "web/api/users.py",
        ('"support": 1', '"support": 2'),
        test="web/api/test_roles.py::test_who_may_do_what",
    ),
    mutant(
        "any scheme does for a token",
        "web/api/users.py",
        (' and scheme.lower() == "bearer"', ""),
        test="web/api/test_roles.py::test_of_a_header_nothing_but_the_whole_token_counts",
    ),
    mutant(
        "what was refused is not on record",
        "web/api/routes.py",
        ("if call.changes and problem.status not in _UNSAID:", "if call.changes and problem.status > 500:"),
        test="web/api/test_roles.py::test_who_may_do_what",
    ),
    mutant(
        "a link is made and not on record",
        "services/desk.py",
        (
            "        await record()\n        await linking.register(claims, now_ms(), links=self._links,",
            "        await linking.register(claims, now_ms(), links=self._links,",
        ),
        test="web/api/test_outages.py::test_what_cannot_be_put_on_record_is_not_done",
    ),
    mutant(
        "who looks for a buyer by address is not on record",
        "web/api/orders.py",
        ("        await asked.record()\n", "        pass\n"),
        test="web/api/test_orders_api.py::test_who_looks_for_a_buyer_by_address_is_on_record_and_the_address_is_not",
    ),
    mutant(
        "a key means the same for everybody's links",
        "web/api/links.py",
        ('if known["wanted"] != wanted:', "if not known:"),
        test="web/api/test_links_api.py::test_the_same_key_of_the_same_user_gives_the_same_link",
    ),
    mutant(
        "a key that came before its link stays without one",
        "web/api/links.py",
        (" and await asked.office.links.find(first.token_id) is not None", ""),
        test="web/api/test_links_api.py::test_who_died_between_the_key_and_the_link_is_helped",
    ),
    mutant(
        "a page of the timeline begins with the end of the one before",
        "web/api/orders.py",
        ("if _position(entry_id) <= after:", "if _position(entry_id) < after:"),
        test="web/api/test_orders_api.py::test_the_timeline_in_pages",
    ),
    mutant(
        "who asks waits as long as it takes to open",
        "web/api/office.py",
        ("await asyncio.wait_for(asyncio.shield(office), PATIENCE)", "await asyncio.shield(office)"),
        test="web/api/test_outages.py::test_a_database_that_never_answers",
    ),
    mutant(
        "what is open is closed under its visitors",
        "web/api/office.py",
        ("while seen != self._used or self._visitors:", "while seen != self._used:"),
        test="web/api/test_outages.py::test_what_is_open_is_shared_and_closed_when_nobody_is_there",
    ),
    mutant(
        "an extension grants again",
        "policy/granting.py",
        ("if each.line_id not in had)", "if each not in was.entitlements)"),
        test="policy/test_prolonged.py::test_it_is_told_as_one_new_end_and_no_new_grant",
    ),
    mutant(
        "an extension shortens",
        "policy/granting.py",
        ("replace(each, ends_at=max(each.ends_at, until))", "replace(each, ends_at=until)"),
        test="policy/test_prolonged.py::test_nothing_ends_sooner_and_what_does_not_end_stays_so",
    ),
)
