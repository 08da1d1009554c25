"""What `gateway doctor` says of the shop's provider."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from accounts.people import Provider

Run = Callable[..., subprocess.CompletedProcess[str]]
SETTINGS = """\
redis: redis://127.0.0.1:1
origin: {{url: "file://{folder}"}}
issuer: shop.example.com
public_url: https://dl.example.com
keys: [{{kid: a, alg: HS256, secret: wmW3aYQ2ZLx0f9Jt7HcVkR5uB1nEoGdS, use: sign}}]
accounts: {{secret: wmW3aYQ2ZLx0f9Jt7HcVkR5uB1nEoGdS, {way}}}
"""
HANDOVER = (
    "handover: {login_url: 'https://shop.example.com/in', issuer: shop, secret: 0123456789012345678901234567890123}"
)


def said(run: Run, folder: Path, way: str) -> tuple[str, str]:
    """The state and the words of the check."""
    path = folder / "gateway.yaml"
    path.write_text(SETTINGS.format(folder=folder, way=way))
    shown = run("doctor", "--config", path).stdout
    [line] = [line for line in shown.splitlines() if re.match(r"\S+ +accounts ", line)]
    state, _, text = line.partition("accounts")
    return state.strip(), text.strip()


def test_the_provider_is_the_one_that_is_meant(run: Run, tmp_path: Path, provider: Provider) -> None:
    state, text = said(run, tmp_path, f"oidc: {{issuer: '{provider.issuer}', client_id: us}}")
    assert state == "ok"
    assert "https://dl.example.com/account/return" in text
    state, text = said(run, tmp_path, f"oidc: {{issuer: '{provider.issuer}/', client_id: us}}")
    assert state == "FAIL"
    assert "accounts.oidc.issuer" in text


@pytest.mark.parametrize(
    ("way", "state", "text"),
    [
        ("oidc: {issuer: 'http://127.0.0.1:1', client_id: us}", "FAIL", "cannot be reached"),
        (HANDOVER, "ok", "https://dl.example.com/account/enter"),
    ],
)
def test_other_ways(run: Run, tmp_path: Path, way: str, state: str, text: str) -> None:
    found = said(run, tmp_path, way)
    assert found[0] == state
    assert text in found[1]
