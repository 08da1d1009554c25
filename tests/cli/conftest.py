"""Commands as people run them, against a real Redis: many in this process, the telling ones as processes."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.cli.demo_geo import build_demo_databases
from gateway.cli.main import main

Run = Callable[..., subprocess.CompletedProcess[str]]
SECRET = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def config(tmp_path: Path, redis_db: str) -> Path:
    """Settings for the empty private Redis."""
    path = tmp_path / "settings.yaml"
    path.write_text(
        f"redis: {redis_db}\norigin: {{url: file:///srv/files}}\nissuer: shop.example.com\n"
        f"public_url: https://dl.example.com\nshards: 4\n"
        f"keys: [{{kid: a, alg: HS256, secret: {SECRET}, use: sign}}]\n"
    )
    return path


@pytest.fixture
def here(tmp_path: Path, config: Path) -> Path:
    """A folder laid out as the docs suppose it: rules that the settings name, and the demo's geo databases."""
    geo = ", ".join(f'{name}: "{path}"' for name, path in build_demo_databases(tmp_path).items())
    (tmp_path / "rules/lists").mkdir(parents=True)
    (tmp_path / "config").mkdir()
    (tmp_path / "config/gateway.yaml").write_text(f"{config.read_text()}rules: rules/rules.yaml\ngeo: {{{geo}}}\n")
    return tmp_path


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `gateway …` in this process, in an empty folder; keywords are environment variables."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("GATEWAY_")]:
        monkeypatch.delenv(name)

    def gateway(*arguments: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
        given = [*map(str, arguments)]
        capsys.readouterr()
        with monkeypatch.context() as patched:
            for name, value in environ.items():
                patched.setenv(name, value)
            with pytest.raises(SystemExit) as left:
                main(given)
        said = capsys.readouterr()
        assert isinstance(left.value.code, int)
        return subprocess.CompletedProcess(given, left.value.code, said.out, said.err)

    return gateway


@pytest.fixture
def environ() -> dict[str, str]:
    """The environment of a process of its own, which finds this checkout from every folder and no settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    return kept | {"PYTHONPATH": str(Path(__file__).parents[2])}


@pytest.fixture
def process(tmp_path: Path, environ: dict[str, str]) -> Run:
    """Runs `gateway …` as a process of its own, in an empty folder, for 30 s at most."""

    def gateway(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "gateway", *map(str, arguments)]
        return subprocess.run(
            command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=30, check=False
        )

    return gateway


@pytest.fixture(autouse=True)
def quiet_commands_stay_quiet_alone() -> Iterator[None]:
    """What a command run in this process does to our loggers ends with its test."""
    level = logging.getLogger("gateway").level
    yield
    logging.getLogger("gateway").setLevel(level)
