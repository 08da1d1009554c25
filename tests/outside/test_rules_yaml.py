"""Files made to be misread, as rules: each is refused with a sentence, in time and memory that a reload can spare."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".." / "shared" / "material" / "yaml"
FILES = sorted(FOLDER.glob("*.yaml"))
MEMORY = 512 * 1024**2
CPU_SECONDS = 20
pytestmark = pytest.mark.skipif(not FILES, reason="the collected test material is not beside this checkout")

NO_RULES = ("otherwise: is missing", "version: is missing")
WHOLE: dict[str, tuple[str, ...]] = {
    "billion_laughs": ("aliases",),
    "bool_number": ("max_downloads is no key of a rules file", "max3 is no key"),
    "comment_only": NO_RULES,
    "custom_tag": ("1: has a tag (!…); rules need none, remove it",),
    "deep_block": ("is nested deeper than 32 levels; rules are flatter",),
    "dup_keys": ("4: default: is there twice, first at ",),
    "dup_merge": ("3: rules[0].<<: << is no key of a rule",),
    "dup_nested": ("4: action: is there twice, first at ",),
    "homoglyph": ("deny_countries is no key of a rules file",),
    "latin2": ("1: is not UTF-8; save the file as UTF-8",),
    "long_line": ("x is no key of a rules file",),
    "lowercase": ("deny_countries is no key of a rules file",),
    "merge_bomb": ("has more than 300000 values, aliases expanded; rules have fewer",),
    "nbsp": ("2: is not YAML",),
    "norway_key": ("countries is no key of a rules file",),
    "nul": ("is not YAML",),
    "numbers": ("asn is no key of a rules file",),
    "quadratic": ("aliases",),
    "regex_dos": ("2: rules[0].ua_regex: ua_regex is no key of a rule",),
    "self_ref": ("has an alias (*…) to nothing that was complete before it",),
    "smart_quotes": ("name is no key of a rules file",),
    "truncated_to_empty": NO_RULES,
    "unknown_key": ("deny_contries is no key of a rules file",),
    "utf8_bom": ("default is no key of a rules file",),
}
"""What is said of each file as it is. Only what the collection has is tried."""

READ = """
import json, sys
from pathlib import Path
from gateway.backends.rules_file import read_rules
from gateway.errors import SettingsError
try:
    read_rules(Path(sys.argv[1]), None)
    print(json.dumps([]))
except SettingsError as error:
    print(json.dumps(str(error).splitlines()))
"""


def bounded() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))


def mistakes(path: Path) -> list[str]:
    """All that is said of this file, by a process that cannot take the machine with it."""
    done = subprocess.run(
        [sys.executable, "-c", READ, str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=CPU_SECONDS * 2,
        preexec_fn=bounded,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [line.removeprefix(f"{path}:") for line in json.loads(done.stdout)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_trap_is_refused_with_a_sentence(path: Path) -> None:
    found = mistakes(path)
    missing = [expected for expected in WHOLE[path.stem] if not any(expected in line for line in found)]
    assert not missing, found[:5]


def within(folder: Path, name: str, wrapped: str, **renamed: str) -> list[str]:
    """What is said of the material's values where our grammar has a place for them."""
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    for old, new in renamed.items():
        text = text.replace(f"{old}:", f"{new}:")
    path = folder / "rules.yaml"
    path.write_text(f"version: 1\notherwise: allow\n{wrapped}\n{textwrap.indent(text, '      ')}", encoding="utf-8")
    return [line.split(": ", 1)[1] for line in mistakes(path)]


RULE = "rules:\n  - name: a\n    then: deny\n    when:"


def test_numbers_that_are_not_decimal_are_no_as_numbers(tmp_path: Path) -> None:
    found = within(tmp_path, "numbers", RULE)
    values = ["013335", "0o755", "0x10", "1_000", "1e3", "12e03", ".5", "+1", "1:30", "190:20:30", "0b11"]
    assert sorted(line.split("'")[1] for line in found) == sorted(values)
    assert all(" is no AS number; write a number from 1 to " in line for line in found)


def test_countries_in_other_spellings_are_told_how_they_are_spelt(tmp_path: Path) -> None:
    assert within(tmp_path, "lowercase", RULE, deny_countries="country") == [
        "rules[0].when.country[0]: 'ru' is no country code; write RU",
        "rules[0].when.country[1]: 'Ru' is no country code; write RU",
        "rules[0].when.country[2]: ' RU' is no country code; write RU",
        "rules[0].when.country[3]: 'XX' is no country of ISO 3166-1; write two letters such as PL, or unknown",
        "rules[0].when.country[4]: 'UK' is no country code; write GB",
        "rules[0].when.country[5]: 'EU' is a continent; write continent: EU",
        "rules[0].when.country[6]: 'EN' is no country code; write GB",
    ]


@pytest.mark.parametrize("name", ["homoglyph", "smart_quotes"])
def test_letters_that_only_look_right_are_refused(tmp_path: Path, name: str) -> None:
    found = within(tmp_path, name, RULE, deny_countries="country")
    assert any("it has a character that is not plain A to Z" in line for line in found)


def test_norway_is_a_country_wherever_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(
        "version: 1\notherwise: allow\nlists: {NO: [NO, no]}\n"
        "rules: [{name: NO, when: {country: [NO, $NO]}, then: deny}]\n"
    )
    assert mistakes(path) == ["3: rules[0].when.country[1]: 'no' is no country code; write NO"]


def test_numbers_that_limit_nothing_are_refused(tmp_path: Path) -> None:
    names = {"max_downloads": "downloads", "max_ips": "networks", "concurrency": "concurrent", "expires": "valid_for"}
    found = within(tmp_path, "bool_number", "plans:\n  standard:", **names, max2="devices", max3="valid_after_first")
    assert sorted(line.split(": ")[0].split(".")[-1] for line in found) == sorted(
        ["downloads", "networks", "concurrent", "valid_for", "rate", "devices", "valid_after_first"]
    )


def test_the_byte_order_mark_changes_nothing(tmp_path: Path) -> None:
    with_mark = FOLDER / "utf8_bom.yaml"
    without = tmp_path / "rules.yaml"
    without.write_bytes(with_mark.read_bytes().removeprefix(b"\xef\xbb\xbf"))
    assert mistakes(without) == mistakes(with_mark)
