from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from gateway import __version__
from gateway.cli.main import COMMANDS, gateway

Run = Callable[..., subprocess.CompletedProcess[str]]


def every_command(group: click.Group, *path: str) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    with click.Context(group) as context:
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None
            found.append((*path, name))
            if isinstance(command, click.Group):
                found += every_command(command, *path, name)
    return found


@pytest.mark.parametrize("path", every_command(gateway), ids=" ".join)
def test_every_help_ends_with_an_example(path: tuple[str, ...]) -> None:
    command: click.Command = gateway
    context = click.Context(gateway)
    for name in path:
        assert isinstance(command, click.Group)
        found = command.get_command(context, name)
        assert found is not None
        command = found
    paragraphs = command.get_help(click.Context(command, info_name=" ".join(path))).strip().split("\n\n")
    assert paragraphs[-1].strip().startswith(f"Example: gateway {' '.join(path)}")
    assert len(paragraphs) >= 3


def test_help_lists_the_commands(run: Run) -> None:
    shown = run("--help")
    assert shown.returncode == 0
    assert all(f"  {name} " in shown.stdout for name in COMMANDS if not name.startswith("_"))
    assert "_worker" not in shown.stdout


def test_help_imports_nothing_heavy(environ: dict[str, str]) -> None:
    heavy = ["aiohttp", "redis", "pydantic", "ruamel", "cryptography", "botocore", "jwt", "asyncio"]
    code = (
        "import sys\nfrom gateway.cli.main import gateway\ngateway.main(['--help'], standalone_mode=False)\n"
        f"sys.exit(str([name for name in {heavy!r} if name in sys.modules] or ''))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=False, env=environ
    )
    assert shown.stderr.strip() == ""


def test_version(run: Run) -> None:
    assert run("--version").stdout.strip() == f"gateway, version {__version__}"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["lnik"], "Error: No such command 'lnik'"),
        (["link", "create"], "Error: Missing option '--file'; see `gateway link create --help`"),
        (["link", "create", "--file", "a", "--expires", "30"], "write a number and a unit, such as 30d"),
        (["link", "create", "--file", "a", "--rate", "2MB"], "write a size per second, such as 2MB/s"),
        (["link", "create", "--file", "a", "--ip", "203.0.113.9/24"], "it has host bits set; write 203.0.113.0/24"),
        (["link", "create", "--file", "a", "--downloads", "0"], "0 is not in the range 1<=x<=1000000000000"),
        (["link", "create", "--name", "x", "--file", "a"], "--name stands before any --file"),
        (["link", "create", "--file", "a", "--nonsense"], "No such option"),
        (["link", "show"], "name either one link (its id, or the link itself) or --order"),
        (["events", "tail", "--type", "nonsense"], "'nonsense' is not one of"),
        (["order", "show"], "Missing argument 'ORDER'"),
        (["keys", "new", "--kid", "a b"], "kid: write 1 to 128 visible ASCII characters"),
    ],
)
def test_wrong_use_is_one_line_and_exit_2(run: Run, arguments: list[str], line: str) -> None:
    shown = run(*arguments)
    assert (shown.returncode, shown.stdout) == (2, "")
    assert shown.stderr.startswith("Error: ")
    assert line in shown.stderr
    assert shown.stderr.count("\n") == 1


def test_a_group_alone_shows_its_help(run: Run) -> None:
    shown = run("link")
    assert (shown.returncode, shown.stdout) == (2, "")
    assert shown.stderr.startswith("Usage: gateway link")


def test_no_settings_say_what_to_do(run: Run) -> None:
    shown = run("link", "list")
    assert shown.returncode == 1
    assert "there is no config/gateway.yaml here; name a settings file with --config" in shown.stderr
    assert "Traceback" not in shown.stderr


def test_wrong_settings_are_told_line_by_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/gateway.yaml").write_text("redis: x\nshards: y\n")
    shown = run("link", "list")
    assert shown.returncode == 1
    assert shown.stderr.splitlines()[0].startswith("Error: config/gateway.yaml:1: ")
    assert "config/gateway.yaml:2: shards: is no whole number" in shown.stderr


def test_without_redis_it_says_so(run: Run, config: Path, unused_tcp_port: int) -> None:
    shown = run(
        "link", "list", GATEWAY_CONFIG=str(config), GATEWAY_REDIS=f"redis://:hunter2@127.0.0.1:{unused_tcp_port}"
    )
    assert shown.returncode == 1
    assert shown.stderr.startswith("Error: Redis cannot be asked: no connection; check that Redis runs")
    assert "hunter2" not in shown.stderr


def test_another_number_of_shards_is_refused(run: Run, config: Path) -> None:
    assert run("link", "list", "--config", config).returncode == 0
    shown = run("link", "list", "--config", config, GATEWAY_SHARDS="8")
    assert shown.returncode == 1
    assert re.search(r"shards: .*\b4\b", shown.stderr)


BROKEN = """
import sys
import click
from gateway.cli import main as module

@click.command()
def broken():
    raise RuntimeError("hunter2")

module.gateway.get_command = lambda ctx, name: broken
module.main(sys.argv[1:])
"""


@pytest.mark.parametrize("debug", [True, False])
def test_a_fault_is_one_line_unless_debugged(environ: dict[str, str], debug: bool) -> None:
    arguments = ["--debug", "x"] if debug else ["x"]
    shown = subprocess.run(
        [sys.executable, "-c", BROKEN, *arguments], capture_output=True, text=True, timeout=20, check=False, env=environ
    )
    assert shown.returncode == 1
    assert ("Traceback" in shown.stderr) == debug
    if not debug:
        assert shown.stderr == "Error: RuntimeError; run `gateway --debug …` to see where, and report it\n"


def test_a_tour_in_processes_of_their_own(process: Run, config: Path) -> None:
    made = process("link", "create", "--file", "a", "--order", "1", "--config", config)
    assert (made.returncode, made.stderr) == (0, "")
    assert made.stdout.startswith("https://dl.example.com/l/ey")
    assert "1 link" in process("order", "show", "1", "--config", config).stdout
    refused = process("order", "show", "2", "--config", config)
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (1, "", 1)
    wrong = process("order", "show", "--config", config)
    assert (wrong.returncode, wrong.stdout, wrong.stderr.count("\n")) == (2, "", 1)


def test_a_reader_that_leaves_is_left_in_silence(run: Run, config: Path, environ: dict[str, str]) -> None:
    assert run("link", "create", "--file", "a", "--config", config).returncode == 0
    script = "'{0}' -m gateway events tail --no-follow --config '{1}' | true; echo ${{PIPESTATUS[0]}}"
    command = ["bash", "-c", script.format(sys.executable, config)]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, env=environ)
    assert (shown.stdout, shown.stderr) == ("1\n", "")
