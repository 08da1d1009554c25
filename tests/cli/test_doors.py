"""`gateway doors`, and that the documentation's table is what it prints."""

from __future__ import annotations

import json
from pathlib import Path

from gateway.policy.fronts import FRONTS
from gateway.policy.limits import BY_NAME

PAGE = (Path(__file__).parents[2] / "docs/doors.md").read_text(encoding="utf-8")
BEGIN, END = "<!-- gateway doors --markdown -->\n", "<!-- end -->"


def cells(text: str, head: str) -> list[str]:
    """What stands behind this head in the table for people."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"{head}  ")]
    return line.removeprefix(head).split()


def test_the_table_of_the_documentation_is_the_one_in_force(run) -> None:
    shown = run("doors", "--markdown")
    assert (shown.returncode, shown.stderr) == (0, "")
    written = PAGE.partition(BEGIN)[2].partition(END)[0]
    assert written == shown.stdout, "renew it: put what `gateway doors --markdown` prints between the marks"


def test_every_door_has_a_line_on_what_to_choose() -> None:
    table = PAGE.partition("## Which one")[2].partition("\n## ")[0]
    assert [name for name in FRONTS if f"| `{name}`" not in table] == []


def test_each_limit_at_each_door(run) -> None:
    shown = run("doors").stdout
    assert shown.split()[: len(FRONTS)] == list(FRONTS)
    for name in BY_NAME:
        expected = ["kept" if name in front.limits else "refused" for front in FRONTS.values()]
        assert cells(shown, name) == expected
    assert all(f"\n{front.name} " in shown and front.about in shown for front in FRONTS.values())


def test_what_the_settings_waive_and_which_doors_they_set_up(run, config: Path) -> None:
    plain = run("doors", "--config", config).stdout
    assert "doors.nginx.redirect is not set" in plain
    with config.open("a") as file:
        file.write(
            "doors: {secret: 0123456789abcdef0, nginx: {redirect: /_gateway/, waive: [rate]}, mitm: {waive: [rate]}}\n"
        )
    shown = run("doors", "--config", config).stdout
    assert cells(shown, "rate") == ["kept", "waived", "waived", "refused"]
    assert cells(shown, "concurrent") == ["kept", "kept", "refused", "refused"]
    assert "trusted_proxies is empty" in shown
    with config.open("a") as file:
        file.write("trusted_proxies: [127.0.0.1/32]\n")
    found = {door["name"]: door for door in json.loads(run("doors", "--json", "--config", config).stdout)}
    assert found["nginx"]["limits"]["rate"] == "waived"
    assert found["nginx"]["state"] == found["http"]["state"] == "set up"
    assert found["mitm"]["state"] == "not possible: the origin is a folder"
    assert found["auth"]["state"] == "open to trusted_proxies"


def test_as_json(run) -> None:
    found = json.loads(run("doors", "--json").stdout)
    assert [door["name"] for door in found] == list(FRONTS)
    assert found[0]["limits"] == dict.fromkeys(BY_NAME, "kept")
    assert (found[2]["hands_over"], found[2]["origins"], found[2]["limits"]["rate"]) == (
        True,
        ["file", "s3"],
        "refused",
    )


def test_the_table_of_the_documentation_is_of_no_settings(run) -> None:
    assert run("doors", "--markdown", GATEWAY_CONFIG="none.yaml").stdout == run("doors", "--markdown").stdout
    shown = run("doors", "--markdown", "--json")
    assert (shown.returncode, shown.stdout) == (2, "")
    assert "name either --markdown or --json" in shown.stderr
