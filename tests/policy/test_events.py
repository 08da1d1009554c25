from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.events import FIELDS, TYPES, clean, new_event, rfc3339

DOCUMENTED = re.findall(r"^\| `([^`]+)` \|", (Path(__file__).parents[2] / "docs/events.md").read_text(), re.MULTILINE)
NOW = 1_795_228_200_125


def test_an_event_is_flat_text_without_empty_values() -> None:
    fields = {"file.size": 1024, "counted": 0, "plan": None, "rule": "", "file.key": "a/b.pdf"}
    assert new_event("download.allowed", "01a1", NOW, fields) == {
        "id": "01a1",
        "v": "1",
        "time": "2026-11-21T02:30:00.125Z",
        "type": "download.allowed",
        "file.size": "1024",
        "counted": "0",
        "file.key": "a/b.pdf",
    }


def test_the_ledger_may_write_the_type() -> None:
    assert "type" not in new_event("", "01a1", NOW, {})


def test_no_field_overwrites_what_every_event_has() -> None:
    assert new_event("link.created", "01a1", NOW, {"id": "x", "v": "9", "type": "y", "time": "z"})["id"] == "01a1"


@pytest.mark.parametrize(("kind", "fields"), [("link.made", {}), ("link.created", {"token": "ey…"})])
def test_what_is_not_documented_is_not_written(kind: str, fields: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"no type of event|no field token"):
        new_event(kind, "01a1", NOW, fields)


def test_values_are_cleaned_and_bounded() -> None:
    event = new_event(
        "link.opened", "1", NOW, {"user_agent.original": "x" * 9999, "file.key": "é" * 9999, "rule": "a\r\nb"}
    )
    assert (len(event["user_agent.original"]), len(event["file.key"]), event["rule"]) == (512, 1024, "a��b")


@given(st.text(st.characters(codec=None), max_size=2000))
def test_whatever_comes_in_can_be_stored_and_printed_on_one_line(text: str) -> None:
    cleaned = clean(text)
    assert len(cleaned.encode()) <= 4096
    assert len(cleaned.splitlines()) <= 1
    assert "\x1b" not in cleaned
    assert clean(cleaned) == cleaned


@pytest.mark.parametrize(
    ("time_ms", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1, "1970-01-01T00:00:00.001Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
        (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
    ],
)
def test_times(time_ms: int, text: str) -> None:
    assert rfc3339(time_ms) == text


def test_times_beyond_the_calendar_are_refused() -> None:
    with pytest.raises(ValueError, match=r"outside|out of range"):
        rfc3339(10**18)


@pytest.mark.parametrize("name", [*FIELDS, *TYPES])
def test_everything_is_documented(name: str) -> None:
    assert name in DOCUMENTED


def test_nothing_else_is_documented() -> None:
    assert sorted(DOCUMENTED) == sorted({*FIELDS, *TYPES})
