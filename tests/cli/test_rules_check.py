"""`gateway rules check` as ops run it: every mistake at its word, warnings, and what a good file holds."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

Run = Callable[..., CompletedProcess]
HEAD = "version: 1\notherwise: allow\n"
PAGE = (Path(__file__).parents[2] / "docs/rules-check.md").read_text(encoding="utf-8")
NOBODY = "Checked without settings: there is no config/gateway.yaml here; name them with --config.\n"


@pytest.fixture
def check(run: Run, tmp_path: Path) -> Run:
    """Runs it on these rules, in a file r.yaml, with the options behind them."""

    def checked(written: str, *options: str | Path, **environ: str) -> CompletedProcess:
        (tmp_path / "r.yaml").write_text(written, encoding="utf-8")
        return run("rules", "check", "r.yaml", *options, **environ)

    return checked


def rule(when: str = "{tier: x}", then: str = "deny", name: str = "a", more: str = "") -> str:
    return f"  - {{name: {name}, when: {when}, then: {then}{more}}}\n"


def test_a_mistake_is_shown_underlined_with_what_would_be_right(check: Run) -> None:
    shown = check(f"{HEAD}rules:\n  - name: a\n    when: {{contry: DE}}\n    then: deny\n")
    assert shown.returncode == 1
    assert shown.stderr == NOBODY
    assert shown.stdout == (
        "r.yaml:5:12: rules[0].when.contry: contry is no condition; did you mean country?\n"
        "    5 |     when: {contry: DE}\n"
        "      |            ^^^^^^\n"
        "r.yaml is not good: 1 mistake; the gateway would not take it over\n"
    )


@pytest.mark.parametrize(
    ("written", "word", "right"),
    [
        ("version: 1\notherwise: alow", "alow", "write allow or deny"),
        (f"{HEAD}rule: [x]", "rule", "did you mean rules?"),
        (f"{HEAD}plans: {{p: {{valid_for: 30d, downlods: 5}}}}", "downlods", "did you mean downloads?"),
        (f"{HEAD}plans: {{p: {{downloads: 5, rate: 2MB}}}}", "2MB", "such as 2MB/s"),
        (f"{HEAD}plans: {{p: {{downloads: 5, rate: }}}}", "rate", "give it a value or remove the line"),
        (f"{HEAD}plans: {{p: {{}}}}\ndefault_plan: q", "q", "add it under plans"),
        (f"{HEAD}lists: {{a: [x], b: []}}", "[]", "write a list of values"),
        (f"{HEAD}rules:\n{rule('{ip: $x}')}lists: {{xs: [1.2.3.4]}}", "$x", "did you mean $xs?"),
        *(
            (f"{HEAD}rules:\n{text}", word, right)
            for text, word, right in [
                (rule("{tier: x, continet: EU}"), "continet", "did you mean continent?"),
                (rule("{file: a, not: {tier: x, metod: GET}}"), "metod", "did you mean method?"),
                (rule("{country: [PL, pl]}"), "pl", "write PL"),
                (rule("{any: [{country: NO}, {country: UK}]}"), "UK", "write GB"),
                (rule("{tier: x, ip: 203.0.113.9/24}"), "203.0.113.9/24", "write 203.0.113.0/24, or 203.0.113.9"),
                (rule("{tier: x, time: {days: mon, hour: x}}"), "hour", "did you mean hours?"),
                (rule("{time: {days: monday}, tier: x}"), "monday", "write mon"),
                (rule("{tier: 日本語, żółć: x}"), "żółć", "write one of"),
                (rule(then="dney"), "dney", "did you mean deny?"),
                (rule(then="{limt: {rate: 1MB/s}}"), "limt", "did you mean limit?"),
                (rule(then="{limit: {rate: 1MB/s, rte: 1MB/s}}"), "rte", "did you mean rate?"),
                (rule(more=", mode: observ"), "observ", "write enforce or observe"),
                (rule(more=", mesage: x"), "mesage", "did you mean message?"),
                (rule(more=", since: soon"), "soon", "write a day, such as 2026-11-01"),
            ]
        ),
    ],
)
def test_the_underline_is_under_the_wrong_word_and_not_its_neighbour(
    check: Run, written: str, word: str, right: str
) -> None:
    shown = check(written, "--json")
    (mistake,) = json.loads(shown.stdout)["mistakes"]
    line = written.split("\n")[mistake["line"] - 1]
    assert line[mistake["column"] - 1 :][: mistake["width"]] == word
    assert right in mistake["text"]
    _, shown_line, underline, _ = check(written).stdout.splitlines()
    assert shown_line.endswith(f" | {line}")
    if line.isascii():
        assert "".join(a for a, b in zip(shown_line, underline, strict=False) if b == "^") == word


def test_mistakes_in_list_files_stand_there(check: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_text("203.0.113.9\n  10.0.0.1/8  # mine\n")
    written = f"{HEAD}lists: {{bad: {{file: bad.txt}}, gone: {{file: gone.txt}}}}\nrules:\n"
    shown = check(written + rule("{ip: $bad, country: [PL, X]}"))
    assert shown.returncode == 1
    assert re.findall(r"^\S+:\d+:\d+", shown.stdout, re.MULTILINE) == ["r.yaml:3:44", "r.yaml:5:46", "bad.txt:2:3"]
    assert "    2 |   10.0.0.1/8  # mine\n      |   ^^^^^^^^^^\n" in shown.stdout
    assert "write 10.0.0.0/8" in shown.stdout


def test_nothing_in_the_file_acts_on_the_terminal(check: Run) -> None:
    shown = check(f'{HEAD}rules: [{{name: "\u202e\u009b2J", when: {{contry: x}}, then: deny}}]')
    assert shown.returncode == 1
    assert all(letter.isprintable() for letter in shown.stdout.replace("\n", ""))


def test_what_is_no_yaml_is_shown_where_its_reader_stumbled(check: Run) -> None:
    shown = check(f"{HEAD}rules:\n  - {{name: a\n  - b: ]\n")
    assert shown.returncode == 1
    assert re.match(r"r\.yaml:\d+:\d+: is not YAML", shown.stdout)
    assert "      | " in shown.stdout


GOOD = """version: 1
plans: {standard: {downloads: 5}}
default_plan: standard
lists: {office: [203.0.113.0/24, 192.0.2.1], more: {file: more.txt}}
rules:
  - {name: office, when: {ip: [$office, $more]}, then: allow}
  - {name: embargo, when: {country: CU}, then: deny}
otherwise: allow
"""


def test_a_good_file_is_told_with_what_it_holds(check: Run, tmp_path: Path, config: Path) -> None:
    (tmp_path / "more.txt").write_text("".join(f"10.0.{at >> 8}.{at & 255}\n" for at in range(1234)))
    config.write_text(config.read_text() + "geo: {city: city.mmdb}\n")
    shown = check(GOOD, "--config", config)
    assert (shown.returncode, shown.stderr) == (0, "")
    told = r"r\.yaml is good: 1 plan, 2 rules, 2 lists \(1,236 entries\), version [0-9a-f]{12}; asks geo\.city\n"
    assert re.fullmatch(told, shown.stdout)


def test_without_a_file_the_settings_own_rules_are_checked(run: Run, tmp_path: Path, config: Path) -> None:
    (tmp_path / "own.yaml").write_text(f"{HEAD}rules:\n{rule()}")
    config.write_text(f"{config.read_text()}rules: {tmp_path}/own.yaml\n")
    assert (
        "own.yaml is good: 0 plans, 1 rule, 0 lists, version"
        in run("rules", "check", GATEWAY_CONFIG=str(config)).stdout
    )


def test_without_a_file_and_without_rules_it_is_wrongly_used(run: Run, config: Path) -> None:
    shown = run("rules", "check", "--config", config)
    assert (shown.returncode, shown.stdout) == (2, "")
    assert "name one: gateway rules check FILE" in shown.stderr


def test_of_the_settings_only_the_names_of_databases_are_needed(check: Run, tmp_path: Path) -> None:
    """Whoever checks a file need not have the gateway's secrets."""
    written = f"{HEAD}rules:\n{rule('{country: PL}')}{rule('{asn: 1}', name='b')}"
    settings = tmp_path / "config/gateway.yaml"
    settings.parent.mkdir()
    settings.write_text("redis: ${NOT_SET}\ngeo: {city: city.mmdb}\n")
    (mistake,) = json.loads(check(written, "--json").stdout)["mistakes"]
    assert (mistake["line"], mistake["text"]) == (5, "needs geo.asn in the settings; name the database there")
    shown = check(written, GATEWAY_GEO__ASN="asn.mmdb")
    assert (shown.returncode, shown.stderr) == (0, "")
    settings.write_text("redis: [")
    shown = check(written)
    assert shown.returncode == 0
    assert shown.stderr.startswith("Checked without settings: config/gateway.yaml:1: is not YAML")


WARNED = f"""{HEAD}lists:
  office: [203.0.113.0/24]
  unused: [PL]
rules:
  - {{name: office, when: {{ip: $office}}, then: allow}}
  - {{name: desk, when: {{ip: 203.0.113.9}}, then: deny}}
  - {{name: nobody, when: {{all: [{{tier: x}}, {{tier: y}}]}}, then: deny}}
  - {{name: abroad, when: {{not: {{country: PL}}}}, then: deny, mode: observe, since: 2026-01-31}}
  - {{name: network, when: {{region: PL-14, asn: 1}}, then: deny, since: 2999-01-01}}
"""
WARNINGS = [
    ("unused", "lists.unused", "is used by no rule; write $unused in one, or remove it"),
    (
        "desk",
        "rules[1]",
        "desk is never reached, office (r.yaml:7) decides all that it means; put it before that, or remove it",
    ),
    (
        "nobody",
        "rules[2]",
        "nobody means no request at all: its conditions exclude each other; correct them, or remove it",
    ),
    (
        "country",
        "rules[3].when.not.country",
        "needs geo.city in the settings, and no settings were found; see that they name it",
    ),
    ("2026-01-31", "rules[3]", "abroad has been observing since 2026-01-31, N days; enforce it, or remove it"),
    (
        "asn",
        "rules[4].when.asn",
        "needs geo.asn in the settings, and no settings were found; see that they name it",
    ),
    (
        "2999-01-01",
        "rules[4]",
        "network is since 2999-01-01, which lies ahead; write the day on which it came in",
    ),
]  # fmt: skip


def test_what_was_hardly_meant_is_a_warning_at_its_word(check: Run) -> None:
    shown = check(WARNED, "--json")
    document = json.loads(shown.stdout)
    assert shown.returncode == 0
    assert set(document) == {"file", "good", "version", "mistakes", "warnings"}
    assert (document["file"], document["good"], document["mistakes"]) == ("r.yaml", True, [])
    found = []
    for each in document["warnings"]:
        line = WARNED.split("\n")[each["line"] - 1]
        word = line[each["column"] - 1 :][: each["width"]]
        found.append((word, each["key"], re.sub(r"\d+ days", "N days", each["text"])))
    assert found == WARNINGS


def test_warnings_are_shown_and_refuse_only_where_that_is_asked(check: Run) -> None:
    shown = check(WARNED)
    assert shown.returncode == 0
    assert "\nr.yaml:8:12: warning: rules[1]: desk is never reached" in shown.stdout
    assert "is good, with 7 warnings: 0 plans, 5 rules, 2 lists (2 entries), version" in shown.stdout
    assert check(WARNED, "--strict").returncode == 1
    assert check(f"{HEAD}rules:\n{rule()}", "--strict").returncode == 0


@pytest.mark.parametrize(
    ("since", "file_days", "options", "warned"),
    [
        (None, 29, (), None),
        (None, 31, (), "31 days or longer"),
        (None, 3, ("--observe-max", "2d"), "3 days or longer"),
        (29, 300, (), None),
        (32, 0, (), "32 days; enforce it"),
        (32, 0, ("--observe-max", "1y"), None),
    ],
)
def test_the_age_of_an_observing_rule(
    run: Run, tmp_path: Path, since: int | None, file_days: int, options: tuple[str, ...], warned: str | None
) -> None:
    """By its own word, else at least as old as the file's last change."""
    now = time.time()
    day = "" if since is None else f", since: {time.strftime('%Y-%m-%d', time.gmtime(now - since * 86_400))}"
    path = tmp_path / "r.yaml"
    path.write_text(f"{HEAD}rules:\n{rule(more=f', mode: observe{day}')}{rule('{tier: y}', name='b')}")
    os.utime(path, (now, now - file_days * 86_400 - 60))
    warnings = json.loads(run("rules", "check", path, "--json", *options).stdout)["warnings"]
    assert [warned in each["text"] for each in warnings] == ([] if warned is None else [True])


def test_several_rules_together_are_named_together(check: Run) -> None:
    lines = "".join(rule(f"{{tier: t{at}}}", name=f"r{at}") for at in range(7))
    shown = check(f"{HEAD}rules:\n{lines}{rule('{tier: [t0, t1, t2, t3, t4, t5, t6]}')}")
    assert "together these decide all that it means: r0 (r.yaml:4), r1 (r.yaml:5)" in shown.stdout
    assert "r4 (r.yaml:8) and 2 more; put it before, or remove it" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("gone.yaml",), "does not exist"), (("r.yaml", "--observe-max", "30"), "write a number and a unit")],
)
def test_wrong_use(check: Run, run: Run, arguments: tuple[str, ...], said: str) -> None:
    check(HEAD)
    shown = run("rules", "check", *arguments)
    assert (shown.returncode, shown.stdout) == (2, "")
    assert said in shown.stderr


EXAMPLES = re.findall(r"```yaml\n(.*?)```\n.*?```console\n\$ gateway (.*?)\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize(("written", "command", "expected"), EXAMPLES, ids=["mistakes", "warnings"])
def test_the_page_shows_what_it_prints(run: Run, tmp_path: Path, written: str, command: str, expected: str) -> None:
    (tmp_path / "rules.yaml").write_text(written, encoding="utf-8")
    assert run(*command.split()).stdout == expected


def test_help_has_an_example(run: Run) -> None:
    assert "Example: gateway rules check rules/rules.yaml" in run("rules", "check", "--help").stdout


def test_a_test_beside_it_that_fails_is_a_mistake(run: Run, tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text("version: 1\notherwise: allow\n")
    (tmp_path / "tests.yaml").write_text("- {given: {}, expect: allow}\n- {name: none, given: {}, expect: deny}\n")
    shown = run("rules", "check", "rules.yaml")
    assert shown.returncode == 1
    assert 'tests.yaml:2:3: tests[1]: "none": expected deny, is allow by otherwise' in shown.stdout
    assert "    2 | - {name: none, given: {}, expect: deny}" in shown.stdout
    assert "rules.yaml is not good: 1 mistake; the gateway would not take it over" in shown.stdout


@pytest.mark.parametrize(
    ("when", "said"),
    [
        ("{before: 2020-01-01T00:00:00Z}", "is over, so the rule means nobody any more"),
        ("{user_agent: Bot}", "write *bot* for all"),
        ("{file: [masters, a.pdf]}", "write masters/** for all in a folder"),
        ('{user_agent: ["*bot*", "", "curl/8.5.0"]}', None),
        ("{file: [masters/a.wav, 'x/**']}", None),
        ("{before: 2999-01-01T00:00:00Z}", None),
        ("{network: [hosting, unknown]}", "denies nearly everybody, for most home addresses are in no Anonymous IP"),
        ("{network: unknown}", None),
        ("{network: [hosting, tor]}", None),
    ],
)
def test_what_is_likely_mistyped_is_a_warning(run: Run, tmp_path: Path, when: str, said: str | None) -> None:
    (tmp_path / "r.yaml").write_text(
        f"version: 1\nrules:\n  - {{name: a, when: {when}, then: deny}}\notherwise: allow\n"
    )
    shown = run("rules", "check", "r.yaml", GATEWAY_GEO__ANONYMOUS="a.mmdb")
    assert shown.returncode == 0
    assert ("warning: " in shown.stdout) == (said is not None)
    assert (said or "") in shown.stdout


def test_unknown_networks_may_be_met_with_less_than_a_denial(check: Run) -> None:
    limited = rule("{network: [hosting, unknown]}", "{limit: {rate: 1MB/s}}")
    assert "warning" not in check(f"{HEAD}rules:\n{limited}", GATEWAY_GEO__ANONYMOUS="a.mmdb").stdout


BEYOND = (
    f"{HEAD}plans: {{gold: {{downloads: 5, rate: 2MB/s}}, plain: {{downloads: 5}}}}\nrules:\n"
    f"{rule(then='{limit: {concurrent: 1}}')}{rule(name='b', then='{limit: {rate: 1MB/s}}', more=', mode: observe')}"
)


@pytest.mark.parametrize(
    ("doors", "warned"),
    [
        ("", []),
        ("doors: {nginx: {waive: [rate]}}", []),
        ("doors: {nginx: {redirect: /_gateway/}}", ["plans.gold.rate", "rules[0].then.limit.concurrent"]),
        ("doors: {nginx: {redirect: /_gateway/, waive: [rate]}}", ["rules[0].then.limit.concurrent"]),
        ("doors: {nginx: {redirect: /_gateway/, waive: [rate, concurrent]}}", []),
        (
            "doors: {secret: '${NOT_SET}', nginx: {redirect: /_gateway/, waive: [rate]}}",
            ["rules[0].then.limit.concurrent"],
        ),
        ("doors: {secret: 0123456789abcdef0, auth: {waive: [rate]}}", ["rules[0].then.limit.concurrent"]),
        ("doors: {nginx: {redirect: no path}}", []),
        ("doors: nginx", []),
    ],
)
def test_limits_that_a_door_of_the_settings_cannot_keep(check: Run, tmp_path: Path, doors: str, warned) -> None:
    (tmp_path / "gateway.yaml").write_text(f"issuer: x\n{doors}\n")
    found = json.loads(check(BEYOND, "--json", "--config", "gateway.yaml").stdout)
    assert [each["key"] for each in found["warnings"]] == warned
    for each in found["warnings"]:
        door = "auth" if "auth" in doors else "nginx"
        assert each["text"].startswith(f"cannot be kept by the door {door}, which the settings set up")
        assert each["text"].endswith(f"or waive it in the settings (doors.{door}.waive)")
        assert each["column"], "it is underlined"


def test_limits_that_a_door_cannot_keep_of_the_rules_that_the_settings_name(run: Run, config: Path, tmp_path) -> None:
    (tmp_path / "r.yaml").write_text(BEYOND)
    doors = "{secret: 0123456789abcdef0, nginx: {redirect: /_gateway/}}"
    config.write_text(f"{config.read_text()}rules: {tmp_path}/r.yaml\ndoors: {doors}\n")
    shown = run("rules", "check", "--config", config)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "warning: plans.gold.rate: cannot be kept by the door nginx" in shown.stdout
    assert run("rules", "check", "--strict", "--config", config).returncode == 1


@pytest.mark.parametrize(
    ("settings", "warned"),
    [
        ("", ["plans.p.bind_ip", "plans.p.new_device"]),
        ("orders: {url: 'sqlite:///x.db'}", ["plans.p.new_device"]),
        ("shops: [{name: a, kind: signed, secrets: [x]}]", ["plans.p.new_device"]),
        ("mail: {server: 'smtp://x', sender: a@example.com}", ["plans.p.bind_ip", "plans.p.new_device"]),
        ("orders: {}\nmail: {server: 'smtp://x', sender: a@example.com}", []),
    ],
)
def test_what_plans_ask_of_guests_and_the_settings_lack(check: Run, tmp_path: Path, settings: str, warned) -> None:
    (tmp_path / "gateway.yaml").write_text(f"issuer: x\n{settings}\n")
    text = f"{HEAD}plans: {{p: {{bind_ip: order, new_device: code}}, q: {{}}}}\n"
    found = json.loads(check(text, "--json", "--config", "gateway.yaml").stdout)
    assert [each["key"] for each in found["warnings"]] == warned
    assert all("which the settings have not" in each["text"] and each["column"] for each in found["warnings"])
