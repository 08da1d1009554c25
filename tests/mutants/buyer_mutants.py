"""Mistakes where buyers help themselves: what is given twice, to others, too often, or told by how it is answered."""

from __future__ import annotations

from mutant import mutant

BUYERS = (
    mutant(
        "a refund while a renewal is on its way is not seen",
        "services/renewing.py",
        ("            again = self._judge(current, own, shown)\n", "            again = offered\n"),
        test="services/test_renewing.py::test_a_refund_at_the_same_moment_counts",
    ),
    mutant(
        "two clicks renew a link twice",
        "services/renewing.py",
        ("stand_in(current, own) != own", "False"),
        test="services/test_renewing.py::test_a_used_up_link_begins_anew_as_often_as_the_plan_says",
    ),
    mutant(
        "an extension goes beyond what was bought",
        "policy/renewing.py",
        ("        until = min(until, max(latest))\n", "        pass\n"),
        test="policy/test_renewing.py::test_nothing_that_is_not_the_buyers",
    ),
    mutant(
        "a renewal cuts a download that runs",
        "policy/renewing.py",
        ('return Refused("running") if use.running else Offer', "return Offer"),
        test="policy/test_renewing.py::test_what_is_offered",
    ),
    mutant(
        "the shop's number of a customer finds the customer's orders",
        "services/self_service.py",
        (" if _is_meant(order, text)][:FOUND_MAX]", "][:FOUND_MAX]"),
        test="door/test_self_service.py::test_the_shops_own_id_of_its_customer_finds_nothing",
    ),
    mutant(
        "a mail that was not sent is counted",
        "services/self_service.py",
        ("            if not mailed:\n                await", "            if False:\n                await"),
        test="door/test_self_service.py::test_what_sends_nothing_takes_nothing",
    ),
    mutant(
        "each worker counts for itself how often was asked",
        "backends/redis_allowance.py",
        ('keys = [f"gw:', 'keys = [f"{id(self)}gw:'),
        test="door/test_self_service.py::test_how_often_is_counted_over_all_workers",
    ),
    mutant(
        "an office with a guesser in it is locked out",
        "services/token_reader.py",
        (
            "        if not isinstance(claims, Deny) or claims.reason is Reason.TOKEN_NOT_YET:\n",
            "        if self._throttle.is_over(request.client_network) is None and not isinstance(claims, Deny):\n",
        ),
        test="services/test_token_reader.py::test_an_office_with_a_guesser_in_it",
    ),
)
