"""What `gateway serve` refuses before anything listens: one line each, exit status 1."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.cli.serve import serve
from gateway.web.supervisor import worker_command

SECRET = "s3cr3t-s3cr3t-s3cr3t-s3cr3t-s3cr3t"
SETTINGS = """
listen: 127.0.0.1:{port}
management: {{listen: 127.0.0.1:0}}
origin: {{url: file:///srv/files}}
redis: redis://127.0.0.1:1/0
keys: [{{kid: a, alg: HS256, secret: {secret}, use: sign}}]
issuer: shop.example.com
"""


@pytest.fixture
def taken() -> Iterator[int]:
    with closing(socket.socket()) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        yield sock.getsockname()[1]


def run(folder: Path, text: str) -> Result:
    config = folder / "gateway.yaml"
    config.write_text(text)
    return CliRunner().invoke(serve, ["--config", str(config)])


def test_port_in_use(tmp_path: Path, taken: int) -> None:
    result = run(tmp_path, SETTINGS.format(port=taken, secret=SECRET))
    assert result.exit_code == 1
    assert f"Error: cannot listen on 127.0.0.1:{taken}: another program listens there" in result.output
    assert SECRET not in result.output


def test_management_port_in_use(tmp_path: Path, taken: int) -> None:
    text = SETTINGS.format(port=0, secret=SECRET).replace("listen: 127.0.0.1:0}", f"listen: 127.0.0.1:{taken}}}")
    result = run(tmp_path, text)
    assert result.exit_code == 1
    assert f"Error: cannot listen on 127.0.0.1:{taken}" in result.output


def test_wrong_setting(tmp_path: Path) -> None:
    result = run(tmp_path, SETTINGS.format(port=0, secret=SECRET) + "isuer: x\n")
    assert result.exit_code == 1
    assert "gateway.yaml:8" in result.output
    assert SECRET not in result.output


def test_unreadable_certificate(tmp_path: Path) -> None:
    text = SETTINGS.format(port=0, secret=SECRET) + f"tls: {{certificate: {tmp_path}/none, key: {tmp_path}/none}}\n"
    result = run(tmp_path, text)
    assert result.exit_code == 1
    assert "Error: tls.certificate: cannot read" in result.output


def test_wrong_use_is_2(tmp_path: Path) -> None:
    assert CliRunner().invoke(serve, ["--workers", "0"]).exit_code == 2


def test_help_has_an_example() -> None:
    assert "Example: gateway serve --config" in CliRunner().invoke(serve, ["--help"]).output


def test_no_secret_on_a_workers_command_line() -> None:
    assert worker_command("--config", "a.yaml")[1:] == ("-m", "gateway", "_worker", "--config", "a.yaml")
