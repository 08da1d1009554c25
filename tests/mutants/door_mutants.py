"""Mistakes at the door: connections without deadlines, decoded addresses, secrets in words, and doors left open."""

from __future__ import annotations

from mutant import mutant

DOOR = (
    mutant(
        "half a head is waited for",
        "web/connections.py",
        (
            "        super().connection_made(transport)\n        self._expect_head()\n",
            "        super().connection_made(transport)\n",
        ),
        test="web/test_deadlines.py::test_first_head_has_its_deadline",
        shows="TimeoutError",
    ),
    mutant(
        "idle connections stay for an hour",
        "web/connections.py",
        ("keepalive_timeout=limits.keepalive", "keepalive_timeout=3630"),
        test="web/test_deadlines.py::test_idle_connection_is_closed_after_keepalive",
        shows="TimeoutError",
    ),
    mutant(
        "a head may be endless",
        "web/connections.py",
        (
            "            if self._head_bytes > self._guard.limits.head_bytes:\n",
            "            if self._head_bytes < 0:\n",
        ),
        test="web/test_deadlines.py::test_head_that_never_ends_is_cut_by_its_size",
        shows="TimeoutError",
    ),
    mutant(
        "any number of requests waits on one connection",
        "web/connections.py",
        (
            "            if len(self._messages) > self._guard.limits.pipelined:\n",
            "            if self._messages is None:\n",
        ),
        test="web/test_deadlines.py::test_pipelining_is_bounded",
        shows="TimeoutError",
    ),
    mutant(
        "a client that left leaves its origin waiting",
        "web/connections.py",
        ("handler_cancellation=True", "handler_cancellation=False"),
        test="web/test_deadlines.py::test_a_client_that_leaves_ends_what_waits_for_an_origin",
    ),
    mutant(
        "a fault in mid-body puts a second answer into the first",
        "web/connections.py",
        ("        if request.writer.output_size > 0:\n", "        if request.writer.output_size < 0:\n"),
        test="web/test_deadlines.py::test_a_fault_in_mid_body_ends_the_connection_and_adds_no_second_answer",
    ),
    mutant(
        "a peer that died with data in flight is kept",
        "web/connections.py",
        ("> limits.dead_peer:\n", "> 10**6:\n"),
        test="web/test_deadlines.py::test_peer_that_died_with_data_in_flight_is_cut",
        shows="TimeoutError",
    ),
    mutant(
        "a paused reader is taken for dead",
        "web/connections.py",
        ("if retransmits or probes >= _PROBES_UNANSWERED else 0.0", "if last_ack else 0.0"),
        test="web/test_deadlines.py::test_paused_reader_stays_and_may_go_on",
    ),
    mutant(
        "old TLS is spoken",
        "web/listener.py",
        (
            "context.minimum_version = ssl.TLSVersion.TLSv1_2",
            'context.minimum_version = ssl.TLSVersion.TLSv1\n    context.set_ciphers("DEFAULT@SECLEVEL=0")',
        ),
        test="web/test_deadlines.py::test_old_tls_is_refused",
    ),
    mutant(
        "what cannot be parsed is logged",
        "web/connections.py",
        ('or too long: %s", type(exc).__name__)', 'or too long: %s", exc)'),
        test="web/test_deadlines.py::test_nothing_of_what_cannot_be_parsed_is_logged",
    ),
    mutant(
        "a fault is logged in its own words",
        "services/faults.py",
        ('    return f"{type(error).__name__}{cause}"', '    return f"{error!r}{cause}"'),
        test="web/test_management.py::test_fault_is_described_without_its_text",
    ),
    mutant(
        "a path is decoded before it is taken apart",
        "web/door.py",
        ("request.method, request.rel_url.raw_path,", "request.method, request.rel_url.path,"),
        test="door/test_answers.py::test_refusals",
    ),
    mutant(
        "who drains takes on more",
        "web/door.py",
        ("Reason.DRAINING if self._status.draining else None", "None"),
        test="door/test_answers.py::test_draining_refuses_new_requests",
    ),
    mutant(
        "who is full takes on more",
        "web/door.py",
        ("        if not self._memory.has_room():\n", "        if self._memory is None:\n"),
        test="door/test_answers.py::test_a_worker_that_is_full_takes_no_new_download_and_charges_nothing",
        shows="KeyError: 'Retry-After'",
    ),
    mutant(
        "a link page counts",
        "front/opening.py",
        (
            "    opened = await gatekeeper.open_link(asked)\n",
            "    await gatekeeper.admit(asked)\n    opened = await gatekeeper.open_link(asked)\n",
        ),
        test="door/test_answers.py::test_the_link_page_counts_nothing",
    ),
    mutant(
        "an object that changed since its stat is an error",
        "web/door.py",
        ("            if isinstance(error, OriginChanged):\n", "            if error is None:\n"),
        test="door/test_counting.py::test_the_object_is_replaced_between_stat_and_open",
    ),
    mutant(
        "what is wrong with a token is told as the shop's words",
        "front/answers.py",
        (
            "deny.message if deny and deny.reason in (Reason.RULE_DENIED, Reason.FROZEN) else None",
            "deny.message if deny else None",
        ),
        test="door/test_answers.py::test_a_page_shows_no_inner_words_as_the_shops",
    ),
    mutant(
        "scripts may read the device's cookie",
        "front/answers.py",
        ("; HttpOnly; SameSite=Lax{secure}", "; SameSite=Lax{secure}"),
        test="door/test_nothing_lost.py::test_the_device_cookie_is_for_us_alone",
    ),
    mutant(
        "headers are read of anybody",
        "front/intake.py",
        (
            "list(head.headers.items()) if trusted else [], trusted)",
            'list(head.headers.items()), trusted or [ip_network("0.0.0.0/0")])',
        ),
        ("import re\n", "import re\nfrom ipaddress import ip_network\n"),
        test="front/test_intake.py::test_without_trusted_proxies_no_header_names_the_client",
    ),
    mutant(
        "the first of two Range headers counts",
        "front/head.py",
        ('return ", ".join(values) if values else None', "return values[0] if values else None"),
        test="front/test_intake.py::test_several_lines_of_a_header_are_one",
    ),
    mutant(
        "metrics are open to all",
        "web/management.py",
        ("    if user is None:\n", "    if user is None and users:\n"),
        test="web/test_management.py::test_with_no_token_configured_403_for_all",
    ),
    mutant(
        "the management token is compared letter by letter",
        "web/api/users.py",
        ("hmac.compare_digest(sent, user.token.encode())", "sent == user.token.encode()"),
        test="web/test_management.py::test_how_much_of_the_token_was_right_is_not_to_be_timed",
    ),
    mutant(
        "the API asks for no token",
        "web/management.py",
        (' and not path.startswith("/api/")', ""),
        test="web/test_management.py::test_without_the_token_401",
    ),
    mutant(
        "a name of a file is markup",
        "front/pages.py",
        ("            autoescape=True,\n", "            autoescape=False,\n"),
        test="front/test_pages.py::test_a_hostile_name_is_only_text",
    ),
    mutant(
        "a page may be framed",
        "front/pages.py",
        ("; frame-ancestors 'none'", ""),
        test="front/test_pages.py::test_a_page_loads_nothing_sends_nothing_and_is_framed_by_nobody",
    ),
    mutant(
        "a page's file is in its repr",
        "front/pages.py",
        ('        return f"LinkFile({self.name!r})"', '        return f"LinkFile({self.name!r}, {self.href!r})"'),
        test="front/test_pages.py::test_the_token_stays_out_of_the_repr",
    ),
    mutant(
        "a worker without Redis is ready",
        "web/status.py",
        (
            '(("draining",) if self.report.draining else ()) + self.report.missing',
            '("draining",) if self.report.draining else ()',
        ),
        test="web/test_management.py::test_readyz_says_what_is_missing",
    ),
    mutant(
        "a request's token is in its repr",
        "policy/model.py",
        ("    token: str = field(repr=False)", "    token: str"),
        test="front/test_intake.py::test_no_secret_is_in_a_repr",
    ),
    mutant(
        "a link is told as revoked before it is",
        "services/linking.py",
        (
            (
                "    time = await _command(subject, fresh, None, control)\n"
                '    await _tell("link.revoked", subject, told, events, shards)\n'
            ),
            (
                '    await _tell("link.revoked", subject, told, events, shards)\n'
                "    time = await _command(subject, fresh, None, control)\n"
            ),
        ),
        test="services/test_linking.py::test_what_is_not_in_force_is_not_told",
    ),
    mutant(
        "what a worker says is markup",
        "web/management.py",
        ('f"<td>{escape(str(cell))}"', 'f"<td>{cell}"'),
        test="web/test_management.py::test_page_escapes_what_workers_say",
    ),
    mutant(
        "a misspelt setting is passed over",
        "settings_sections.py",
        ('extra="forbid"', 'extra="ignore"'),
        test="test_settings.py::test_a_mistake_is_one_line_that_says_what_would_be_right",
    ),
    mutant(
        "a ZIP is begun of which a file is refused",
        "services/zipping.py",
        ("(looks[1:], fresh=sends, limits=whole, look=sends)", "(looks[1:], fresh=sends, limits=False, look=sends)"),
        test="door/test_zip.py::test_what_one_file_refuses_refuses_all",
        shows=".*ClientPayloadError",
    ),
    mutant(
        "a ZIP goes on without its checksums",
        "services/zipping.py",
        ("            return None\n    headers = {**plan.headers", "            pass\n    headers = {**plan.headers"),
        test="door/test_zip.py::test_a_range_that_needs_an_unknown_checksum_is_not_followed",
    ),
    mutant(
        "a file of a ZIP begins before the one in front is settled",
        "services/zipping.py",
        ("                await self._before.closed(CLOSED_PATIENCE)\n", "                pass\n"),
        test="door/test_zip.py::test_a_reader_that_is_slow_keeps_the_place_of_its_next_file",
    ),
    mutant(
        "a part of a ZIP is credited with what stands before it",
        "transfer/part_channel.py",
        ("min(self.sent, max(0, whole - self._first))", "min(self.sent, whole)"),
        test="transfer/test_part_channel.py::test_acknowledged_bytes_are_the_parts_own",
    ),
    mutant(
        "a checksum is made up of a file's end",
        "services/zipping.py",
        ("known if known.length >= piece.start else None", "known if known.length >= piece.start else Summed()"),
        test="door/test_zip.py::test_no_checksum_is_made_of_the_middle_of_a_file",
    ),
    mutant(
        "a page waits for its store",
        "services/link_facts.py",
        ("async with asyncio.timeout(PATIENCE):", "async with asyncio.timeout(3):"),
        test="door/test_link_page.py::test_a_store_or_ledger_that_does_not_answer_holds_up_no_page",
    ),
    mutant(
        "the link page offers to show what the plan does not",
        "front/link_page.py",
        ("shows = opened.may_view and ", "shows = "),
        test="door/test_answers.py::test_the_link_page_offers_no_view_that_the_plan_does_not_give",
    ),
)
