"""mitmproxy started in each way, with what breaks put into it: never a byte of a file, and no secret shown."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import time
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
from backends import fake_origin as fake

from gateway.backends.embedded_redis import EmbeddedRedis

ROOT = Path(__file__).parents[2]
MIB = 1024 * 1024
ADDON = str(ROOT / "gateway" / "mitm" / "addon.py")

SABOTAGE = """
import asyncio, sys
from gateway.cli.main import main
from gateway.mitm import door, passing, wire
answer, ask_for, check, take = door.Door.answer, wire.ask_for, passing.Passing.check, passing.Passing._take

async def broken_answer(self, head, request_id):
    if (why := head.headers.get("X-Crash")) in ("error", "cancel"):
        raise (ValueError if why == "error" else asyncio.CancelledError)(head.path)
    return await answer(self, head, request_id)

def broken_ask(flow, *rest):
    if flow.request.headers.get("X-Crash") == "ask":
        raise ValueError(flow.request.path)
    return ask_for(flow, *rest)

def broken_check(self, *rest):
    if self.admitted.file.key == "check.pdf":
        raise SystemExit(self.remote.url)
    return check(self, *rest)

def broken_take(self, data):
    if self.admitted.file.key == "take.pdf":
        raise MemoryError(self.remote.url)
    return take(self, data)

door.Door.answer, wire.ask_for = broken_answer, broken_ask
passing.Passing.check, passing.Passing._take = broken_check, broken_take
main(["mitm", "--config", sys.argv[1]])
"""


async def fetch(mitm, token: str, **headers: str) -> tuple[int, bytes]:
    async with aiohttp.ClientSession() as client, client.get(f"{mitm.base}/d/{token}", headers=headers) as answer:
        return answer.status, await answer.read()


@pytest.fixture(scope="module")
def sabotaged(start):
    with start("", command=("-c", SABOTAGE, "{config}")) as running:
        yield running


@pytest.mark.parametrize("why", ["error", "cancel", "ask", "check"])
async def test_a_hook_that_breaks_answers_503_and_nothing_of_the_file(sabotaged, why: str) -> None:
    data = sabotaged.bucket.put(f"{why}.pdf", 5000)
    token = sabotaged.token(f"{why}.pdf", downloads=1)
    status, body = await fetch(sabotaged, token, **{"X-Crash": why})
    assert (status, json.loads(body)["reason"]) == (503, "internal")
    assert data[:16] not in body
    if why in ("ask", "check"):
        await sabotaged.settled(token)
    sabotaged.bucket.put("whole.pdf", 5000)
    assert (await fetch(sabotaged, sabotaged.token("whole.pdf")))[0] == 200
    assert token not in sabotaged.log.read_text()
    assert "X-Amz" not in sabotaged.log.read_text()


async def test_a_count_that_breaks_ends_the_download(sabotaged) -> None:
    sabotaged.bucket.put("take.pdf", 5000)
    token = sabotaged.token("take.pdf")
    with pytest.raises(aiohttp.ClientError):
        await fetch(sabotaged, token)
    (closed,) = await sabotaged.settled(token)
    assert (closed["outcome"], closed["reason"], closed["bytes.delivered"]) == ("cut", "internal", "0")


@pytest.fixture(scope="module")
def mitmweb(start):
    """With its page, and with a limit waived."""
    with start("doors: {mitm: {waive: [rate]}}", "--web", "--web-port", str(_free_port())) as running:
        yield running


async def test_a_waived_limit_is_served_and_said(mitmweb) -> None:
    data = mitmweb.bucket.put("waived.pdf", 5000)
    token = mitmweb.token("waived.pdf", rate=1000)
    assert await fetch(mitmweb, token) == (200, data)
    assert mitmweb.events(token)[0]["limits.waived"] == "rate"


async def test_a_dead_redis_is_503_within_a_second_and_nothing_goes_on_without_its_word(start, tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as address, start("", redis=address) as mitm:
        data = mitm.bucket.put("small.pdf", 5000)
        mitm.bucket.put("running.pdf", 60 * MIB)
        token = mitm.token("small.pdf")
        assert await fetch(mitm, token) == (200, data)
        reader, writer = await slowly(mitm, mitm.token("running.pdf"))
        mitm.redis.shutdown(nosave=True)
        for _ in range(3):
            began = time.monotonic()
            status, body = await fetch(mitm, token)
            assert (status, json.loads(body)["reason"]) == (503, "redis.down")
            assert time.monotonic() - began < 1
        got = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.7):
                while chunk := await reader.read(MIB):
                    got += len(chunk)
        writer.transport.abort()
        assert got < 30 * MIB  # what was granted, and what lay in buffers
        mitm.process.kill()  # it would wait for Redis


async def slowly(mitm, token: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A download that has begun and is not read."""
    where = urlsplit(mitm.base)
    reader, writer = await asyncio.open_connection(where.hostname, where.port, limit=65536)
    writer.write(f"GET /d/{token} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    return reader, writer


async def test_told_to_stop_it_lets_downloads_finish(start) -> None:
    with start() as mitm:
        data = mitm.bucket.put("drain.pdf", 40 * MIB)
        token = mitm.token("drain.pdf")
        reader, writer = await slowly(mitm, token)
        mitm.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.3)
        with pytest.raises(aiohttp.ClientConnectorError):
            await fetch(mitm, token)
        got = await reader.read(-1)
        writer.close()
        assert got == data
        assert await asyncio.to_thread(mitm.process.wait, 20) == 0
        (closed,) = await mitm.settled(token)
        assert closed["outcome"] == "complete"


async def test_told_twice_it_cuts_and_settles(start) -> None:
    with start() as mitm:
        mitm.bucket.put("hurry.pdf", 40 * MIB)
        token = mitm.token("hurry.pdf")
        _, writer = await slowly(mitm, token)
        for _ in range(2):
            mitm.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.2)
        assert await asyncio.to_thread(mitm.process.wait, 20) == 0
        writer.transport.abort()
        (closed,) = await mitm.settled(token)
        assert (closed["outcome"], closed["reason"]) == ("cut", "draining")


@pytest.mark.timeout(180)
@pytest.mark.skipif("GATEWAY_TEST_LARGE" not in os.environ, reason="GATEWAY_TEST_LARGE is not set")
async def test_a_gigabyte_to_a_fast_and_a_slow_reader_takes_next_to_no_memory(start) -> None:
    with start() as mitm:
        mitm.bucket.put("warm.pdf", 5 * MIB)
        await fetch(mitm, mitm.token("warm.pdf"))
        before = most = mitm.memory()
        mitm.bucket.put("large.pdf", 1024 * MIB)
        _, stalled = await slowly(mitm, mitm.token("large.pdf"))
        reader, writer = await slowly(mitm, mitm.token("large.pdf"))
        got = 0
        while chunk := await reader.read(MIB):
            got += len(chunk)
            most = max(most, mitm.memory())
        assert got == 1024 * MIB
        assert most - before <= 32 * MIB
        stalled.transport.abort()
        writer.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with cert.pem and key.pem."""
    folder = tmp_path_factory.mktemp("tls")
    made = (
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    )
    subprocess.run(
        ["openssl", "req", *made, "-keyout", "key.pem", "-out", "cert.pem"], cwd=folder, check=True, capture_output=True
    )
    return folder


async def test_with_tls_it_speaks_nothing_else_and_still_leaks_nothing(start, certificate: Path) -> None:
    async def forbids(x):
        return await x.send(x.head("403 Forbidden")) if x.get else fake.HONEST

    with start(f"tls: {{certificate: {certificate}/cert.pem, key: {certificate}/key.pem}}") as mitm:
        assert mitm.base.startswith("https://")
        data = mitm.bucket.put("tls.pdf", 5000)
        mitm.bucket.put("forbidden.pdf", 5000, forbids)
        trusted = ssl.create_default_context(cafile=str(certificate / "cert.pem"))
        trusted.check_hostname = False
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusted)) as client:
            async with client.get(f"{mitm.base}/d/{mitm.token('tls.pdf')}") as answer:
                assert (answer.status, await answer.read()) == (200, data)
            async with client.get(f"{mitm.base}/d/{mitm.token('tls.pdf')}x") as answer:
                assert answer.status == 403
            token = mitm.token("forbidden.pdf")
            with pytest.raises(aiohttp.ClientError):
                await client.get(f"{mitm.base}/d/{token}")
            for closed in await mitm.settled(token):  # the client tries again by itself
                assert (closed["outcome"], closed["reason"]) == ("origin_failed", "origin.down")
        mitm.base = mitm.base.replace("https", "http")
        with pytest.raises(aiohttp.ClientError):
            await fetch(mitm, mitm.token("tls.pdf"))


async def test_mitmweb_shows_each_decision_and_no_secret(mitmweb) -> None:
    async def slow(x):
        await asyncio.sleep(0.5 if x.get else 0)
        return fake.HONEST

    mitmweb.bucket.put("seen.pdf", 5000, slow)
    token = mitmweb.token("seen.pdf")
    where = urlsplit(mitmweb.web)
    seen = []
    async with aiohttp.ClientSession() as client:
        asking = asyncio.create_task(fetch(mitmweb, token, Cookie="gw_device=aaaaaaaaaaaaaaaaaaaaaa"))
        for _ in range(40):
            async with client.get(f"http://{where.netloc}/flows?{where.query}") as answer:
                seen.append(await answer.text())
            await asyncio.sleep(0.02)
        await asking
        await mitmweb.settled(token)
        await fetch(mitmweb, mitmweb.token("seen.pdf") + "x")
        async with client.get(f"http://{where.netloc}/flows?{where.query}") as answer:
            flows = await answer.json()
    *_, allowed, denied = flows
    assert allowed["comment"].startswith(f"allow · rule office-always · order 10001 · token {mitmweb.number(token)}")
    assert allowed["comment"].endswith("complete · 5000 bytes")
    assert denied["comment"] == "deny · token.signature"
    assert (allowed["marked"], denied["marked"]) == ("✅", "⛔")
    assert allowed["request"]["path"] == "/d/…/1"
    shown = "".join(seen) + json.dumps(flows) + mitmweb.log.read_text()
    assert token not in shown
    assert "X-Amz" not in shown
    assert "aaaaaaaaaaaaaaaaaaaaaa" not in shown


async def test_mitmweb_shows_no_link_of_a_link_page_nor_any_cookie(mitmweb) -> None:
    mitmweb.bucket.put("one.pdf", 100)
    mitmweb.bucket.put("two.pdf", 100)
    where = urlsplit(mitmweb.web)
    one, two = mitmweb.token("one.pdf"), mitmweb.token("one.pdf", "two.pdf")
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as client:

        async def shown(path: str) -> tuple[int, str]:
            async with client.get(f"http://{where.netloc}{path}?{where.query}") as answer:
                return answer.status, await answer.text(errors="replace")

        for token, accept, status in ((one, "*/*", 303), (two, "text/html", 200)):
            told = {"Referer": f"https://a/l/{token}", "X-Original-URI": f"/l/{token}", "User-Agent": "seen/1.0"}
            url = f"{mitmweb.base}/l/{token}"
            async with client.get(url, headers={"Accept": accept, **told}, allow_redirects=False) as answer:
                assert answer.status == status
        _, flows = await shown("/flows")
        assert "seen/1.0" in flows
        assert "gw_device" not in flows
        assert not [token for token in (one, two) if token in flows]
        whole = [
            "/flows/dump",
            *(
                f"/flows/{flow['id']}/response/content{end}"
                for flow in json.loads(flows)
                for end in (".data", "/raw.json")
            ),
        ]
        assert {path: (await shown(path))[0] for path in whole} == dict.fromkeys(whole, 404)


MITMDUMP = "import sys; from mitmproxy.tools.main import mitmdump; mitmdump(sys.argv[1:])"
PLAIN = ("-c", MITMDUMP, "-s", ADDON, "--listen-host", "127.0.0.1")
NOWHERE = ("--mode", "reverse:http://gateway.invalid")
REFUSED = [
    (NOWHERE, "gateway_config=config/gateway.yaml"),
    (("--mode", "reverse:http://127.0.0.1:1", "--set", "gateway_config=x"), "--mode reverse:http://gateway.invalid"),
]


def test_mitmweb_does_not_run_with_the_plugin_as_a_script(configured, mitm_python: Path, tmp_path: Path) -> None:
    options = ["--no-web-open-browser", "--web-port", str(_free_port()), "-p", "0", "--set", f"confdir={tmp_path}"]
    made = subprocess.run(
        [
            mitm_python,
            "-c",
            MITMDUMP.replace("mitmdump", "mitmweb"),
            *PLAIN[2:],
            *options,
            *NOWHERE,
            "--set",
            f"gateway_config={configured()}",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert made.returncode == 1
    assert "gateway mitm --web" in made.stdout + made.stderr


def test_mitmdump_does_not_run_without_what_it_needs(mitm_python: Path, tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [mitm_python, *PLAIN, "-p", "0", "--set", f"confdir={tmp_path / str(number)}", *options],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for number, (options, _) in enumerate(REFUSED)
    ]
    for process, (_, said) in zip(processes, REFUSED, strict=True):
        out, _ = process.communicate(timeout=30)
        assert process.returncode == 1
        assert said in out.decode()


async def test_plain_mitmdump_serves_as_the_command_does_and_settles_at_its_end(start, tmp_path: Path) -> None:
    port = _free_port()
    command = (*PLAIN, "-p", str(port), "--set", f"confdir={tmp_path}", *NOWHERE, "--set", "gateway_config={config}")
    with start(command=command, base=f"http://127.0.0.1:{port}") as mitm:
        data = mitm.bucket.put("plain.pdf", 40 * MIB)
        body = b""
        for _ in range(200):
            with contextlib.suppress(aiohttp.ClientConnectorError):
                status, body = await fetch(mitm, mitm.token("plain.pdf"))
                if status == 200:
                    break
                assert data[:16] not in body
            await asyncio.sleep(0.1)
        assert body == data
        os.utime(ADDON)  # mitmproxy loads it again within a second
        await asyncio.sleep(1.5)
        token = mitm.token("plain.pdf")
        _, writer = await slowly(mitm, token)
        mitm.process.terminate()
        assert await asyncio.to_thread(mitm.process.wait, 20) == 0
        writer.transport.abort()
        (closed,) = await mitm.settled(token)
        assert (closed["outcome"], closed["reason"]) == ("cut", "draining")
        log = mitm.log.read_text()
        assert not [secret for secret in (*mitm.tokens, "X-Amz-Signature") if secret in log]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('origin: {url: "file:///srv"}', "origin.url: "),
        ("rules: /nonexistent.yaml", "/nonexistent.yaml"),
    ],
)
def test_wrong_settings_are_one_line_and_status_1(mitm_python: Path, tmp_path: Path, line: str, said: str) -> None:
    config = tmp_path / "gateway.yaml"
    config.write_text(
        "redis: redis://127.0.0.1:1/0\nissuer: shop.example.com\nlisten: 127.0.0.1:0\n"
        f'keys: [{{kid: a, alg: HS256, secret: "a secret of a shop, for tests only, 40 long", use: sign}}]\n{line}\n'
        + (
            ""
            if "origin" in line
            else "origin: {url: 's3://shop', endpoint: 'http://127.0.0.1:1', region: a, access_key: a, secret_key: b}\n"
        )
    )
    made = subprocess.run(
        [mitm_python, "-m", "gateway", "mitm", "--config", config],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 1
    assert said in made.stderr
    assert "Traceback" not in made.stderr


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
