"""Mistakes in the steps between: who is let in, what is settled, what runs on, and what its events say."""

from __future__ import annotations

from mutant import mutant

SERVICES = (
    mutant(
        "the reaper comes before the living",
        "services/housekeeping.py",
        ("or time.monotonic() - self._seen_since < self._lease:", "or time.monotonic() < 0:"),
        test="services/test_housekeeping.py::test_after_an_outage_the_living_come_before_the_reaper",
    ),
    mutant(
        "a lease is not renewed while its reader stalls",
        "services/settlement.py",
        ("kept = [*self._running, ", "kept = ["),
        test="services/test_settlement.py::test_one_lease_that_fails_stops_no_other",
    ),
    mutant(
        "a stalled reader is taken for dead",
        "services/settlement.py",
        ("self._beat_every = lease / 3", "self._beat_every = lease * 3"),
        test="door/test_counting.py::test_a_stalled_reader_keeps_its_lease",
        shows="aiohttp.client_exceptions.ClientPayloadError",
    ),
    mutant(
        "a download is settled before its last bytes are acknowledged",
        "services/settlement.py",
        ("if self.connection is None or self.acknowledged >= self.sent:", "if self.sent >= 0:"),
        test="services/test_settlement.py::test_it_waits_for_the_last_acknowledgement",
    ),
    mutant(
        "a settlement that finds Redis down is lost",
        "services/settlement.py",
        (
            "            except LedgerDown:\n                await asyncio.sleep(RETRY)\n",
            "            except LedgerDown:\n                break\n",
        ),
        test="services/test_settlement.py::test_a_ledger_that_is_away_is_asked_again",
    ),
    mutant(
        "a reservation that the ledger has lost goes on",
        "services/settlement.py",
        ("                running.stop(GONE)\n", "                pass\n"),
        test="services/test_settlement.py::test_a_lost_reservation_is_cut_and_told_so",
    ),
    mutant(
        "one lease that fails ends all others",
        "services/settlement.py",
        (
            "        except Exception as error:  # noqa: BLE001  one lease",
            "        except KeyError as error:  # noqa: BLE001  one lease",
        ),
        test="services/test_settlement.py::test_one_lease_that_fails_stops_no_other",
        shows="ValueError: bad",
    ),
    mutant(
        "a part that arrived is a complete download",
        "services/settlement.py",
        ('"complete" if delivered == running.reservation.asked else "client_left"', '"complete"'),
        test="door/test_counting.py::test_a_client_that_leaves_is_charged_for_what_its_kernel_took",
    ),
    mutant(
        "bytes go out before Redis has said yes",
        "services/reserving.py",
        (
            "            return await asyncio.shield(task)\n",
            (
                "            task.add_done_callback(lambda done: done.exception())\n"
                "            return self._ledger.assume(ask)[0]\n"
            ),
        ),
        test="door/test_nothing_lost.py::test_no_byte_goes_out_while_redis_says_nothing",
    ),
    mutant(
        "where Redis is down, all is allowed",
        "services/reserving.py",
        (
            "            return await asyncio.shield(task)\n",
            (
                "            return await asyncio.shield(task)\n"
                "        except Exception:\n"
                "            return self._ledger.assume(ask)[0]\n"
            ),
        ),
        test="door/test_nothing_lost.py::test_no_byte_goes_out_while_redis_says_nothing",
    ),
    mutant(
        "where revocations cannot be read, all is allowed",
        "services/gatekeeper.py",
        ("return bool(self._device_secret) and self._grounds.ready()", "return bool(self._device_secret)"),
        test="door/test_nothing_lost.py::test_nobody_is_let_in_while_revocations_cannot_be_read",
    ),
    mutant(
        "where the geo data are broken, nothing is known of anybody",
        "services/gatekeeper.py",
        (
            "        case.place = Place() if geo is None else geo.look_up(case.request.client_address)\n",
            (
                "        try:\n"
                "            case.place = Place() if geo is None else geo.look_up(case.request.client_address)\n"
                "        except GatewayError:\n"
                "            case.place = Place()\n"
            ),
        ),
        test="door/test_nothing_lost.py::test_broken_geo_data_let_nobody_in",
    ),
    mutant(
        "a client that leaves while Redis is asked is not settled",
        "services/reserving.py",
        ("            task.add_done_callback(self._give_back)\n", ""),
        test="door/test_nothing_lost.py::test_a_client_that_leaves_while_redis_is_asked_is_settled_by_its_worker",
    ),
    mutant(
        "a link revoked while the ledger was asked is served",
        "services/grounds.py",
        ("        return self.control.standing.refused(claims) or (", "        return ("),
        test="door/test_nothing_lost.py::test_a_link_revoked_while_the_ledger_is_asked_gives_nothing",
    ),
    mutant(
        "a freeze while the ledger was asked is overlooked",
        "services/grounds.py",
        (
            "        return self.control.standing.refused(claims) or (",
            (
                "        revoked = Deny(Reason.TOKEN_REVOKED) if self.control.standing.is_revoked(claims) else None\n"
                "        return revoked or ("
            ),
        ),
        test="door/test_freeze.py::test_said_while_the_order_book_is_asked_gives_nothing",
    ),
    mutant(
        "what was ordered while the order book was asked is overlooked",
        "services/grounds.py",
        (
            "        lost: Reason | None = None\n        try:",
            "        lost: Reason | None = None\n        said = self.control.standing.refused(claims)\n        try:",
        ),
        ("        return self.control.standing.refused(claims) or (", "        return said or ("),
        test="door/test_freeze.py::test_said_while_the_order_book_is_asked_gives_nothing",
    ),
    mutant(
        "what was refused since it was admitted begins",
        "services/settlement.py",
        (
            "(deny := self._standing().refused(running.claims)) is not None:",
            "(deny := self._standing().refused(running.claims)) is running:",
        ),
        test="services/test_settlement.py::test_what_was_refused_since_it_was_admitted_is_stopped_as_it_begins",
    ),
    mutant(
        "a broken order book keeps quiet that all is frozen",
        "services/gatekeeper.py",
        (
            "            return await self._refuse(frozen, case)\n        if isinstance(file, Deny):",
            "            pass\n        if isinstance(file, Deny):",
        ),
        test="door/test_freeze.py::test_frozen_is_said_before_anything_else_is_asked",
    ),
    mutant(
        "a freeze that Redis lost cannot be thawed",
        "services/freezing.py",
        (
            '    standing = await control.read_all()\n    await _order(Command("thaw"',
            (
                "    standing = await control.read_all()\n    if standing.frozen is None:\n        return False\n"
                '    await _order(Command("thaw"'
            ),
        ),
        test="services/test_freezing.py::test_a_freeze_that_only_a_worker_knows_is_thawed",
    ),
    mutant(
        "a freeze that Redis lost is not put back",
        "services/control.py",
        ("if said is not None and said != self._there.of_all:", "if said is self._there:"),
        test="services/test_control.py::test_what_was_said_of_all_is_put_back_once_where_the_stream_has_lost_it",
    ),
    mutant(
        "a clock behind the last thaw cannot freeze",
        "services/freezing.py",
        ("return now if said is None else max(now, said.time + 1)", "return now"),
        test="services/test_freezing.py::test_frozen_and_thawed_whatever_was_said_by_clocks_ahead",
    ),
    mutant(
        "a page asks the candidate for all its files",
        "services/gatekeeper.py",
        (
            "        case.opinion = self._grounds.observing.judged(case, claims, claims.files[chosen], allowed)",
            (
                "        for file in claims.files:\n"
                "            case.opinion = self._grounds.observing.judged(case, claims, file, allowed)"
            ),
        ),
        test="door/test_candidate.py::test_every_word_of_rules_is_counted_once_for_each_file",
    ),
    mutant(
        "a file of a ZIP counts as two for the metrics of rules",
        "services/gatekeeper.py",
        ("        if not look or isinstance(answer, Refused):", "        if limits or isinstance(answer, Refused):"),
        test="door/test_candidate.py::test_every_word_of_rules_is_counted_once_for_each_file",
    ),
    mutant(
        "every name of a rule stays a metric for ever",
        "web/metrics.py",
        ("        if len(_rule_names) >= RULE_NAMES_MAX:", "        if len(_rule_names) < 0:"),
        test="web/test_metrics.py::test_no_more_rules_than_so_many_have_a_line_of_their_own",
    ),
    mutant(
        "anybody on the machine may look into a Maildir",
        "backends/maildir.py",
        ("folder.mkdir(mode=0o700, exist_ok=True)", "folder.mkdir(exist_ok=True)"),
        test="backends/test_maildir.py::test_only_its_owner_may_look_into_it",
    ),
    mutant(
        "HEAD counts",
        "services/gatekeeper.py",
        ("charged = plan.sends_body or (", "charged = True or ("),
        test="door/test_answers.py::test_preconditions_and_head_send_no_body_and_count_nothing",
    ),
    mutant(
        "an external file counts nothing",
        "services/gatekeeper.py",
        ('(plan.elsewhere and request.method == "GET")', "False"),
        test="door/test_policy.py::test_an_external_file_is_counted_and_sent_elsewhere",
    ),
    mutant(
        "a flood of refusals is a flood of events",
        "services/flood.py",
        ("return count <= ", "return 0 <= count or count <= "),
        test="door/test_answers.py::test_a_flood_of_refusals_of_one_token_is_not_all_stored",
    ),
    mutant(
        "an answer sends more than it was granted",
        "services/delivery.py",
        (
            "piece = min(left, await self._allowed(channel))",
            "await self._allowed(channel)\n                piece = left",
        ),
        test="door/test_counting.py::test_past_its_budget_a_repeat_is_cut_visibly",
    ),
    mutant(
        "an answer that must be cut ends politely",
        "services/delivery.py",
        ("                self._channel.abort()\n", "                self._channel.finish()\n"),
        test="door/test_counting.py::test_past_its_budget_a_repeat_is_cut_visibly",
        shows="TimeoutError",
    ),
    mutant(
        "a rate is each request's own",
        "services/delivery.py",
        ("            await asyncio.sleep(slot.wait)\n", ""),
        test="door/test_policy.py::test_a_rate_is_shared_by_all_transfers_of_a_token",
    ),
    mutant(
        "a file that was opened is left open",
        "services/delivery.py",
        ("        finally:\n            await body.aclose()\n", "        finally:\n            pass\n"),
        test="door/test_nothing_lost.py::test_descriptors_go_back_to_where_they_were",
    ),
    mutant(
        "a failing origin costs a download",
        "services/windows.py",
        (
            '            return "origin_failed", reason_of(error).text',
            '            return "cut", reason_of(error).text',
        ),
        test="door/test_counting.py::test_the_object_is_replaced_between_stat_and_open",
    ),
    mutant(
        "an event holds line breaks",
        "policy/events.py",
        ('    return _UNCLEAN.sub("\\ufffd", text[:length])', "    return text[:length]"),
        test="policy/test_events.py::test_values_are_cleaned_and_bounded",
    ),
    mutant(
        "an event holds an external file's signature",
        "policy/record.py",
        ('"file.key": file.recorded', '"file.key": file.identity'),
        test="door/test_policy.py::test_an_external_addresss_query_is_no_ones_business",
    ),
    mutant(
        "what mail tools append makes another device",
        "policy/device.py",
        (
            "request.client_hints, request.client_network)",
            "request.client_hints, request.client_network, request.campaign)",
        ),
        test="policy/test_device.py::test_how_it_was_asked_makes_no_other_device",
    ),
    mutant(
        "the raw cookie is kept",
        "policy/device.py",
        (
            '_digest(secret, "cookie", request.device_cookie) if request.device_cookie else None',
            "request.device_cookie",
        ),
        test="policy/test_device.py::test_nothing_raw_is_kept",
    ),
    mutant(
        "an order has another shard on another machine",
        "policy/shards.py",
        ("crc32(key.encode(", "hash(key.encode("),
        test="policy/test_shards.py::test_a_key_has_one_shard_for_ever",
    ),
    mutant(
        "an outage does not count against the reaper",
        "services/housekeeping.py",
        ("why: str) -> None:\n        self._seen_since = None\n", "why: str) -> None:\n"),
        test="services/test_housekeeping.py::test_after_an_outage_the_living_come_before_the_reaper",
    ),
    mutant(
        "who stops does not settle what has ended",
        "services/settlement.py",
        ("await asyncio.wait_for(asyncio.gather(*closing), patience)", "asyncio.gather(*closing).cancel()"),
        test="services/test_settlement.py::test_who_stops_settles_what_has_ended",
    ),
    mutant(
        "a token of tomorrow is good once it is known",
        "services/gatekeeper.py",
        ("return timely(claims, int(time.time())) or claims", "return claims"),
        test="door/test_answers.py::test_refusals",
    ),
    mutant(
        "a link that is over shows its page",
        "services/gatekeeper.py",
        ("        if expires_at <= time.time():\n", "        if expires_at <= 0:\n"),
        test="door/test_answers.py::test_refusals",
        shows="ValueError: too many",
    ),
    mutant(
        "nobody is told when to come again",
        "services/gatekeeper.py",
        ("deny.retry_after or RETRY_AFTER.get(deny.reason)", "deny.retry_after"),
        test="door/test_answers.py::test_draining_refuses_new_requests",
        shows="KeyError: 'Retry-After'",
    ),
    mutant(
        "what a link was extended to is forgotten",
        "policy/decide.py",
        ("        expiry_of(claims, plan, policy.standing),\n", "        claims.expires_at,\n"),
        test="door/test_policy.py::test_extending_overrides_the_expiry",
    ),
    mutant(
        "a link revoked while its file was opened is served",
        "services/delivery.py",
        ("            raise Cut(self._running.stopped)\n", "            pass\n"),
        test="door/test_nothing_lost.py::test_a_link_revoked_while_its_file_is_opened_sends_nothing",
    ),
    mutant(
        "every token that was ever seen is remembered",
        "services/gatekeeper.py",
        ("if len(self._tokens) > TOKENS_CACHED:", "if len(self._tokens) > 10**9:"),
        test="services/test_gatekeeper.py::test_the_oldest_is_forgotten",
    ),
    mutant(
        "old events are never trimmed",
        "services/housekeeping.py",
        ("            await self._events.trim(shard, self._keep_events)\n", "            pass\n"),
        test="services/test_housekeeping.py::test_old_events_go_now_and_then_from_every_shard",
    ),
    mutant(
        "noise has its share of events once and for all",
        "services/flood.py",
        ("            self._counts.clear()\n", "            pass\n"),
        test="services/test_flood.py::test_each_has_its_share_and_has_it_again_in_the_next_second",
    ),
    mutant(
        "an event does not say which plan was in force",
        "policy/record.py",
        ('decision.plan or fields.get("plan")', 'fields.get("plan")'),
        test="policy/test_record.py::test_the_plan_in_force_or_else_the_one_that_was_named",
        shows="KeyError",
    ),
)
