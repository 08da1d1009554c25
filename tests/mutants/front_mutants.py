"""Mistakes between doors: a limit that nobody keeps, a waiver that reaches too far, bytes that are given uncounted."""

from __future__ import annotations

from mutant import mutant

FRONT = (
    mutant(
        "a door keeps what it cannot",
        "policy/decide.py",
        ("    if possible.unkept:\n", "    if possible.unkept and not request.front:\n"),
        test="policy/test_decide.py::test_a_limit_that_the_door_cannot_keep_is_refused_whoever_sets_it",
    ),
    mutant(
        "a waiver loosens what the door keeps",
        "policy/fronts.py",
        (
            "if name not in FRONTS[front].limits]\n    if not beyond",
            "if name not in FRONTS[front].limits or name in waived.get(front, ())]\n    if not beyond",
        ),
        test="policy/test_fronts.py::test_nothing_that_a_door_keeps_is_loosened",
    ),
    mutant(
        "what one door waives is waived at every door",
        "policy/fronts.py",
        (
            "for name in beyond if name in waived.get(front, frozenset()))",
            "for name in beyond if any(name in names for names in waived.values()))",
        ),
        test="policy/test_fronts.py::test_what_is_waived_is_waived_at_its_door_alone",
    ),
    mutant(
        "a place that is waived is charged all the same",
        "policy/decide.py",
        ("        charges(possible.limits, device) + code,\n", "        charges(limits, device) + code,\n"),
        test="policy/test_decide.py::test_what_is_waived_is_told_and_neither_charged_nor_paced",
    ),
    mutant(
        "what was waived is not told",
        "policy/record.py",
        ('"limits.waived": ",".join(decision.waived)', '"limits.waived": ""'),
        test="policy/test_record.py::test_the_door_and_what_it_did_not_keep",
    ),
    mutant(
        "the settings waive what the door keeps",
        "settings_sections.py",
        ("sorted(set(names) - set(front.unkept))", "sorted(set(names) - set(front.unkept) - front.limits)"),
        test="test_settings.py::test_a_mistake_is_one_line_that_says_what_would_be_right",
        shows="DID NOT RAISE",
    ),
    mutant(
        "every peer is a trusted proxy",
        "http/forwarded.py",
        ("    return address is not None and _is_trusted(", "    return address is not None or _is_trusted("),
        test="http/test_forwarded.py::test_which_peers_are_believed",
    ),
    mutant(
        "HEAD and GET are confused where the body is handed over",
        "services/responding.py",
        (" if handed and plan.sends_body else plan", " if handed and plan.length else plan"),
        test="services/test_responding.py::test_plans_for_a_body_that_another_program_sends",
    ),
    mutant(
        "several ranges are handed to a proxy as one body of parts",
        "services/gatekeeper.py",
        ('boundary=secrets.token_hex(16) if front.multipart else ""', "boundary=secrets.token_hex(16)"),
        test="door/test_auth.py::test_of_several_ranges_the_whole_is_handed_over",
    ),
    mutant(
        "a signed address stands in a repr",
        "store_ports.py",
        ("    url: str = field(repr=False)\n", "    url: str\n"),
        test="conformance/test_object_store.py::test_another_program_finds_the_object",
    ),
    mutant(
        "a replay takes every door for our own",
        "policy/recorded.py",
        ('    front = fields.get("front", HTTP.name)\n', "    front = HTTP.name\n"),
        test="policy/test_replay.py::test_a_request_is_decided_by_what_its_door_can_keep",
    ),
    mutant(
        "a replay resumes for a day what nginx sends",
        "policy/replay_requests.py",
        ("if not elsewhere and length and FRONTS[in_force.front].hands_over and", "if length < 0 and"),
        test="policy/test_replay.py::test_where_others_send_the_bytes_a_resume_is_free_for_the_repeat_window_alone",
    ),
    mutant(
        "a refusal of the door is taken for the ledger's word",
        "policy/replay_token.py",
        (" and reason != Reason.LIMIT_UNKEPT.text)", ")"),
        test="policy/test_replay.py::test_a_request_is_decided_by_what_its_door_can_keep",
    ),
    mutant(
        "headers of an untrusted peer are believed at /auth",
        "front/auth.py",
        ("return is_trusted(head.peer, self._settings.trusted_proxies)", "return bool(head.peer)"),
        test="door/test_auth_trust.py::test_who_is_no_trusted_proxy_learns_and_charges_nothing",
    ),
    mutant(
        "/auth decides on the proxy's own GET",
        "front/auth.py",
        ("replace(head, method=methods[0], ", "replace(head, "),
        test="door/test_auth_trust.py::test_the_method_is_the_buyers_and_not_the_asking_proxys",
    ),
    mutant(
        "of two told addresses the first one counts",
        "front/auth.py",
        ("len(set(targets)) > 1 or ", ""),
        test="door/test_auth_trust.py::test_what_is_told_in_two_voices_is_not_answered",
    ),
)
