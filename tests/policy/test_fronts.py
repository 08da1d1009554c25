"""What doors keep: nothing that a door keeps is ever loosened, and what it cannot keep is refused unless waived."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.fronts import AUTH, FRONTS, HTTP, MITM, NGINX, asks_beyond, kept, refused_at
from gateway.policy.limits import BY_NAME, LIMITS
from gateway.policy.model import Limits

ALL = Limits(**{limit.name: 5 for limit in LIMITS})
LIMITED = st.dictionaries(st.sampled_from(sorted(BY_NAME)), st.integers(1, 10**12)).map(lambda given: Limits(**given))
WAIVED = st.dictionaries(st.sampled_from(sorted(FRONTS)), st.frozensets(st.sampled_from(sorted(BY_NAME))))


@pytest.mark.parametrize(
    ("front", "unkept"),
    [(HTTP, ()), (MITM, ("rate",)), (NGINX, ("concurrent", "rate")), (AUTH, ("concurrent", "rate"))],
    ids=lambda each: getattr(each, "name", ""),
)
def test_what_each_door_cannot_keep(front, unkept) -> None:
    assert front.unkept == unkept
    found = kept(ALL, front.name, {})
    assert (found.limits, found.waived, found.unkept) == (ALL, (), unkept)
    assert refused_at(front, {}) == unkept


@pytest.mark.parametrize("front", FRONTS.values(), ids=FRONTS)
def test_the_table_agrees_with_itself(front) -> None:
    assert FRONTS[front.name] is front
    assert front.limits <= set(BY_NAME)
    assert front.origins
    # Who knows nothing of the bytes can neither pace them, nor end them, nor tell how many at once.
    if front.hands_over:
        assert not front.cuts
        assert front.delivered == "not known"
        assert {"rate", "concurrent"} <= set(front.unkept)


@pytest.mark.parametrize(
    ("front", "waived", "left", "spared", "unkept"),
    [
        ("nginx", {"nginx": {"rate"}}, ("concurrent", "downloads"), ("rate",), ("concurrent",)),
        ("nginx", {"nginx": {"rate", "concurrent"}}, ("downloads",), ("concurrent", "rate"), ()),
        ("nginx", {"auth": {"rate"}}, ("concurrent", "downloads", "rate"), (), ("concurrent", "rate")),
        ("mitm", {"mitm": {"rate"}}, ("concurrent", "downloads"), ("rate",), ()),
        # What a door keeps it keeps, whatever is said: the settings refuse to say it.
        ("mitm", {"mitm": {"rate", "concurrent", "downloads"}}, ("concurrent", "downloads"), ("rate",), ()),
        ("http", {"http": {"rate", "downloads"}}, ("concurrent", "downloads", "rate"), (), ()),
    ],
)
def test_what_is_waived_is_waived_at_its_door_alone(front, waived, left, spared, unkept) -> None:
    limits = Limits(downloads=1, concurrent=2, rate=3)
    found = kept(limits, front, {name: frozenset(names) for name, names in waived.items()})
    assert tuple(sorted(name for name, _ in found.limits.values)) == left
    assert (found.waived, found.unkept) == (spared, unkept)


@given(limits=LIMITED, front=st.sampled_from(sorted(FRONTS)), waived=WAIVED)
def test_nothing_that_a_door_keeps_is_loosened(limits, front, waived) -> None:
    door, found = FRONTS[front], kept(limits, front, waived)
    for name, number in limits.values:
        if name in door.limits:
            assert found.limits.get(name) == number
            assert name not in (*found.waived, *found.unkept)
        else:
            assert (name in found.waived) == (name in waived.get(front, ()))
            assert (name in found.unkept) != (name in found.waived)
    assert set(found.limits.values) <= set(limits.values)
    assert set(found.waived) <= set(door.unkept)
    assert set(found.unkept) <= set(refused_at(door, waived))


def test_a_door_that_is_none_keeps_nothing() -> None:
    with pytest.raises(KeyError):
        kept(ALL, "side", {})


def test_who_asks_beyond_what_doors_keep() -> None:
    refused = {"nginx": ("concurrent", "rate"), "mitm": ("rate",)}
    assert list(asks_beyond(Limits(rate=1, downloads=5), refused)) == [("nginx", ("rate",)), ("mitm", ("rate",))]
    assert ("nginx", ("concurrent", "rate")) in asks_beyond(Limits(concurrent=1, rate=1), refused)
    assert list(asks_beyond(Limits(downloads=5), refused)) == []
    assert list(asks_beyond(ALL, {})) == []
