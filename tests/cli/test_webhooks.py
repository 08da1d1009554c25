"""`gateway webhooks test`, without a gateway: what it says of settings and addresses that are no good."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.cli.main import main

SECRET = "a secret of the shop, long enough"
ONE = {"url": "http://127.0.0.1:9/downloads?key=hidden", "secret": SECRET}
TWO = {"url": "https://shop.example.com/x", "secret": SECRET}


def run(folder: Path, webhooks: list[dict[str, str]], *arguments: str) -> int:
    settings = {
        "origin": {"url": "file:///srv/files"},
        "redis": "redis://127.0.0.1:9/0",
        "keys": [{"kid": "a", "alg": "HS256", "secret": "0123456789" * 4, "use": "sign"}],
        "issuer": "shop.example.com",
        "webhooks": webhooks,
    }
    config = folder / "gateway.yaml"
    config.write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        main(["webhooks", "test", "--config", str(config), *arguments])
    return int(str(ended.value.code))


@pytest.mark.parametrize(
    ("webhooks", "arguments", "status", "said"),
    [
        ([], (), 1, "the settings have no webhooks"),
        ([ONE, TWO], (), 2, "give --url the address of one"),
        ([ONE], ("--url", "https://elsewhere.example.com/?key=hidden"), 1, "has no such address"),
        ([ONE], ("--type", "no.such"), 2, "--type"),
    ],
)
def test_wrong_use_is_one_line_that_says_what_to_do(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    webhooks: list[dict[str, str]],
    arguments: tuple[str, ...],
    status: int,
    said: str,
) -> None:
    assert run(tmp_path, webhooks, *arguments) == status
    shown = capsys.readouterr()
    assert said in shown.err
    assert "hidden" not in shown.err + shown.out


@pytest.mark.parametrize("as_json", [False, True])
def test_an_endpoint_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    assert run(tmp_path, [ONE], *(["--json"] if as_json else [])) == 1
    shown = capsys.readouterr().out
    if as_json:
        assert json.loads(shown).items() >= {"outcome": "failed", "said": "no connection"}.items()
    else:
        assert shown.startswith("failed: no connection  (webhook-id ")
    assert "hidden" not in shown
