from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.claims import TIME_MAX
from gateway.policy.model import Claims, Deny, FileEntry
from gateway.policy.reasons import Reason
from gateway.policy.standing import Command, Frozen, Standing, is_order_id, read_command, write_command

LINK = Claims("shop", "t1", 1000, (FileEntry("a"),), issued_at=50, order_id="10001")
OTHER = replace(LINK, token_id="t2")
KEY = LINK.token_key


def after(*commands: Command) -> Standing:
    standing = Standing()
    for command in commands:
        standing.apply(command)
    return standing


@pytest.mark.parametrize(
    ("command", "claims", "revoked"),
    [
        (Command("revoke", 60, token_key=KEY), LINK, True),
        (Command("revoke", 10, token_key=KEY), LINK, True),
        (Command("revoke", 60, token_key=KEY), OTHER, False),
        (Command("revoke", 60, token_key=KEY), replace(LINK, issuer="another shop"), False),
        (Command("revoke", 60, order_id="10001"), LINK, True),
        (Command("revoke", 50, order_id="10001"), LINK, True),
        (Command("revoke", 49, order_id="10001"), LINK, False),
        (Command("revoke", 0, order_id="10001"), replace(LINK, issued_at=None), True),
        (Command("revoke", 60, order_id="10002"), LINK, False),
        (Command("revoke", 60, order_id="10001"), replace(LINK, order_id=None), False),
        (Command("extend", 60, token_key=KEY, expires_at=2000), LINK, False),
    ],
)
def test_revoked(command: Command, claims: Claims, revoked: bool) -> None:
    assert after(command).is_revoked(claims) is revoked


@pytest.mark.parametrize(
    ("commands", "expected"),
    [
        ([], None),
        ([Command("extend", 60, token_key=KEY, expires_at=2000)], 2000),
        ([Command("extend", 60, token_key=OTHER.token_key, expires_at=2000)], None),
        ([Command("extend", 60, order_id="10001", expires_at=2000)], 2000),
        ([Command("extend", 49, order_id="10001", expires_at=2000)], None),
        (
            [Command("extend", 60, token_key=KEY, expires_at=3000), Command("extend", 61, token_key=KEY, expires_at=2)],
            2,
        ),
        (
            [
                Command("extend", 61, token_key=KEY, expires_at=3000),
                Command("extend", 60, order_id="10001", expires_at=9),
            ],
            3000,
        ),
        (
            [
                Command("extend", 61, order_id="10001", expires_at=9),
                Command("extend", 60, token_key=KEY, expires_at=3000),
            ],
            9,
        ),
        ([Command("extend", 60, token_key=KEY, expires_at=5), Command("extend", 60, token_key=KEY, expires_at=4)], 5),
    ],
)
def test_extended_whatever_the_sequence(commands: list[Command], expected: int | None) -> None:
    for sequence in permutations(commands):
        assert after(*sequence, *sequence).extended_to(LINK) == expected


def test_an_order_stays_revoked_until_the_latest_time() -> None:
    standing = after(Command("revoke", 60, order_id="10001"), Command("revoke", 40, order_id="10001"))
    assert standing.order_revoked_until("10001") == 60
    assert standing.order_revoked_until("10002") is None


TIMES = st.integers(0, 6)
LINKS = st.builds(
    replace,
    st.just(LINK),
    token_id=st.sampled_from("ab"),
    order_id=st.sampled_from(["x", "y", None]),
    issued_at=st.one_of(st.none(), TIMES),
)
SUBJECTS = st.one_of(
    st.sampled_from([{"token_key": replace(LINK, token_id=name).token_key} for name in "ab"]),
    st.sampled_from([{"order_id": name} for name in "xy"]),
)
ORDERS = st.one_of(
    st.builds(lambda time, subject: Command("revoke", time, **subject), TIMES, SUBJECTS),
    st.builds(lambda time, subject, end: Command("extend", time, **subject, expires_at=end), TIMES, SUBJECTS, TIMES),
    st.builds(
        lambda time, message, since: Command("freeze", time, message=message, since=since),
        TIMES,
        st.sampled_from([None, "a", "b"]),
        st.none() | TIMES,
    ),
    st.builds(lambda time: Command("thaw", time), TIMES),
)


def is_meant(claims: Claims, command: Command) -> bool:
    if command.verb in ("freeze", "thaw"):
        return False
    if command.token_key is not None:
        return command.token_key == claims.token_key
    return command.order_id == claims.order_id and (claims.issued_at is None or claims.issued_at <= command.time)


@given(st.lists(ORDERS), LINKS, st.randoms(use_true_random=False))
def test_it_says_what_a_walk_through_all_orders_says(commands: list[Command], claims: Claims, random) -> None:
    meant = [command for command in commands if is_meant(claims, command)]
    ends = sorted((command.time, command.expires_at) for command in meant if command.expires_at is not None)
    sequence = commands + commands[: len(commands) // 2]
    random.shuffle(sequence)
    standing = after(*sequence)
    assert standing.is_revoked(claims) is any(command.verb == "revoke" for command in meant)
    assert standing.extended_to(claims) == (ends[-1][1] if ends else None)
    of_all = [command for command in commands if command.verb in ("freeze", "thaw")]
    latest = [command for command in of_all if command.time == max(each.time for each in of_all)]
    freezes = [(each.message or "", each.since or 0, each) for each in latest if each.verb == "freeze"]
    said = max(freezes, key=lambda each: each[:2])[2] if freezes else None
    frozen = Frozen(said.time if said.since is None else said.since, said.message) if said else None
    assert standing.frozen == frozen
    stopped = Deny(Reason.FROZEN, message=frozen.message) if frozen else None
    assert standing.refused(claims) == (
        stopped or (Deny(Reason.TOKEN_REVOKED) if standing.is_revoked(claims) else None)
    )
    assert standing.refused(None) == stopped


@pytest.mark.parametrize(
    ("commands", "since"),
    [
        ([Command("freeze", 5)], 5),
        ([Command("freeze", 5), Command("thaw", 5)], 5),
        ([Command("freeze", 5), Command("thaw", 6)], None),
        ([Command("freeze", 7), Command("thaw", 6), Command("freeze", 5)], 7),
    ],
)
def test_the_later_word_counts_and_in_the_same_second_the_freeze(commands: list[Command], since: int | None) -> None:
    for sequence in permutations(commands):
        frozen = after(*sequence, *sequence).frozen
        assert (frozen.since if frozen else None) == since


@pytest.mark.parametrize(
    "command",
    [
        Command("revoke", 0, token_key=KEY),
        Command("revoke", TIME_MAX, order_id="zażółć 🎧 #1"),
        Command("extend", 1, token_key=KEY, expires_at=TIME_MAX),
        Command("extend", 1, order_id="10001", expires_at=0),
        Command("freeze", 1),
        Command("freeze", 1, message="Wracamy o 18:00 🎧"),
        Command("freeze", 1, since=0),
        Command("thaw", 1),
    ],
)
def test_what_is_written_is_read(command: Command) -> None:
    written = write_command(command)
    assert read_command(written) == command
    assert read_command({**written, "who": "a later release's field"}) == command


WRITTEN = write_command(Command("extend", 5, order_id="10001", expires_at=9))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"v": None}, "version 1"),
        ({"v": "2"}, "version 1"),
        ({"verb": None}, "verb"),
        ({"verb": "REVOKE"}, "verb"),
        ({"verb": "revoke"}, "a revocation has none"),
        ({"expires_at": None}, "a new expiry"),
        ({"expires_at": ""}, "expires_at"),
        ({"expires_at": "-1"}, "expires_at"),
        ({"expires_at": "9e9"}, "expires_at"),
        ({"expires_at": str(TIME_MAX + 1)}, "year 9999"),
        ({"expires_at": "9" * 5000}, "expires_at"),
        ({"time": None}, "time"),
        ({"time": "٣"}, "time"),
        ({"time": "5 "}, "time"),
        ({"order.id": None}, "either one link or one order"),
        ({"token.key": KEY}, "either one link or one order"),
        ({"order.id": None, "token.key": "t1"}, "token.key"),
        ({"order.id": None, "token.key": KEY.upper()}, "token.key"),
        ({"order.id": ""}, "order.id"),
        ({"order.id": "a\nb"}, "order.id"),
    ],
)
def test_what_is_no_order_is_not_read(change: dict[str, str | None], words: str) -> None:
    fields = {name: text for name, text in {**WRITTEN, **change}.items() if text is not None}
    with pytest.raises(ValueError, match=words):
        read_command(fields)


@pytest.mark.parametrize(
    "command",
    [
        Command("revoke", 5, order_id=" 1"),
        Command("revoke", 5, order_id="\udcff"),
        Command("revoke", -5, order_id="1"),
        Command("extend", 5, order_id="1", expires_at=TIME_MAX + 1),
    ],
)
def test_what_could_not_be_read_is_not_written(command: Command) -> None:
    with pytest.raises(ValueError, match=r"its (order\.id|time|expires_at)"):
        write_command(command)


@pytest.mark.parametrize(("text", "expected"), [("1", True), ("x" * 255, True), ("x" * 256, False), ("", False)])
def test_order_ids(text: str, expected: bool) -> None:
    assert is_order_id(text) is expected
