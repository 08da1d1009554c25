"""Real download clients, cut and resumed as in life: the file comes out whole, and counts as one download."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

MIB = 1 << 20
LARGE = 200 * MIB + 12_345
UNREAD = int(Path("/proc/sys/net/ipv4/tcp_rmem").read_text().split()[2])
"""What a client's kernel may have acknowledged on a connection that was cut, and the client did not read: its largest
receive buffer (tcp(7)). The clients here cannot be given a smaller one; a reader of our own is held to the byte below.
"""
SIOCINQ = 0x541B
SLOW_READERS = 20
REPEAT_WINDOW = 2.0
pytestmark = pytest.mark.timeout(120)


HUGE = 2 * 1024 * MIB + 54_321
HUGE_NEEDS = ("GATEWAY_TEST_LARGE", *(f"GATEWAY_TEST_S3_{name}" for name in ("ENDPOINT", "ACCESS_KEY", "SECRET_KEY")))


def client(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(name) is None, reason=f"{name} is not installed")


def huge(test: Callable[..., None]) -> Callable[..., None]:
    missing = [name for name in HUGE_NEEDS if not os.environ.get(name)]
    return pytest.mark.timeout(600)(pytest.mark.skipif(bool(missing), reason=f"not set: {', '.join(missing)}")(test))


def run(*command: object, timeout: float = 40.0) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*map(str, command)], capture_output=True, timeout=timeout, check=False)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cut_after(seconds: float, *command: object, by: signal.Signals = signal.SIGTERM) -> int:
    """Run a client and end it in the midst; returns its exit status."""
    process = subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(by)
        return process.wait(10)


@pytest.fixture(scope="module")
def large(gateway) -> Path:
    return gateway.file("films/large.bin", LARGE)


def check_one_download(gateway, token: str, received: int) -> None:
    """One charged, and the bytes in the ledger are those that the client took, and what cut connections left unread."""
    cut = sum(event["outcome"] != "complete" for event in gateway.closings(gateway.settled(token)))
    assert gateway.used(token) == 1
    assert received <= gateway.delivered(token) <= received + cut * UNREAD


@client("curl")
def test_curl_whole(gateway, large: Path, tmp_path: Path) -> None:
    token = gateway.token("films/large.bin", downloads=1)
    assert run("curl", "-sSf", "-o", tmp_path / "out", f"{gateway.base}/d/{token}").returncode == 0
    assert sha256(tmp_path / "out") == sha256(large)
    assert gateway.used(token) == 1
    assert gateway.delivered(token) == LARGE


@client("curl")
def test_curl_cut_and_resumed(gateway, large: Path, tmp_path: Path) -> None:
    token = gateway.token("films/large.bin", downloads=1)
    resume_with_curl(tmp_path / "out", f"{gateway.base}/d/{token}")
    assert sha256(tmp_path / "out") == sha256(large)
    check_one_download(gateway, token, LARGE)


def resume_with_curl(out: Path, url: str) -> None:
    """Two cuts, one by curl's own time limit and one by SIGKILL, then the rest."""
    slowly = ("curl", "-sS", "--limit-rate", "60M", "-o", out)
    first = run(*slowly, "--max-time", "1", url)
    assert first.returncode == 28, first.stderr
    assert cut_after(1.0, *slowly, "-C", "-", url, by=signal.SIGKILL) < 0
    assert out.stat().st_size > 0
    last = run("curl", "-sSf", "-C", "-", "-o", out, url, timeout=300)
    assert last.returncode == 0, last.stderr


def test_a_cut_reader_is_told_to_the_byte(gateway, large: Path) -> None:
    token = gateway.token("films/large.bin", downloads=1)
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 256 * 1024)
        sock.connect(("127.0.0.1", gateway.port))
        sock.sendall(f"GET /d/{token} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        taken = b""
        while len(taken) < 5 * MIB:
            taken += sock.recv(65_536)
        time.sleep(0.5)  # the buffer is full by then, and all of it acknowledged
        unread = struct.unpack("i", fcntl.ioctl(sock, SIOCINQ, bytes(4)))[0]
    head, _, body = taken.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert unread > 0
    gateway.settled(token)
    assert gateway.delivered(token) == len(body) + unread


@client("wget")
def test_wget_continued(gateway, large: Path, tmp_path: Path) -> None:
    token = gateway.token("films/large.bin", downloads=1)
    command = ("wget", "-q", "-c", "-O", tmp_path / "out", f"{gateway.base}/d/{token}")
    assert cut_after(1.0, *command, "--limit-rate=60m") < 0
    assert 0 < (tmp_path / "out").stat().st_size < LARGE
    assert run(*command).returncode == 0
    assert sha256(tmp_path / "out") == sha256(large)
    check_one_download(gateway, token, LARGE)


@client("aria2c")
def test_aria2c_with_16_ranges_and_5_interruptions(gateway, large: Path, tmp_path: Path) -> None:
    token = gateway.token("films/large.bin", downloads=1)
    interrupt_aria2c(tmp_path, f"{gateway.base}/d/{token}", "80M")
    assert sha256(tmp_path / "out") == sha256(large)
    check_one_download(gateway, token, LARGE)


def interrupt_aria2c(folder: Path, url: str, limit: str) -> None:
    """Five starts with 16 ranges that are ended, then one that may finish."""
    command = ("aria2c", "-q", "--no-conf", "--file-allocation=none", "-x16", "-s16", "-k1M", "-d", folder, "-o", "out")
    for _ in range(5):
        assert cut_after(0.8, *command, f"--max-overall-download-limit={limit}", url) != 0, "it was over too soon"
    last = run(*command, url, timeout=300)
    assert last.returncode == 0, last.stdout


@client("curl")
def test_http_1_0(gateway, tmp_path: Path) -> None:
    data = gateway.file("books/old.pdf", 9 * MIB + 7).read_bytes()
    token = gateway.token("books/old.pdf", downloads=1)
    assert run("curl", "-sSf", "-0", "-o", tmp_path / "out", f"{gateway.base}/d/{token}").returncode == 0
    assert (tmp_path / "out").read_bytes() == data
    check_one_download(gateway, token, len(data))


@client("curl")
def test_two_files_on_one_connection(gateway, tmp_path: Path) -> None:
    files = [gateway.file(f"tracks/{number}.flac", 3 * MIB + number) for number in (1, 2)]
    token = gateway.token("tracks/1.flac", "tracks/2.flac", downloads=1)
    outs = [tmp_path / "1", tmp_path / "2"]
    urls = [f"{gateway.base}/d/{token}/{number}" for number in (1, 2)]
    done = run("curl", "-sSf", "-w", "%{num_connects} ", "-o", outs[0], urls[0], "-o", outs[1], urls[1])
    assert done.stdout.split() == [b"1", b"0"]
    assert [out.read_bytes() for out in outs] == [file.read_bytes() for file in files]
    assert gateway.used(token) == 2
    assert gateway.delivered(token) == 6 * MIB + 3


def test_pipelined_requests(gateway) -> None:
    data = [gateway.file(f"pipelined/{number}.flac", 2 * MIB + number).read_bytes() for number in (1, 2, 3)]
    token = gateway.token(*(f"pipelined/{number}.flac" for number in (1, 2, 3)), downloads=1)
    heads = [f"GET /d/{token}/{number} HTTP/1.1\r\nHost: shop\r\n" for number in (1, 2, 3)]
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as sock, sock.makefile("rb") as answers:
        sock.sendall("\r\n".join([*heads[:2], heads[2] + "Connection: close\r\n\r\n"]).encode())
        for expected in data:
            assert answers.readline().startswith(b"HTTP/1.1 200 ")
            head = b"".join(iter(answers.readline, b"\r\n"))
            length = re.search(rb"(?im)^content-length: (\d+)\r$", head)
            assert length is not None
            assert answers.read(int(length[1])) == expected
        assert answers.read() == b""
    assert gateway.used(token) == 3
    assert gateway.delivered(token) == sum(map(len, data))


def test_a_look_is_given_back(gateway, large: Path) -> None:
    """Someone who takes a kilobyte and leaves has not downloaded."""
    token = gateway.token("films/large.bin", downloads=1)
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as sock:
        # Fixed before the connection is used, so that little is acknowledged that nobody reads.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(f"GET /d/{token} HTTP/1.1\r\nHost: shop\r\n\r\n".encode())
        assert sock.recv(1024).startswith(b"HTTP/1.1 200 ")
    assert gateway.used(token) == 0
    allowed, finished = gateway.settled(token)
    assert (allowed["counted"], finished["counted"], finished["outcome"]) == ("1", "-1", "client_left")
    assert int(finished["bytes.delivered"]) < 64 * 1024


@client("curl")
def test_full_downloads_apart_are_two(gateway, tmp_path: Path) -> None:
    data = gateway.file("books/sea.pdf", 300_000).read_bytes()
    token = gateway.token("books/sea.pdf", downloads=2)
    command = ("curl", "-sS", "-w", "%{http_code}", "-o", tmp_path / "out", f"{gateway.base}/d/{token}")
    assert run(*command).stdout == b"200"
    assert run(*command).stdout == b"200", "a double click"
    assert gateway.used(token) == 1
    time.sleep(REPEAT_WINDOW + 0.5)
    assert run(*command).stdout == b"200"
    assert (tmp_path / "out").read_bytes() == data
    assert gateway.used(token) == 2
    time.sleep(REPEAT_WINDOW + 0.5)
    assert run(*command).stdout == b"410"
    assert gateway.used(token) == 2


@client("curl")
def test_a_file_replaced_behind_what_workers_remember(gateway, tmp_path: Path) -> None:
    """The one download goes to the new version: what the old one was charged is given back first."""
    gateway.file("books/new.pdf", 300_000)
    looked = gateway.token("books/new.pdf")
    for _ in range(12):
        run("curl", "-sSfI", f"{gateway.base}/d/{looked}")
    data = gateway.file("books/new.pdf", 300_100).read_bytes()
    token = gateway.token("books/new.pdf", downloads=1)
    done = run("curl", "-sSf", "-o", tmp_path / "out", f"{gateway.base}/d/{token}")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out").read_bytes() == data
    assert gateway.used(token) == 1
    assert gateway.delivered(token) == len(data)


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="/proc is how this is measured")
@client("curl")
def test_slow_readers_hold_little_memory(gateway, large: Path, tmp_path: Path) -> None:
    tokens = [gateway.token("films/large.bin", downloads=1) for _ in range(SLOW_READERS)]
    before = memory(gateway.pids())
    readers = [
        subprocess.Popen(
            ["curl", "-s", "--limit-rate", "200k", "-o", tmp_path / token[-20:], f"{gateway.base}/d/{token}"]
        )
        for token in tokens
    ]
    try:
        wait_until(lambda: len(queues(gateway.port)) == SLOW_READERS and all(queues(gateway.port)))
        time.sleep(1.0)
        assert memory(gateway.pids()) - before < SLOW_READERS * 256 * 1024
        # Not at every moment: what a reader has just asked for may be on its way.
        wait_until(lambda: sum(queues(gateway.port)) <= SLOW_READERS * 256 * 1024, 5.0)
        assert len(queues(gateway.port)) == SLOW_READERS
    finally:
        for reader in readers:
            reader.kill()
            reader.wait(10)
    for token in tokens:
        gateway.settled(token)


def wait_until(true: Callable[[], bool], patience: float = 20.0) -> None:
    until = time.monotonic() + patience
    while not true():
        assert time.monotonic() < until
        time.sleep(0.05)


def memory(pids: set[int]) -> int:
    """Resident bytes of these processes that are their own (proc(5), RssAnon)."""
    texts = [Path(f"/proc/{pid}/status").read_text() for pid in pids]
    return sum(int(found[1]) * 1024 for text in texts if (found := re.search(r"RssAnon:\s+(\d+) kB", text)))


def queues(port: int) -> list[int]:
    """Bytes that the kernel holds for each established connection to our port (proc(5), tx_queue)."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [int(row[4].partition(":")[0], 16) for row in rows if row[1].endswith(f":{port:04X}") and row[3] == "01"]


@pytest.fixture(scope="module")
def bucket(redis_url: str, start_gateway, tmp_path_factory: pytest.TempPathFactory):
    """A gateway in front of a bucket with an object of 2 GB, and the object's SHA-256."""
    boto3 = pytest.importorskip("boto3")
    where = {name: os.environ[f"GATEWAY_TEST_S3_{name.upper()}"] for name in ("endpoint", "access_key", "secret_key")}
    store = boto3.client(
        "s3",
        endpoint_url=where["endpoint"],
        region_name="us-east-1",
        aws_access_key_id=where["access_key"],
        aws_secret_access_key=where["secret_key"],
    )
    name = f"clients-{os.urandom(4).hex()}"
    settings = {"url": f"s3://{name}", "region": "us-east-1", "addressing": "path", **where}
    origin = json.dumps(settings)  # which is YAML too
    gateway = start_gateway(redis_url, 2, origin)
    path = gateway.file("huge.bin", HUGE)
    store.create_bucket(Bucket=name)
    store.upload_file(str(path), name, "huge.bin")
    assert re.search(r"-\d+\"$", store.head_object(Bucket=name, Key="huge.bin")["ETag"]), "not uploaded in parts"
    digest = sha256(path)
    path.unlink()
    yield gateway, digest
    store.delete_object(Bucket=name, Key="huge.bin")
    store.delete_bucket(Bucket=name)
    store.close()


@huge
@client("curl")
def test_2_gb_whole(bucket, tmp_path: Path) -> None:
    gateway, digest = bucket
    token = gateway.token("huge.bin", downloads=1)
    done = run("curl", "-sSf", "-o", tmp_path / "out", f"{gateway.base}/d/{token}", timeout=300)
    assert done.returncode == 0, done.stderr
    assert sha256(tmp_path / "out") == digest
    check_one_download(gateway, token, HUGE)


@huge
@client("curl")
def test_2_gb_cut_and_resumed(bucket, tmp_path: Path) -> None:
    gateway, digest = bucket
    token = gateway.token("huge.bin", downloads=1)
    resume_with_curl(tmp_path / "out", f"{gateway.base}/d/{token}")
    assert sha256(tmp_path / "out") == digest
    check_one_download(gateway, token, HUGE)


@huge
@client("aria2c")
def test_2_gb_with_16_ranges_and_5_interruptions(bucket, tmp_path: Path) -> None:
    gateway, digest = bucket
    token = gateway.token("huge.bin", downloads=1)
    interrupt_aria2c(tmp_path, f"{gateway.base}/d/{token}", "200M")
    assert sha256(tmp_path / "out") == digest
    check_one_download(gateway, token, HUGE)
