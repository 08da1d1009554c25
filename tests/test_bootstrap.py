"""That what the settings say reaches what it is for: a setting that is read and dropped protects nobody."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.backends import s3
from gateway.bootstrap import origin as wiring
from gateway.bootstrap.files import check_policy, read_rules
from gateway.errors import SettingsError
from gateway.settings import load
from gateway.settings_sections import OriginSettings

KEYS = "keys: [{kid: a, alg: HS256, secret: 0123456789012345678901234567890123456789, use: sign}]"
ORIGIN = {
    "url": "s3://shop-files/prefix",
    "endpoint": "https://s3.example.com",
    "region": "eu-central-1",
    "access_key": "AK",
    "secret_key": "SK",
    "session_token": "ST",
    "addressing": "virtual",
    "connect_timeout": "7s",
    "read_timeout": "8s",
}


def test_every_setting_of_the_origin_reaches_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(ORIGIN) == set(OriginSettings.model_fields)
    file = tmp_path / "gateway.yaml"
    origin = ", ".join(f'{name}: "{value}"' for name, value in ORIGIN.items())
    file.write_text(f"issuer: s\nredis: redis://127.0.0.1\n{KEYS}\norigin: {{{origin}}}\n")
    given: dict[str, object] = {}
    monkeypatch.setattr(s3, "S3Store", lambda url, **options: given.update(options, url=url))
    wiring.open_store(load(file, {}))
    wire = given.pop("wire")
    assert (wire.connect_timeout, wire.read_timeout) == (7, 8)
    assert given == {name: value for name, value in ORIGIN.items() if not name.endswith("_timeout")}


def test_rules_have_to_pass_their_tests(tmp_path: Path) -> None:
    file, tests = tmp_path / "gateway.yaml", tmp_path / "tests.yaml"
    file.write_text(
        f"issuer: s\nredis: redis://127.0.0.1\n{KEYS}\norigin: {{url: file:///srv}}\nrules: {tmp_path}/rules.yaml\n"
    )
    (tmp_path / "rules.yaml").write_text("version: 1\notherwise: allow\n")
    tests.write_text("- {given: {}, expect: deny}\n")
    settings = load(file, {})
    wrong = r"tests.yaml:1: tests\[0\]: expected deny, is allow by otherwise"
    for read in (read_rules, check_policy):
        with pytest.raises(SettingsError, match=wrong):
            read(settings)
    assert read_rules(settings, tested=False).otherwise
    tests.write_text("- {given: {}, expect: allow}\n")
    assert read_rules(settings).otherwise
