"""Mistakes with Redis and counting: what loses a download or an event, or gives one twice."""

from __future__ import annotations

from mutant import mutant

LEDGER = (
    mutant(
        "first look, then count",
        "backends/redis_ledger.py",
        (
            (
                "        reply = await self._shards.run(self._reserve, ask.shard, keys, args)\n"
                '        if reply[0] == "deny":\n'
                "            if"
            ),
            (
                '        reply = await self._shards.run(self._reserve, ask.shard, keys, [args[0], "peek"])\n'
                '        if reply[0] != "deny":\n'
                '            reply = await self._shards.run(self._reserve, ask.shard, keys, [args[0], "late"])\n'
                '        if reply[0] == "deny":\n'
                "            if"
            ),
        ),
        test="backends/test_ledger_race.py::test_exactly_the_limit_is_granted",
    ),
    mutant(
        "the client library retries by itself",
        "backends/redis_client.py",
        ("Retry(NoBackoff(), 0)", "Retry(NoBackoff(), 3)"),
        test="backends/test_redis_groups.py::test_a_lost_reply_is_down_and_nothing_is_sent_again",
    ),
    mutant(
        "a Redis that says nothing is waited for",
        "backends/redis_client.py",
        ("\nTIMEOUT = 0.8\n", "\nTIMEOUT = 4.0\n"),
        test="backends/test_redis_client.py::test_a_server_that_says_nothing_is_down_within_a_second",
    ),
    mutant(
        "an error of Redis quotes what it was sent",
        "backends/redis_line.py",
        ('if code := getattr(error, "status_code", None):', "if code := text:"),
        test="backends/test_redis_client.py::test_an_error_reply_that_quotes_our_arguments_is_not_passed_on",
    ),
    mutant(
        "each request asks a dead Redis for itself",
        "backends/redis_line.py",
        ("        if loop.time() < self._fail_until:\n", "        if loop.time() < 0:\n"),
        test="backends/test_redis_client.py::test_a_server_that_says_nothing_is_down_within_a_second",
    ),
    mutant(
        "a master that became a replica is asked for ever",
        "backends/redis_line.py",
        ("        if any(isinstance(reply, ReadOnlyError) for reply in replies):\n", "        if not replies:\n"),
        test="backends/test_redis_client.py::test_a_master_that_became_a_replica_is_left",
    ),
    mutant(
        "a Redis that evicts keys is good enough",
        "backends/redis_ledger.py",
        ('if policy != "noeviction" and', 'if policy == "never" and'),
        test="services/test_housekeeping.py::test_a_server_that_evicts_is_refused",
    ),
    mutant(
        "another number of shards is good enough",
        "backends/redis_ledger.py",
        ("        if int(shards) != self._shards.count:\n", "        if not shards:\n"),
        test="services/test_housekeeping.py::test_other_shards_on_the_same_redis_are_refused",
    ),
    mutant(
        "events are trimmed before a consumer has read them",
        "backends/redis_events.py",
        (", *await self._unread(shard)])", "])"),
        test="backends/test_redis_events.py::test_trim_never_takes_what_a_group_has_not_finished",
    ),
    mutant(
        "events are trimmed by their number",
        "backends/redis_events.py",
        (
            '"XTRIM", stream(shard), "MINID", how, "{}-{}".format(*oldest_kept))',
            '"XTRIM", stream(shard), "MAXLEN", "=", 5)',
        ),
        test="backends/test_redis_events.py::test_trim_is_exact_and_by_age",
    ),
    mutant(
        "reading page by page repeats an event",
        "backends/redis_events.py",
        ('            start = f"({page[-1][0]}"', '            start = f"{page[-1][0]}"'),
        test="backends/test_redis_events.py::test_pages_lose_and_repeat_nothing",
    ),
    mutant(
        "a command that cannot be read is skipped",
        "backends/redis_control.py",
        (
            "                    fault = _unreadable(entry_id, error)\n                    break\n",
            "                    log.debug(error)\n",
        ),
        test="services/test_control.py::test_what_cannot_be_read_lets_nobody_in_at_once_and_is_logged_once",
    ),
    mutant(
        "a control stream that says nothing is up to date",
        "services/control.py",
        ("return self._caught_up and time.monotonic() - self._heard <= SILENCE", "return self._caught_up"),
        test="services/test_control.py::test_a_server_that_says_nothing_counts_as_down_after_two_seconds",
    ),
    mutant(
        "somebody is let in before all revocations are read",
        "services/control.py",
        ("        if now - self._heard > SILENCE:\n            self._caught_up = False\n", ""),
        test="services/test_control.py::test_after_silence_nobody_is_let_in_before_all_is_read",
    ),
    mutant(
        "a revocation does not cut what runs",
        "services/control.py",
        ('        if any(command.verb in ("revoke", "freeze") for command in commands):\n', "        if not self:\n"),
        test="services/test_control.py::test_an_order_is_in_force_within_a_second_and_cuts",
    ),
    mutant(
        "a download that runs is cut when its link expires",
        "backends/lua/renew.lua",
        (
            "local more, reason = wanted - request.granted, nil",
            "local more, reason = wanted - request.granted, ask.expires <= now and 'token.expired' or nil",
        ),
        test="backends/test_ledger_model.py::test_scripts_agree_with_the_model",
    ),
    mutant(
        "a look costs a download",
        "backends/lua/settle.lua",
        ("transfer.acked < ask.refund_below", "transfer.acked < 0"),
        test="door/test_counting.py::test_small_slices_add_up_to_a_download",
    ),
    mutant(
        "settled twice, given back twice",
        "backends/lua/settle.lua",
        ("write('DEL', REQUEST)\n", ""),
        ("write('HSET', REQUEST, 'state', 'closed')\n", ""),
        test="backends/test_ledger_model.py::test_scripts_agree_with_the_model",
    ),
    mutant(
        "a buyer who changes networks is another buyer",
        "backends/lua/ledger.lua",
        ("  if device.cookie then fields[#fields + 1] = 'c:' .. device.cookie end\n", ""),
        test="door/test_counting.py::test_the_device_cookie_follows_a_buyer_from_network_to_network",
    ),
    mutant(
        "a resume on another network is another download",
        "backends/lua/ledger.lua",
        ("  if device.agent then fields[#fields + 1] = 'a:' .. device.agent end\n", ""),
        test="door/test_counting.py::test_another_network_is_another_download_but_a_resume_with_the_same_agent_is_not",
    ),
    mutant(
        "a replaced file is resumed as the old one's download",
        "backends/lua/ledger.lua",
        ("if transfer.size ~= ask.size or transfer.etag ~= ask.etag then return nil end", ""),
        test="backends/test_ledger_corners.py::test_another_version_of_a_file_is_another_download",
    ),
    mutant(
        "a counter is forgotten earlier than was said before",
        "backends/lua/ledger.lua",
        ("(left >= 0 and now + left < at)", "left >= 0"),
        test="backends/test_ledger_corners.py::test_counters_are_kept_for_the_latest_end_that_is_known",
    ),
    mutant(
        "one unreadable reservation hides those behind it",
        "backends/redis_ledger.py",
        (
            '                    await self._wire.execute("ZINCRBY", f"{prefix}:leases", POSTPONED_MS, request_id)\n',
            "                    break\n",
        ),
        test="services/test_housekeeping.py::test_one_unreadable_reservation_hides_none_behind_it",
    ),
    mutant(
        "a script that Redis has forgotten is lost",
        "backends/redis_client.py",
        ("        if isinstance(reply, NoScriptError):\n", "        if reply is script:\n"),
        test="backends/test_redis_client.py::test_a_script_survives_a_script_flush",
        shows="gateway.errors.LedgerDown",
    ),
    mutant(
        "who acts like a scanner is never charged",
        "backends/lua/charges.lua",
        ("return not spent or spent == id", "return true"),
        test="door/test_scanners.py::test_imitating_a_scanner_gains_one_download",
    ),
    mutant(
        "a mail scanner burns the download",
        "services/asking.py",
        ("look=bool(case.signs)", "look=False"),
        test="door/test_scanners.py::test_scanners_first_then_people",
    ),
)
