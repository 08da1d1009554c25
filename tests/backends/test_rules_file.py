"""The rules file and its list files as they lie on a disk: whole, broken, odd, swapped."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Collection
from ipaddress import ip_address
from pathlib import Path

import pytest

from gateway.backends.rules_file import LIST_SIZE_MAX, RulesFile, read_rules
from gateway.errors import SettingsError
from gateway.policy.model import Claims, Facts, FileEntry, Place
from gateway.policy.ruleset import RuleSet

HEAD = "version: 1\notherwise: allow\n"
BLOCK = HEAD + "lists: {bad: {file: lists/bad.txt}}\nrules: [{name: block, when: {ip: $bad}, then: deny}]\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "lists").mkdir()
    return tmp_path / "rules.yaml"


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def mistakes(path: Path, databases: Collection[str] | None = None) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        read_rules(path, databases)
    return [line.replace(f"{path.parent}/", "") for line in str(caught.value).splitlines()]


def denied(rules: RuleSet, address: str) -> bool:
    claims = Claims(issuer="s", token_id="t", expires_at=1, files=())
    facts = Facts(claims, FileEntry("a"), None, ip_address(address), Place(), "GET", "", 0)
    return not rules.judge(facts).allowed


def test_a_file_with_its_lists(path: Path) -> None:
    write(path, BLOCK)
    write(
        path.parent / "lists/bad.txt",
        "# of today\r\n203.0.113.0/24\r\n\r\n  2001:db8::/32 # a whole net\n198.51.100.7\t# one\n#192.0.2.1\n",
    )
    rules = read_rules(path, ())
    assert [denied(rules, each) for each in ("203.0.113.9", "2001:db8:1::", "198.51.100.7")] == [True] * 3
    assert [denied(rules, each) for each in ("203.0.114.0", "192.0.2.1", "198.51.100.8")] == [False] * 3


def test_the_version_is_the_hash_of_everything_that_was_read(path: Path) -> None:
    write(path, HEAD)
    assert read_rules(path, None).version == hashlib.sha256(HEAD.encode()).hexdigest()[:12]
    write(path, BLOCK)
    bad = write(path.parent / "lists/bad.txt", "10.0.0.0/8\n")
    first = read_rules(path, None).version
    assert read_rules(path, None).version == first
    write(bad, "10.0.0.0/9\n")
    assert read_rules(path, None).version != first


def test_a_list_file_may_stand_anywhere_and_a_link_leads_to_it(path: Path, tmp_path: Path) -> None:
    elsewhere = write(tmp_path / "elsewhere.txt", "10.0.0.0/8\n")
    (path.parent / "lists/bad.txt").symlink_to(elsewhere)
    assert denied(read_rules(write(path, BLOCK), None), "10.1.1.1")
    assert denied(read_rules(write(path, BLOCK.replace("lists/bad.txt", str(elsewhere))), None), "10.1.1.1")


def test_every_mistake_is_told_at_once_in_the_order_of_the_files(path: Path) -> None:
    write(path.parent / "lists/bad.txt", "10.0.0.0/8\n\n10.0.0.1/8 # typo\n\u00f3\n")
    write(
        path,
        """\
version: 2
plans:
  standard: {downloads: 0, speed: 2MB/s}
default_plan: standart
lists:
  bad: {file: lists/bad.txt}
  gone: {file: lists/gone.txt}
  empty: []
  nested: [$bad]
  half: [PL,]
  none:
rules:
  - name: block
    when: {ip: $bad, contry: PL}
    then: dney
  - name: block
    when: {country: [pl, XX]}
    then: deny
  - {name: empty, when: {}, then: allow}
  - {name: everybody, then: allow}
oterwise: allow
""",
    )
    assert mistakes(path, ()) == [
        (
            "lists/bad.txt:3: rules[0].when.ip: '10.0.0.1/8' has host bits set; "
            "write 10.0.0.0/8, or 10.0.0.1 for one address"
        ),
        (
            "lists/bad.txt:4: rules[0].when.ip: '\u00f3' is no address or network; "
            "write an address or a network, such as 203.0.113.9 or 203.0.113.0/24"
        ),
        "rules.yaml:1: otherwise: is missing; write otherwise: allow, or otherwise: deny",
        "rules.yaml:1: version: '2' is not what can stand here; write 1",
        (
            "rules.yaml:3: plans.standard.downloads: '0' is not a whole number from 1 to 1000000000000; "
            "write one in digits alone, such as 5, or remove the line for no limit"
        ),
        (
            "rules.yaml:3: plans.standard.speed: speed is no limit; write one of bind_ip, concurrent, devices, "
            "downloads, networks, new_device, rate, renewals, valid_after_first, valid_for, view"
        ),
        "rules.yaml:4: default_plan: standart is no plan; did you mean standard?",
        (
            "rules.yaml:7: lists.gone: lists/gone.txt cannot be read (No such file or directory); "
            "name a readable file, from the rules file's folder on"
        ),
        "rules.yaml:8: lists.empty: is empty; write a list of values, or {file: lists/name.txt}",
        "rules.yaml:9: lists.nested[0]: is the name of a list; name both lists in the rule: [$a, $b]",
        "rules.yaml:11: lists.none: has no value; write a list of values, or {file: lists/name.txt}",
        "rules.yaml:14: rules[0].when.contry: contry is no condition; did you mean country?",
        "rules.yaml:15: rules[0].then: dney is no action; did you mean deny?",
        (
            "rules.yaml:16: rules[1].name: 'block' is there twice, first at rules.yaml:13; "
            "give each rule a name of its own"
        ),
        "rules.yaml:17: rules[1].when.country: needs geo.city in the settings; name the database there",
        "rules.yaml:17: rules[1].when.country[0]: 'pl' is no country code; write PL",
        (
            "rules.yaml:17: rules[1].when.country[1]: 'XX' is no country of ISO 3166-1; "
            "write two letters such as PL, or unknown"
        ),
        "rules.yaml:19: rules[2].when: is empty; name at least one condition, such as {country: PL}",
        "rules.yaml:20: rules[3].when: is missing; say whom it means, such as when: {country: PL}",
        "rules.yaml:21: oterwise: oterwise is no key of a rules file; did you mean otherwise?",
    ]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\xef\xbb\xbf" + BLOCK.encode(), None),
        (BLOCK.replace("\n", "\r\n").encode(), None),
        (b"# Za\xbf\xf3\xb3\xe6\n" + BLOCK.encode(), "rules.yaml:1: is not UTF-8; save the file as UTF-8"),
        (BLOCK.encode("utf-16"), "rules.yaml:1: is not UTF-8; save the file as UTF-8"),
        (BLOCK.encode() + b"#\0\n", "rules.yaml:5: is not YAML (a control character"),
        (BLOCK.replace("when: {ip", "when:\u00a0{ip").encode(), "rules.yaml:4: is not YAML"),
        (
            BLOCK.replace("$bad", "\u201c$bad\u201d").encode(),
            "rules.yaml:4: rules[0].when.ip: '\u201c$bad\u201d' is no address",
        ),
        (BLOCK.replace("$bad", "*bad").encode(), "rules.yaml:4: has an alias (*\u2026) to nothing"),
        (BLOCK.replace("{ip", "!x {ip").encode(), "rules.yaml:4: has a tag (!\u2026); rules need none, remove it"),
        (BLOCK.encode() + b"---\n" + BLOCK.encode(), "rules.yaml:5: starts a second document (---); keep one"),
        (BLOCK.encode() + BLOCK.encode(), "rules.yaml:5: version: is there twice, first at rules.yaml:1; keep one"),
        (rb'a: "\UFFFFFFFF"', "rules.yaml:1: is not YAML; mind special characters, escapes and quotes"),
        (b"- a\n", "rules.yaml:1: is no mapping; write one `name: value` a line"),
        (b"", "rules.yaml:1: otherwise: is missing; write otherwise: allow, or otherwise: deny"),
        (b"\n\n# nothing\n", "rules.yaml:1: otherwise: is missing; write otherwise: allow, or otherwise: deny"),
        (
            HEAD.encode() + b"x: " + b"[" * 40 + b"]" * 40,
            "rules.yaml:3: is nested deeper than 32 levels; rules are flatter",
        ),
        (b"#" * (4 * 1024**2 + 1), "rules.yaml: is larger than 4 MiB; make it smaller"),
        (
            HEAD.encode() + b"lists:\n",
            "rules.yaml:3: lists: names no list; write `name: [a, b]` lines under it or remove it",
        ),
    ],
)
def test_what_editors_and_accidents_make_of_a_file(path: Path, data: bytes, expected: str | None) -> None:
    write(path.parent / "lists/bad.txt", "10.0.0.0/8\n")
    write(path, data)
    if expected is None:
        assert denied(read_rules(path, None), "10.1.1.1")
    else:
        assert mistakes(path)[0].startswith(expected)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\xef\xbb\xbf10.0.0.0/8\r\n", None),
        (b"10.0.0.0/8", None),
        (b"", "lists/bad.txt: lists.bad: is empty; write one entry a line"),
        (b"# none\n\n  \n", "lists/bad.txt: lists.bad: is empty; write one entry a line"),
        (b"10.0.0.0/8\n\xff\n", "lists/bad.txt:2: is not UTF-8; save the file as UTF-8"),
        (b"10.0.0.0/8\n$other\n", "lists/bad.txt:2: rules[0].when.ip: '$other' is no address or network"),
        (b"10.0.0.0/8\n\0\n", "lists/bad.txt:2: rules[0].when.ip: '?' is no address or network"),
        (
            b"10.0.0.0/8 192.0.2.1\n",
            "lists/bad.txt:1: rules[0].when.ip: '10.0.0.0/8 192.0.2.1' is no address or network",
        ),
        (b"#" * (LIST_SIZE_MAX + 1), "lists/bad.txt: lists.bad: is larger than 16 MiB; make it smaller"),
    ],
)
def test_list_files(path: Path, data: bytes, expected: str | None) -> None:
    write(path, BLOCK)
    write(path.parent / "lists/bad.txt", data)
    if expected is None:
        assert denied(read_rules(path, None), "10.1.1.1")
    else:
        assert mistakes(path)[0].startswith(expected)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("{file: lists}", "rules.yaml:3: lists.bad: lists is no regular file; name a readable file"),
        ("{file: lists/pipe}", "rules.yaml:3: lists.bad: lists/pipe is no regular file; name a readable file"),
        ("{file: /dev/zero}", "rules.yaml:3: lists.bad: /dev/zero is no regular file; name a readable file"),
        ("{file: loop}", "rules.yaml:3: lists.bad: loop cannot be read (Too many levels of symbolic links)"),
        ('{file: "a\\0b"}', "rules.yaml:3: lists.bad: a?b cannot be read (no possible path)"),
        ("{file: }", "rules.yaml:3: lists.bad: is no list; write a list of values, or {file: lists/name.txt}"),
        ("{file: [a]}", "rules.yaml:3: lists.bad: is no list; write a list of values, or {file: lists/name.txt}"),
        (
            "{file: a, lines: 3}",
            "rules.yaml:3: lists.bad: is no list; write a list of values, or {file: lists/name.txt}",
        ),
        ("{}", "rules.yaml:3: lists.bad: is no list; write a list of values, or {file: lists/name.txt}"),
        ("[[10.0.0.0/8]]", "rules.yaml:3: lists.bad[0]: is not one single value; write a list of values"),
        ("[10.0.0.0/8, null]", "rules.yaml:3: lists.bad[1]: has no value; write a list of values"),
        ("$bad", "rules.yaml:3: lists.bad: is the name of a list; name both lists in the rule: [$a, $b]"),
    ],
)
def test_lists_that_are_none(path: Path, written: str, expected: str) -> None:
    os.mkfifo(path.parent / "lists/pipe")
    (path.parent / "loop").symlink_to("loop")
    found = mistakes(write(path, BLOCK.replace("{file: lists/bad.txt}", written)))
    assert found[0].startswith(expected)
    assert not any("$bad is no list" in line for line in found)


def test_a_list_may_be_one_value_and_needs_no_user(path: Path) -> None:
    write(
        path, HEAD + "lists: {one: 10.0.0.0/8, unused: [\u00f3]}\nrules: [{name: a, when: {ip: [$one]}, then: deny}]\n"
    )
    assert denied(read_rules(path, None), "10.1.1.1")


@pytest.mark.parametrize("name", ["gone.yaml", "lists", "pipe", "loop"])
def test_a_rules_file_that_is_no_file(path: Path, name: str) -> None:
    os.mkfifo(path.parent / "pipe")
    (path.parent / "loop").symlink_to("loop")
    (line,) = mistakes(path.parent / name)
    assert line.startswith(f"{name}: ")
    assert line.endswith("; name a readable file")


@pytest.mark.parametrize(
    ("zone", "expected"),
    [
        ("Europe/Warsaw", None),
        ("UTC", None),
        ("europe/warsaw", "'europe/warsaw' is no time zone of the IANA database; did you mean Europe/Warsaw?"),
        *(
            (name, f"'{name}' is no time zone of the IANA database; ")
            for name in ("localtime", "right/Europe/Warsaw", "../../etc/passwd", "/etc/passwd", "Europe", "", "+01:00")
        ),
    ],
)
def test_time_zones(path: Path, zone: str, expected: str | None) -> None:
    rule = f"rules: [{{name: a, when: {{time: {{days: mon, zone: '{zone}'}}}}, then: deny}}]\n"
    write(path, HEAD + rule)
    if expected is None:
        read_rules(path, None)
    else:
        (line,) = mistakes(path)
        assert line.startswith(f"rules.yaml:3: rules[0].when.time.zone: {expected}")


@pytest.mark.parametrize(
    ("databases", "missing"),
    [
        (None, []),
        (("city", "asn", "anonymous"), []),
        (("asn",), ["city", "anonymous"]),
        ((), ["city", "asn", "anonymous"]),
    ],
)
def test_a_condition_whose_database_the_settings_lack_is_refused(
    path: Path, databases: tuple[str, ...] | None, missing: list[str]
) -> None:
    write(
        path,
        HEAD + "rules:\n"
        "  - {name: a, when: {country: PL}, then: deny}\n"
        "  - {name: b, when: {not: {asn: 64496}}, then: deny}\n"
        "  - {name: c, mode: observe, when: {network: vpn}, then: deny}\n",
    )
    if not missing:
        assert read_rules(path, databases).needs == {"city", "asn", "anonymous"}
    else:
        found = mistakes(path, databases)
        assert [line.split("needs geo.")[1].split()[0] for line in found] == missing
        assert [line.split(":")[1] for line in found] == [
            {"city": "4", "asn": "5", "anonymous": "6"}[name] for name in missing
        ]


def test_the_fingerprint_tells_every_change_of_every_file(path: Path, tmp_path: Path) -> None:
    bad = write(path.parent / "lists/bad.txt", "10.0.0.0/8\n")
    file = RulesFile(write(path, BLOCK), None)
    file.read()
    seen = [file.fingerprint()]

    def has_changed() -> bool:
        seen.append(file.fingerprint())
        return seen[-1] != seen[-2]

    assert not has_changed()
    write(bad, "10.0.0.0/9\n")
    assert has_changed()
    os.utime(path)
    assert has_changed()
    write(tmp_path / "new", BLOCK).replace(path)
    assert has_changed()
    bad.unlink()
    assert has_changed()
    path.unlink()
    assert has_changed()
    assert not has_changed()


def test_a_list_file_is_watched_even_while_the_rules_are_wrong(path: Path) -> None:
    file = RulesFile(write(path, BLOCK), None)
    with pytest.raises(SettingsError):
        file.read()
    before = file.fingerprint()
    write(path.parent / "lists/bad.txt", "10.0.0.0/8\n")
    assert file.fingerprint() != before


def test_the_fingerprint_sees_a_folder_swapped_behind_a_link(path: Path) -> None:
    for name in ("one", "two"):
        (path.parent / name).mkdir()
        write(path.parent / name / "rules.yaml", HEAD)
    (path.parent / "..data").symlink_to("one")
    path.symlink_to("..data/rules.yaml")
    file = RulesFile(path, None)
    file.read()
    before = file.fingerprint()
    (path.parent / "..tmp").symlink_to("two")
    (path.parent / "..tmp").replace(path.parent / "..data")
    assert file.fingerprint() != before


def test_a_copy_outlives_the_files_and_says_what_they_said(path: Path) -> None:
    bad = write(path.parent / "lists/bad.txt", "\ufeff10.0.0.0/8 # \u00f3\r\n")
    file = RulesFile(write(path, BLOCK), None)
    version = file.read().version
    copy = file.take_copy()
    assert copy is not None
    bad.write_text("nonsense")
    path.unlink()
    with pytest.raises(SettingsError):
        file.read()
    other = RulesFile(path, None)
    rules = other.read_copy(copy.read())
    assert rules.version == version
    assert denied(rules, "10.1.1.1")
    assert not denied(rules, "11.1.1.1")
    with pytest.raises(SettingsError, match="cannot be read"):
        RulesFile(path.with_name("another.yaml"), None).read_copy(copy.read())
    with pytest.raises(OSError, match="not permitted"):
        os.write(copy.fileno(), b"version: 1")


def test_large_files_are_read_in_time_and_judged_at_once(path: Path) -> None:
    lines = [f"10.{number >> 8}.{number & 255}.0/24" for number in range(10_000)]
    inline = "".join(f"    - {line}\n" for line in lines)
    rules = "".join(
        f"  - {{name: r{number}, when: {{ip: $bad, tier: t{number}, file: 'x{number}/**'}}, then: deny}}\n"
        for number in range(300)
    )
    write(path, f"{HEAD}lists:\n  bad:\n{inline}rules:\n{rules}  - {{name: last, when: {{ip: $bad}}, then: deny}}\n")
    began = time.process_time()
    found = read_rules(path, None)
    assert time.process_time() - began < 3
    began = time.process_time()
    for _ in range(1000):
        assert denied(found, "10.39.15.7")
        assert not denied(found, "10.39.16.7")
    assert time.process_time() - began < 0.5


TESTED = HEAD + "rules: [{name: block, when: {ip: 10.0.0.0/8}, then: deny}]\n"
PASSES = "- {name: ten, given: {ip: 10.0.0.1}, expect: deny, by: block}\n"
FAILS = "- {name: eleven, given: {ip: 11.0.0.1}, expect: deny}\n"


def failing(path: Path) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        read_rules(path, None, tested=True)
    return [line.replace(f"{path.parent}/", "") for line in str(caught.value).splitlines()]


def test_tests_beside_the_file_are_run_where_that_is_wanted(path: Path) -> None:
    write(path, TESTED)
    untested = read_rules(path, None, tested=True).version
    tests = write(path.parent / "tests.yaml", PASSES)
    # What decides is the same, and the version names what decides.
    assert read_rules(path, None, tested=True).version == untested
    write(tests, PASSES + FAILS + FAILS)
    assert failing(path) == [
        'tests.yaml:2: tests[1]: "eleven": expected deny, is allow by otherwise',
        'tests.yaml:3: tests[2]: "eleven": expected deny, is allow by otherwise',
    ]
    assert read_rules(path, None).version == untested


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "tests.yaml:1: is empty; write one `- "),
        ("# none yet\n", "tests.yaml:1: is empty; write one `- "),
        ("- {", "tests.yaml:1: is not YAML"),
        (b"- \xff", "tests.yaml:1: is not UTF-8"),
        ("a: b", "tests.yaml:1: is no list; write one `- "),
    ],
)
def test_a_file_of_tests_that_is_empty_or_broken_is_a_mistake(path: Path, text: str | bytes, expected: str) -> None:
    write(path, TESTED)
    write(path.parent / "tests.yaml", text)
    (line,) = failing(path)
    assert line.startswith(expected)


def test_tests_that_cannot_be_read_are_not_no_tests(path: Path) -> None:
    write(path, TESTED)
    (path.parent / "tests.yaml").symlink_to("nowhere")
    assert failing(path) == [
        "tests.yaml: cannot be read (No such file or directory); make it a readable file, or remove it"
    ]


def test_rules_with_mistakes_are_not_tested(path: Path) -> None:
    write(path, TESTED.replace("deny}]", "dney}]"))
    write(path.parent / "tests.yaml", FAILS)
    assert [line.partition(" ")[0] for line in failing(path)] == ["rules.yaml:3:"]


def test_the_fingerprint_tells_of_the_tests_too(path: Path) -> None:
    write(path, TESTED)
    tests = path.parent / "tests.yaml"
    file, plain = RulesFile(path, None, tested=True), RulesFile(path, None)
    unwatched, seen = plain.fingerprint(), [file.fingerprint()]
    for change in (lambda: write(tests, PASSES), lambda: write(tests, FAILS), tests.unlink):
        change()
        seen.append(file.fingerprint())
    assert len(set(seen)) == len(seen) - 1
    assert seen[0] == seen[-1]
    assert plain.fingerprint() == unwatched


def test_a_copy_is_good_whatever_the_tests_say_now(path: Path) -> None:
    write(path, TESTED)
    tests = write(path.parent / "tests.yaml", PASSES)
    file = RulesFile(path, None, tested=True)
    version = file.read().version
    copy = file.take_copy()
    assert copy is not None
    write(tests, FAILS)
    with pytest.raises(SettingsError):
        file.read()
    rules = RulesFile(path, None, tested=True).read_copy(copy.read())
    assert (rules.version, denied(rules, "10.1.1.1")) == (version, True)


def test_a_thousand_tests_hold_up_no_reload(path: Path) -> None:
    write(path, TESTED)
    write(path.parent / "tests.yaml", PASSES * 1000)
    began = time.process_time()
    read_rules(path, None, tested=True)
    assert time.process_time() - began < 2
