"""What docker-compose.yml would start, started: the same commands and settings, and a buyer's download through them."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from gateway.backends.maxmind import Databases
from gateway.cli import demo_geo
from gateway.policy.model import Place
from gateway.settings import load

_spec = importlib.util.spec_from_file_location("compose_stage", Path(__file__).with_name("compose_stage.py"))
assert _spec is not None
assert _spec.loader is not None
stage_module = importlib.util.module_from_spec(_spec)
sys.modules["compose_stage"] = stage_module
_spec.loader.exec_module(stage_module)
ROOT, BUYER, PATH, Stage = stage_module.ROOT, stage_module.BUYER, stage_module.PATH, stage_module.Stage

MIB = 1 << 20
FILE = os.urandom(300_000)
LARGE = 24 * MIB
MAY_HOLD = MIB
"""What may count as delivered beyond what a stalled buyer's program read: nginx's and its kernel's, at both ends."""
STALLS = """
import socket, sys, time
client = socket.create_connection(("nginx", 80), source_address=(sys.argv[1], 0))
client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
client.sendall(f"GET {sys.argv[2]} HTTP/1.1\\r\\nHost: nginx\\r\\n\\r\\n".encode())
left = int(sys.argv[3])
while left:
    got = client.recv(min(left, 65536))
    if not got:
        sys.exit("the answer ended early")
    left -= len(got)
time.sleep(2)
"""


def test_the_file_exposes_and_trusts_no_more_than_it_must() -> None:
    described = stage_module.compose(dict.fromkeys(re.findall(r"^(\w+)=", EXAMPLE, re.MULTILINE), "made-up"))
    services, networks = described["services"], described["networks"]
    assert {name: service["ports"] for name, service in services.items() if "ports" in service} == {
        "nginx": ["8080:80"],
        "gateway": ["127.0.0.1:8081:8081"],
    }
    assert networks["back"] == {"internal": True}
    assert services["redis"]["networks"] == services["s3"]["networks"] == ["back"]
    nginx = services["nginx"]["networks"]["front"]["ipv4_address"]
    assert services["gateway"]["environment"]["GATEWAY_TRUSTED_PROXIES"] == f"[{nginx}/32]"
    for service in services.values():
        assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+(-alpine)?", service.get("image", "ours:1.0"))
        assert service["restart"] == "unless-stopped"


def missing() -> str:
    if os.geteuid() or sys.platform != "linux":
        return "a private network needs root on Linux"
    absent = [name for name in stage_module.PROGRAMS if shutil.which(name, path=PATH) is None]
    if absent:
        return f"not installed: {', '.join(absent)}"
    alone = subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True, check=False)
    return "" if alone.returncode == 0 else "no private network can be made here"


WHY_NOT = missing()
assert not (WHY_NOT and os.environ.get("GATEWAY_TEST_COMPOSE")), WHY_NOT
played = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)
has_geoipupdate = pytest.mark.skipif(stage_module.GEOIPUPDATE is None, reason="geoipupdate is not installed")


EXAMPLE = (ROOT / "config/compose.env.example").read_text()
GEO = dict(re.findall(r"^#(\w+)=(.*)", EXAMPLE[EXAMPLE.index("#COMPOSE_PROFILES") :], re.MULTILINE))


def written(folder: Path) -> dict[str, str]:
    """The .env that the first command of docs/compose.md writes."""
    shell = re.findall(r"```sh\n(.*?)\n", (ROOT / "docs/compose.md").read_text())[0]
    subprocess.run(["sh", "-ec", shell], cwd=folder, check=True)
    assert (folder / ".env").stat().st_mode & 0o077 == 0
    return dict(line.split("=", 1) for line in (folder / ".env").read_text().splitlines())


def furnished(folder: Path, environ: dict[str, str]) -> Stage:
    """A fresh checkout with a .env and products, of which nothing runs yet."""
    checkout = folder / "checkout"
    for name in ("config", "rules"):
        shutil.copytree(ROOT / name, checkout / name)
    (checkout / "config/rules").symlink_to("../rules")  # beside gateway.yaml, as the container sees them
    for name in ("redis", "hashes", "geo", "journal"):
        (folder / "volumes" / name).mkdir(parents=True)
    shop = checkout / "files/shop-files"
    shop.mkdir(parents=True)
    (shop / "sea.pdf").write_bytes(FILE)
    (shop / "large.bin").write_bytes(os.urandom(MIB) * (LARGE // MIB))
    return Stage(folder, written(folder) | environ)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    stage = furnished(tmp_path_factory.mktemp("compose"), {})
    try:
        stage.up("nginx")
        yield stage
    finally:
        stage.close()


def create(stage: Stage, order: str, key: str, *options: str) -> str:
    """The download address behind a new link."""
    done = stage.run("gateway", "link", "create", "--order", order, "--file", key, *options, service="gateway")
    link = done.stdout.strip()
    assert link.startswith("http://localhost:8080/l/"), done
    return link.replace("localhost:8080/l/", "nginx/d/")


def curl(stage: Stage, url: str, *options: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body, as a buyer at BUYER gets them."""
    body = stage.folder / f"body-{os.urandom(4).hex()}"
    common = ["-sS", "--interface", BUYER, "-o", body, "-D", "-"]
    head = stage.run("curl", *common, *options, url).stdout.splitlines()
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
    return int(head[0].split()[1]), headers, body.read_bytes() if body.exists() else b""


def events(stage: Stage, order: str, kind: str, count: int = 1) -> list[dict[str, str]]:
    """The order's events of this type, as soon as there are so many."""
    command = ["gateway", "events", "tail", "--no-follow", "--order", order, "--type", kind]
    until = time.monotonic() + 20
    while True:
        found = [json.loads(line) for line in stage.run(*command, service="gateway").stdout.splitlines()]
        if len(found) >= count:
            return found
        assert time.monotonic() < until, f"{len(found)} of {count} {kind}"
        time.sleep(0.1)


@played
def test_a_buyer_downloads_through_nginx_and_is_counted(stage: Stage) -> None:
    url = create(stage, "10001", "sea.pdf", "--downloads", "1")
    status, headers, body = curl(stage, url, "--head")
    assert (status, headers["content-length"], body[:5]) == (200, str(len(FILE)), b"HTTP/")
    status, headers, body = curl(stage, url, "--header", "X-Forwarded-For: 198.51.100.1, 10.213.57.2")
    assert (status, hashlib.sha256(body).digest()) == (200, hashlib.sha256(FILE).digest())
    assert headers["accept-ranges"] == "bytes"
    assert not headers["etag"].startswith("W/")
    status, headers, body = curl(stage, url, "--range", "1000-1999")
    assert (status, headers["content-range"], body) == (206, f"bytes 1000-1999/{len(FILE)}", FILE[1000:2000])
    (finished, _) = events(stage, "10001", "download.finished", 2)
    assert (finished["outcome"], finished["bytes.delivered"]) == ("complete", str(len(FILE)))
    for event in events(stage, "10001", "download.allowed", 2):
        assert event["client.address"] == BUYER


@played
def test_the_link_page_and_a_forged_link_come_through(stage: Stage) -> None:
    url = create(stage, "10002", "sea.pdf")
    status, headers, body = curl(stage, url.replace("/d/", "/l/"), "--header", "Accept: text/html")
    assert (status, headers["content-type"].partition(";")[0]) == (200, "text/html")
    assert b"sea.pdf" in body
    status, headers, body = curl(stage, f"{url[:-4]}AAAA")
    assert (status, headers["content-type"]) == (403, "application/problem+json")
    long = "/d/" + "e" * 4096
    assert curl(stage, f"http://nginx{long}")[0] == 403


@played
def test_a_used_up_link_stays_used_up_when_redis_is_killed(stage: Stage) -> None:
    url = create(stage, "10003", "sea.pdf", "--downloads", "2")
    for agent in ("one", "two"):  # a repeat by the same device would be free
        assert curl(stage, url, "--user-agent", agent)[0] == 200
        events(stage, "10003", "download.finished")
    shown = stage.run("gateway", "link", "show", "--order", "10003", "--json", service="gateway").stdout
    stage.down("redis", signal.SIGKILL)  # what AOF everysec has not written yet the journal puts back
    assert curl(stage, url)[0] == 503
    stage.up("redis")
    until = time.monotonic() + 10
    while (
        again := stage.run("gateway", "link", "show", "--order", "10003", "--json", service="gateway")
    ).stdout != shown:
        assert time.monotonic() < until, again
    while curl(stage, url)[0] == 503:  # until the gateway has seen that nothing is missing, or put it back
        assert time.monotonic() < until
        time.sleep(0.2)
    assert stage.run("redis-cli", "config", "get", "appendfsync", service="redis").stdout.split()[1] == "everysec"


@played
def test_nginx_does_not_swallow_what_the_buyer_does_not_take(stage: Stage) -> None:
    url = create(stage, "10004", "large.bin")
    stage.run("python", "-c", STALLS, BUYER, url.removeprefix("http://nginx"), MIB)
    (finished,) = events(stage, "10004", "download.finished")
    assert finished["outcome"] == "client_left"
    assert MIB - 1024 <= int(finished["bytes.delivered"]) <= MIB + MAY_HOLD


@played
def test_no_token_and_no_secret_gets_into_a_log(stage: Stage) -> None:
    url = create(stage, "10005", "sea.pdf")
    token = url.rpartition("/")[2]
    requests = [url, url.replace("/d/", "//d/"), f"http://nginx/{token}", f"{url}/1/a%20b?utm_source={token}"]
    for each in requests:
        curl(stage, each, "--referer", url, "--path-as-is")
    stage.down("gateway")
    assert curl(stage, url)[0] == 502
    stage.up("gateway")
    said = {name: stage.log(name) for name in stage.services if stage.log_file(name).exists()}
    assert re.search(rf'^{BUYER} \[.*\] "GET /d/\*\*\*" 502 ', said["nginx"], re.MULTILINE), said["nginx"][-500:]
    secrets = [token, token.rpartition(".")[2], *(value for name, value in stage.environ.items() if "GATEWAY" in name)]
    assert [(name, secret[:6]) for name, log in said.items() for secret in secrets if secret in log] == []


@played
def test_the_s3_server_serves_the_owner_alone_and_no_file_half_replaced(stage: Stage) -> None:
    settings = load(stage.host_path("./config") / "gateway.yaml", stage.environ)
    bucket = f"{settings.origin.endpoint}/{settings.origin.url.removeprefix('s3://')}"
    for path in ("", "?list-type=2", "/sea.pdf"):
        assert curl(stage, bucket + path)[0] in (400, 401, 403)
    new = stage.host_path("./files") / "shop-files/.new"
    editions = [b"first edition", b"other edition"]
    for number, content in enumerate(editions):
        new.write_bytes(content)
        new.rename(new.with_name("edition.txt"))
        until = time.monotonic() + 15  # what the store and the gateway remember of a file is seconds old
        while (got := curl(stage, create(stage, "10006", "edition.txt"))[2]) != content:
            assert got in editions[:number] or b"origin.changed" in got or (not number and b"file.missing" in got)
            assert time.monotonic() < until
            time.sleep(0.5)
    put = stage.run(
        "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "--aws-sigv4", "aws:amz:eu-central-1:s3",
        "--user", f"{stage.environ['GATEWAY_S3_ACCESS_KEY']}:{stage.environ['GATEWAY_S3_SECRET_KEY']}",
        "--upload-file", "/etc/hosts", f"{bucket}/sea.pdf",
    )  # fmt: skip
    assert int(put.stdout) >= 400
    assert (new.parent / "sea.pdf").read_bytes() == FILE


@pytest.fixture
def with_geo(tmp_path: Path) -> Iterator[Stage]:
    """A project as .env describes it with the example's lines for geo data, and a fake of MaxMind's service."""
    pytest.importorskip("mmdb_writer")
    (tmp_path / "served").mkdir()
    demo_geo.build_demo_databases(tmp_path / "served")
    account = {"GEOIPUPDATE_ACCOUNT_ID": "123456", "GEOIPUPDATE_LICENSE_KEY": "a licence key"}
    stage = furnished(tmp_path, GEO | account)
    stage.extra["geoipupdate"] = {"GEOIPUPDATE_HOST": "http://127.0.0.1:8090"}
    script = Path(__file__).with_name("fake_maxmind.py")
    stage.start("fake MaxMind", sys.executable, script, 8090, tmp_path / "served")
    try:
        yield stage
        assert account["GEOIPUPDATE_LICENSE_KEY"] not in "".join(map(stage.log, stage.processes))
    finally:
        stage.close()


def update_geo(stage: Stage, monkeypatch: pytest.MonkeyPatch, place: Place) -> None:
    """Another release of the databases, and geoipupdate's next round; the image begins one every so many hours."""
    monkeypatch.setitem(demo_geo.NETWORKS, demo_geo.OFFICE, place)
    demo_geo.build_demo_databases(stage.folder / "served")
    stage.down("geoipupdate")
    stage.up("geoipupdate")
    assert stage.ended("geoipupdate") == 0, stage.log("geoipupdate")


@played
@has_geoipupdate
def test_geoipupdate_swaps_whole_files_that_the_gateway_may_read(with_geo: Stage, monkeypatch) -> None:
    files = [Path(with_geo.environment("gateway")[name]) for name in ("GATEWAY_GEO__CITY", "GATEWAY_GEO__ASN")]
    with_geo.up("geoipupdate")
    first = [file.stat() for file in files]
    assert all(status.st_mode & 0o004 for status in first)  # the image's user is another one
    before = Databases.load(files[0], files[1], None)
    update_geo(with_geo, monkeypatch, Place(country="DE", asn=64511))
    after = Databases.load(files[0], files[1], None)
    for databases, place in ((before, ("PL", 64496)), (after, ("DE", 64511))):
        found = databases.look_up(ip_address(BUYER))
        assert (found.country, found.asn) == place
        databases.close()
    assert all(file.stat().st_ino != status.st_ino for file, status in zip(files, first, strict=True))


@played
@has_geoipupdate
def test_new_geo_data_is_in_force_without_a_restart(with_geo: Stage, monkeypatch) -> None:
    with_geo.up("nginx")
    for order, place in (("20001", ("PL", "64496")), ("20002", ("DE", "64511"))):
        if order == "20002":
            update_geo(with_geo, monkeypatch, Place(country="DE", asn=64511))
            time.sleep(2)
        assert curl(with_geo, create(with_geo, order, "sea.pdf"))[0] == 200
        (allowed,) = events(with_geo, order, "download.allowed")
        assert (allowed["geo.country.iso_code"], allowed["as.number"]) == place
