"""Mistakes between a paid order and its file: what is given too early, twice, too long, or not told."""

from __future__ import annotations

from mutant import mutant

ORDERS = (
    mutant(
        "a webhook is answered before it is kept",
        "services/intake.py",
        ('Heard(503, "orders.down", "It could not be kept; please send it again.")', 'Heard(200, "taken", "")'),
        test="services/test_intake.py::test_what_cannot_be_kept_is_to_come_again",
    ),
    mutant(
        "a forged webhook is taken",
        "services/intake.py",
        ("        if wrong:\n", "        if not headers:\n"),
        test="services/test_intake.py::test_a_forged_one_is_refused_and_leaves_nothing",
    ),
    mutant(
        "links are made before payment",
        "services/fulfilment.py",
        (
            "        if not self._is_due(order):\n            return order\n",
            "        if not order.lines:\n            return order\n",
        ),
        test="services/test_fulfilment.py::test_nothing_is_made_before_it_is_paid",
    ),
    mutant(
        "a copy makes a second mail",
        "services/fulfilment.py",
        ("wanted = bool(new) or", "wanted = bool(order.links) or"),
        test="services/test_fulfilment.py::test_twenty_copies_at_once_and_out_of_order_make_one_of_each",
    ),
    mutant(
        "a buyer whose address comes late is never written to",
        "services/fulfilment.py",
        ("bool(new) or self._became_reachable(before, order) if", "bool(new) if"),
        test="services/test_fulfilment.py::test_without_an_address_it_is_told_and_mailed_when_there_is_one",
        shows="ValueError: not enough values to unpack",
    ),
    mutant(
        "one webhook that fails stops all others",
        "services/fulfilment.py",
        (
            "        except Exception as error:  # noqa: BLE001  whatever one webhook does",
            "        except KeyError as error:  # noqa: BLE001  whatever one webhook does",
        ),
        test="services/test_fulfilment.py::test_a_store_that_breaks_delays_its_webhook_alone",
        shows="RuntimeError: secret text",
    ),
    mutant(
        "a refunded order is served",
        "policy/orders.py",
        (
            "            if self.taken_back(entitlement.line_id):\n                continue\n",
            "            if not entitlement.files:\n                continue\n",
        ),
        test="services/test_fulfilment.py::test_a_refund_takes_the_line_and_a_replay_gives_nothing_back",
    ),
    mutant(
        "a refunded line is linked again",
        "policy/granting.py",
        (
            "if each.line_id not in covered and not order.taken_back(each.line_id):",
            "if each.line_id not in covered:",
        ),
        test="policy/test_granting.py::test_what_was_taken_back_is_in_no_link",
    ),
    mutant(
        "what is remembered of an order is believed for ever",
        "services/holdings.py",
        ("if order_id in self._known and time.monotonic() - self._heard < SILENCE:", "if order_id in self._known:"),
        test="services/test_holdings.py::test_a_book_that_is_away_is_believed_for_a_moment_and_then_refused",
        shows="DID NOT RAISE",
    ),
    mutant(
        "an answer of before a change is remembered",
        "services/holdings.py",
        ("        self._asking.pop(order_id, None)\n", "        self._asking.get(order_id)\n"),
        test="services/test_holdings.py::test_an_answer_of_before_a_change_is_not_remembered",
    ),
    mutant(
        "sixteen ranges ask for an order sixteen times",
        "services/holdings.py",
        ("        task = self._asking.get(order_id)\n", "        task = None\n"),
        test="services/test_holdings.py::test_sixteen_at_once_ask_once",
    ),
    mutant(
        "a running download survives a refund",
        "services/holdings.py",
        ("                running.stop(lost.text)\n", "                pass\n"),
        test="services/test_holdings.py::test_running_downloads_are_cut_on_refund_and_no_others",
        shows="TimeoutError",
    ),
    mutant(
        "an event of an order is told again when its worker dies",
        "services/relay.py",
        (
            'self._events.append_once(shard, f"event:{event_id}", outgoing.fields, REMEMBERED)',
            "self._events.append(shard, outgoing.fields)",
        ),
        test="services/test_relay.py::test_a_worker_that_dies_between_writing_and_noting_it_doubles_nothing",
    ),
    mutant(
        "a webhook counts as told before it is answered",
        "services/webhooks.py",
        (
            "            answer = await self._sender.send(",
            "            await self._queue.done(taken)\n            answer = await self._sender.send(",
        ),
        test="services/test_webhooks.py::test_what_is_not_taken_comes_again_the_same",
        shows="it never came to that",
    ),
    mutant(
        "a webhook's id is not signed",
        "policy/webhooks.py",
        ('f"{event_id}.{now}.".encode()', 'f"{now}.".encode()'),
        test="services/test_webhooks.py::test_the_signature_is_the_one_of_the_standards_own_example",
    ),
    mutant(
        "a webhook follows a redirect",
        "backends/webhook_sender.py",
        ("allow_redirects=False", "allow_redirects=True"),
        test="backends/test_webhook_sender.py::test_only_2xx_has_it",
    ),
    mutant(
        "an endpoint that is gone for good keeps every event",
        "services/webhooks.py",
        ("oldest = int(time.time()) - GIVE_UP_AFTER if failing else 0", "oldest = 0"),
        test="services/test_webhooks.py::test_what_waits_unsent_for_too_long_is_given_up_while_the_endpoint_fails",
    ),
    mutant(
        "an endpoint that is down is flooded",
        "services/webhooks.py",
        ("fresh = AT_ONCE if not failing else int(probing)", "fresh = AT_ONCE"),
        test="services/test_webhooks.py::test_a_server_that_was_away_is_told_of_everything_in_the_end",
    ),
    mutant(
        "what a dead worker had taken is never sent",
        "backends/lua/webhooks.lua",
        ("'IDLE', full - patience, 'JUSTID')", "'JUSTID')"),
        test="services/test_webhooks.py::test_patience_is_what_another_worker_waits",
    ),
)
