"""The replay's ledger is held to the naive model that the scripts are held to."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.policy.counting import MIB
from gateway.policy.limits import charges
from gateway.policy.model import Device, Limits
from gateway.policy.replay_ledger import Ask, Closing, TokenLedger

_spec = importlib.util.spec_from_file_location(
    "ledger_model", Path(__file__).parents[1] / "backends" / "ledger_model.py"
)
ledger_model = importlib.util.module_from_spec(_spec)
sys.modules.setdefault("ledger_model", ledger_model)
_spec.loader.exec_module(ledger_model)
EPOCH, RULES, File, Model, Request = (
    ledger_model.EPOCH, ledger_model.RULES, ledger_model.File, ledger_model.Model, ledger_model.Request
)  # fmt: skip

FILES = (File("a", 300_000), File("b", MIB), File("url:c", 0, elsewhere=True))
DEVICES = tuple(
    Device(cookie, network, agent, cookie or f"{network}{agent}")
    for cookie, network, agent in (
        ("k1", "n1", "u1"), ("k1", "n2", "u1"), (None, "n1", "u2"), (None, "n3", "u2"), ("k2", "n3", None)
    )
)  # fmt: skip
LIMITS = st.fixed_dictionaries(
    {},
    optional={
        "downloads": st.integers(1, 2),
        "networks": st.integers(1, 2),
        "devices": st.integers(1, 2),
        "concurrent": st.integers(1, 2),
        "valid_after_first": st.sampled_from([90, 4000]),
    },
).map(lambda values: Limits(**values))
ASKS = st.tuples(
    st.just("ask"),
    st.sampled_from(FILES),
    st.sampled_from(DEVICES),
    LIMITS,
    st.sampled_from([(0, 1.0), (0, 1.0), (0, 0.3), (0.5, 0.5), (0.9, 0.1)]),
    st.sampled_from([False, False, True]),
)
STEPS = st.lists(
    st.one_of(
        ASKS,
        ASKS,
        st.tuples(st.just("confirm"), st.sampled_from(FILES), st.sampled_from(DEVICES), LIMITS),
        st.tuples(st.just("end"), st.integers(0, 5), st.sampled_from([0.0, 0.01, 0.4, 1.0]), st.booleans()),
        st.tuples(st.just("wait"), st.sampled_from([1, 61, 100, 3601])),
    ),
    max_size=30,
)


@settings(max_examples=200, deadline=None)
@given(STEPS)
def test_it_lets_in_and_refuses_as_the_model_does(steps) -> None:
    model, ledger = Model(EPOCH + 10**12), TokenLedger(RULES)
    running: list[tuple[str, Request]] = []
    for number, step in enumerate(steps):
        if step[0] == "wait":
            # A place lapses where its worker says nothing for long; here all of them do.
            for _, request in running:
                request.transfer.held_until += step[1] * 1000
            model.now += step[1] * 1000
        elif step[0] == "end" and running:
            name, request = running.pop(step[1] % len(running))
            acked = int(request.granted * step[2])
            ledger.close(
                Closing(name, request_of(ledger, name), acked, 0, origin_failed=step[3], at=model.now / 1000),
                as_recorded=False,
            )
            model.settle(request, acked, origin_failed=step[3])
        elif step[0] == "confirm":
            _, file, device, limits = step
            request = Request(file, 0, 0, device, limits)
            model.confirm(request)
            etag = None if file.elsewhere else '"e"'
            ask = Ask(
                f"r{number}",
                file.identity,
                model.now / 1000,
                file.size,
                etag,
                0,
                0,
                file.elsewhere,
                device,
                charges(limits, device),
            )
            ledger.confirm(ask)
            assert ledger._used.get(file.identity, 0) == model.used(file)
        elif step[0] == "ask":
            _, file, device, limits, (start, share), scanner = step
            first, asked = int(file.size * start), int(file.size * share)
            request = Request(file, first, asked, device, limits, scanner)
            etag = None if file.elsewhere else '"e"'
            ask = Ask(
                f"r{number}", file.identity, model.now / 1000, file.size, etag, first, asked, file.elsewhere, device,
                charges(limits, device), scanner,
            )  # fmt: skip
            joined = ledger.find(ask)
            reason = ledger.refused(ask, joined)
            said = model.reserve(request)
            assert (reason.text if reason else "in") == (said if isinstance(said, str) else "in")
            if reason is None:
                ledger.enter(ask, joined)
                running.append((ask.request_id, request))


def test_a_popular_link_costs_as_much_at_its_end_as_at_its_beginning() -> None:
    """Looked at are at most 32 transfers for each thing that a device is known by, as in the scripts."""
    ledger, limits = TokenLedger(RULES), charges(Limits(downloads=10**6), DEVICES[0])

    def own(network: str, cookie: str | None = None) -> list[str]:
        device = Device(cookie, network, "u", "d")
        return [each.id for each in ledger._transfers["a"].of(device, by_agent=False)]

    def ask(number: int, network: str, cookie: str | None = None) -> Ask:
        device = Device(cookie, network, "u", cookie or network)
        return Ask(f"r{number}", "a", 1e9 + number / 1000, 300_000, '"e"', 0, 300_000, False, device, limits)

    for number in range(40):
        ledger.enter(ask(number, "shared", f"k{number}"), None)
    assert own("shared") == [f"r{number}" for number in range(39, 7, -1)]
    assert own("else", "k3") == ["r3"]
    looked_at = 0
    for number in range(100, 3100):
        asked = ask(number, f"n{number}")
        looked_at += sum(1 for _ in ledger._transfers["a"].of(asked.device, by_agent=True))
        ledger.enter(asked, ledger.find(asked))
    assert looked_at <= 3000 * 32
    assert [each.id for each in ledger._transfers["a"].of(Device(None, "x", "u"), by_agent=True)] == [
        f"r{number}" for number in range(3099, 3067, -1)
    ]


def test_what_is_long_at_rest_is_forgotten_a_few_at_a_time() -> None:
    ledger, limits = TokenLedger(RULES), charges(Limits(), DEVICES[0])
    for number in range(200):
        device = Device(None, f"n{number}", None, "d")
        ask = Ask(f"r{number}", "a", 1e9 + number * 4000, 300_000, '"e"', 0, 300_000, False, device, limits)
        ledger.enter(ask, None)
        ledger.close(Closing(f"r{number}", f"r{number}", 300_000, 0, origin_failed=False, at=ask.at), as_recorded=True)
    assert ledger.known("a", "r198") is None
    assert ledger.known("a", "r199") is not None


def request_of(ledger: TokenLedger, name: str) -> str:
    """The transfer that a running request is in."""
    return ledger._running[name].transfer.id
