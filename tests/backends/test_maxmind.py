"""What geo databases say is told; what is wrong with them is said at load; what a file becomes later is no matter."""

from __future__ import annotations

import gc
import gzip
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from mmdb_writer import Encoder, MMDBWriter
from netaddr import IPSet

from gateway.backends import maxmind
from gateway.backends.maxmind import SIZE_MAX, Databases, fingerprint
from gateway.cli.demo_geo import NETWORKS, build_demo_databases
from gateway.errors import GeoDown, SettingsError
from gateway.policy.model import Place

POLAND = {"country": {"iso_code": "PL"}}
ONE = "198.51.100.0/24"
INSIDE = ip_address("198.51.100.7")


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return build_demo_databases(tmp_path_factory.mktemp("geo"))


def write(path: Path, records: Mapping[str, object], kind: str = "GeoLite2-City", *, ip_version: int = 6) -> Path:
    writer = MMDBWriter(ip_version, kind, ipv4_compatible=ip_version == 6)
    for network, record in records.items():
        writer.insert_network(IPSet([network]), record)
    writer.to_db_file(str(path))
    return path


def load(**named: Path) -> Databases:
    return Databases.load(**{"city": None, "asn": None, "anonymous": None, **named})


def refusal(**named: Path) -> str:
    with pytest.raises(SettingsError) as caught:
        load(**named)
    return str(caught.value)


# What is told


def test_each_database_tells_its_part(paths: dict[str, Path]) -> None:
    address = ip_address("192.0.2.44")
    whole = replace(NETWORKS["192.0.2.0/25"], version="")
    parts = {
        "city": replace(whole, asn=None, network=None),
        "asn": Place(asn=whole.asn),
        "anonymous": Place(network=whole.network),
    }
    for setting, part in parts.items():
        databases = load(**{setting: paths[setting]})
        assert databases.look_up(address) == replace(part, version=databases.version)
    assert load().look_up(address) == Place()


def test_an_ipv4_address_written_as_ipv6_is_that_address(paths: dict[str, Path]) -> None:
    databases = Databases.load(**paths)
    assert databases.look_up(ip_address("::ffff:198.51.100.7")) == databases.look_up(INSIDE)
    assert databases.look_up(INSIDE).city == "Warsaw"


def test_a_database_of_ipv4_alone_knows_no_ipv6(tmp_path: Path) -> None:
    databases = load(city=write(tmp_path / "4.mmdb", {ONE: POLAND}, ip_version=4))
    assert databases.look_up(INSIDE).country == "PL"
    assert databases.look_up(ip_address("2001:db8::1")) == Place(version=databases.version)
    assert databases.look_up(ip_address("::ffff:198.51.100.7")).country == "PL"


def test_where_a_network_is_registered_is_not_where_it_is(tmp_path: Path) -> None:
    record = {"registered_country": {"iso_code": "DE"}, "represented_country": {"iso_code": "US"}}
    assert load(city=write(tmp_path / "x.mmdb", {ONE: record})).look_up(INSIDE).country is None


@pytest.mark.parametrize(
    ("record", "region"),
    [
        ({**POLAND, "subdivisions": [{"iso_code": "14"}, {"iso_code": "XX"}]}, "PL-14"),
        ({**POLAND, "subdivisions": [{"names": {"en": "Mazovia"}}]}, None),
        ({**POLAND, "subdivisions": []}, None),
        ({"subdivisions": [{"iso_code": "14"}]}, None),
        (POLAND, None),
    ],
)
def test_the_region_is_that_of_the_first_subdivision(tmp_path: Path, record: object, region: str | None) -> None:
    assert load(city=write(tmp_path / "x.mmdb", {ONE: record})).look_up(INSIDE).region == region


@pytest.mark.parametrize(
    ("kind", "flags", "network"),
    [
        ("GeoIP2-Anonymous-IP", {}, frozenset()),
        ("GeoIP2-Anonymous-IP", {"is_anonymous": False}, frozenset()),
        ("GeoIP2-Anonymous-IP", {"is_hosting_provider": True, "is_tor_exit_node": True}, {"hosting", "tor"}),
        ("GeoIP2-Anonymous-IP", {"is_public_proxy": True, "is_anonymous": True}, {"proxy", "anonymous"}),
        ("GeoIP-Anonymous-Plus", {"is_residential_proxy": True, "is_anonymous_vpn": True}, {"proxy", "vpn"}),
    ],
)
def test_the_network_is_the_set_of_its_flags(
    tmp_path: Path, kind: str, flags: dict[str, bool], network: frozenset[str]
) -> None:
    databases = load(anonymous=write(tmp_path / "x.mmdb", {ONE: {"note": "", **flags}}, kind))
    assert databases.look_up(INSIDE).network == network
    assert databases.look_up(ip_address("192.0.2.1")).network is None


@pytest.mark.parametrize(
    ("setting", "kind", "record"),
    [
        ("city", "GeoLite2-Country", POLAND),
        ("city", "GeoIP2-City", POLAND),
        ("city", "GeoIP2-Enterprise", POLAND),
        ("city", "DBIP-City-Lite", POLAND),
        ("asn", "GeoIP2-ISP", {"autonomous_system_number": 64496, "isp": "Example"}),
        ("asn", "DBIP-ASN-Lite (compat=GeoLite2-ASN)", {"autonomous_system_number": 64496}),
        ("anonymous", "GeoIP-Anonymous-Plus", {"is_anonymous": True}),
    ],
)
def test_kindred_types_are_taken(tmp_path: Path, setting: str, kind: str, record: object) -> None:
    databases = load(**{setting: write(tmp_path / "x.mmdb", {ONE: record}, kind)})
    assert databases.look_up(INSIDE) != Place(version=databases.version)
    assert databases.version.startswith(kind)


def test_the_version_names_types_and_dates(
    paths: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("mmdb_writer.time.time", lambda: 1_795_000_000)
    built = build_demo_databases(tmp_path)
    dated = "GeoLite2-City 2026-11-18, GeoLite2-ASN 2026-11-18, GeoIP2-Anonymous-IP 2026-11-18"
    assert Databases.load(**built).version == dated
    assert load(asn=built["asn"]).version == "GeoLite2-ASN 2026-11-18"
    assert load().version == ""


def test_metadata_made_to_hurt_give_a_short_clean_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("mmdb_writer.time.time", lambda: 2**64 - 1)
    path = write(tmp_path / "x.mmdb", {ONE: POLAND}, "GeoLite2-City\r\n\x1b[31m" + "x" * 10_000)
    version = load(city=path).version
    assert version.startswith("GeoLite2-City")
    assert version.isprintable()
    assert len(version) <= 60


# What is refused


@pytest.mark.parametrize(
    ("given", "kind", "said"),
    [
        ("city", "GeoLite2-ASN", "belongs to geo.asn"),
        ("asn", "GeoIP2-Country", "belongs to geo.city"),
        ("city", "GeoIP2-Anonymous-IP", "belongs to geo.anonymous"),
        ("anonymous", "GeoIP2-Domain", "which no setting takes"),
        ("asn", "", "which no setting takes"),
    ],
)
def test_a_database_of_another_kind_is_sent_to_its_setting(tmp_path: Path, given: str, kind: str, said: str) -> None:
    path = write(tmp_path / "x.mmdb", {ONE: {"a": "b"}}, kind)
    text = refusal(**{given: path})
    assert text.startswith(f"geo.{given}: {path} is a ")
    assert said in text
    assert "right here would be Geo" in text


def test_all_mistakes_are_said_at_once(paths: dict[str, Path], tmp_path: Path) -> None:
    text = refusal(city=paths["asn"], asn=paths["asn"], anonymous=tmp_path / "none.mmdb")
    assert [line.partition(":")[0] for line in text.splitlines()] == ["geo.city", "geo.anonymous"]


def tarred(data: bytes) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        member = tarfile.TarInfo("GeoLite2-City_20261118/GeoLite2-City.mmdb")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return target.getvalue()


def zipped(data: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("GeoLite2-City.mmdb", data)
    return target.getvalue()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda _: b"", "is empty"),
        (gzip.compress, "is gzipped; unpack it"),
        (tarred, "is a tar archive; unpack it"),
        (zipped, "is a ZIP archive; unpack it"),
        (lambda _: b"<!DOCTYPE html><title>401</title>", "is a web page"),
        (lambda _: b"network,geoname_id\n192.0.2.0/24,1\n", "is no MaxMind database, or a damaged one"),
        (lambda data: data[: len(data) * 2 // 3], "is no MaxMind database, or a damaged one"),
        (lambda data: data[200:], "is no MaxMind database, or a damaged one"),
    ],
)
def test_what_is_no_database_is_named_for_what_it_is(
    paths: dict[str, Path], tmp_path: Path, change: Callable[[bytes], bytes], said: str
) -> None:
    path = tmp_path / "x.mmdb"
    path.write_bytes(change(paths["city"].read_bytes()))
    text = refusal(city=path)
    assert text.startswith(f"geo.city: {path} {said}")
    assert "\n" not in text
    assert "/proc/" not in text


def test_what_is_no_file_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        said = {name: refusal(city=tmp_path / name) for name in ("fifo", "loop", "socket", "none", ".")}
    assert "is no regular file" in said["fifo"]
    assert "symbolic links" in said["loop"]
    assert "cannot be read" in said["socket"]
    assert "No such file or directory; check the path" in said["none"]
    assert "is a folder; name the .mmdb file in it" in said["."]
    assert "is no regular file" in refusal(city=Path("/dev/zero"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(paths: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "x.mmdb"
    path.write_bytes(paths["city"].read_bytes())
    path.chmod(0)
    assert "Permission denied; check the path and its permissions" in refusal(city=path)


def test_a_file_too_large_for_memory_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.mmdb"
    with path.open("wb") as file:
        file.truncate(SIZE_MAX + 1)
    assert "has 1,073,741,825 bytes, more than the 1,073,741,824" in refusal(city=path)


def test_a_file_that_changes_while_it_is_read_is_refused(
    paths: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.mmdb"
    path.write_bytes(paths["city"].read_bytes())
    copy = maxmind._copy

    def copy_and_write(file: int, size: int) -> object:
        with path.open("ab") as other:
            other.write(b"more")
        return copy(file, size)

    monkeypatch.setattr(maxmind, "_copy", copy_and_write)
    assert "was written to while it was read" in refusal(city=path)


CITY, ASN, ANONYMOUS = "GeoLite2-City", "GeoLite2-ASN", "GeoIP2-Anonymous-IP"
BROKEN = [
    ("city", CITY, {"country": {"iso_code": 616}}),
    ("city", CITY, {"country": {"iso_code": True}}),
    ("city", CITY, {"country": {"iso_code": "pl"}}),
    ("city", CITY, {"country": {"iso_code": "POL"}}),
    ("city", CITY, {"country": {"iso_code": "PL\n"}}),
    ("city", CITY, {"country": {"iso_code": "P" * 100_000}}),
    ("city", CITY, {"country": {"iso_code": ["PL"]}}),
    ("city", CITY, {"country": "PL"}),
    ("city", CITY, {"continent": {"code": "XX"}}),
    ("city", CITY, {**POLAND, "subdivisions": "14"}),
    ("city", CITY, {**POLAND, "subdivisions": [{"iso_code": 14}]}),
    ("city", CITY, {**POLAND, "subdivisions": [{"iso_code": "14\x00"}]}),
    ("city", CITY, {"city": {"names": {"en": 7}}}),
    ("city", CITY, {"city": {"names": ["en"]}}),
    ("city", CITY, {"city": {"names": {"en": "x" * 10_000_000}}}),
    ("city", CITY, {"traits": "x"}),
    ("city", CITY, {"prefix_len": 24}),
    ("city", CITY, "PL"),
    ("city", CITY, ["PL"]),
    ("asn", ASN, {"autonomous_system_number": "64496"}),
    ("asn", ASN, {"autonomous_system_number": 2**32}),
    ("asn", ASN, {"autonomous_system_number": True}),
    ("asn", ASN, {"autonomous_system_number": 1.5}),
    ("anonymous", ANONYMOUS, {"is_anonymous": "no"}),
    ("anonymous", ANONYMOUS, {"is_hosting_provider": {"a": "b"}}),
    ("anonymous", "GeoIP-Anonymous-Plus", {"network_last_seen": "yesterday"}),
]


@pytest.mark.parametrize(("setting", "kind", "record"), BROKEN, ids=lambda value: str(value)[:40])
def test_a_value_that_is_none_is_found_at_load(tmp_path: Path, setting: str, kind: str, record: object) -> None:
    text = refusal(**{setting: write(tmp_path / "x.mmdb", {ONE: record}, kind)})
    assert "is no MaxMind database, or a damaged one (" in text
    assert len(text) < 400


@pytest.mark.parametrize("block", ["128.0.0.0/6", "2a00::/10"])
def test_damage_far_from_the_beginning_is_found_at_load(tmp_path: Path, block: str) -> None:
    many = {f"10.{number // 128}.{number % 128 * 2}.0/24": POLAND for number in range(1000)}
    many |= {f"2001:{number * 2:x}::/32": POLAND for number in range(1000)}
    write(tmp_path / "x.mmdb", {**many, block: {"country": {"iso_code": 616}}})
    assert "is no MaxMind database, or a damaged one (a code is malformed)" in refusal(city=tmp_path / "x.mmdb")


SOUND = {"city": POLAND, "asn": {"autonomous_system_number": 64496}, "anonymous": {"is_anonymous": True}}


@pytest.mark.parametrize(("setting", "kind", "record"), BROKEN[::4], ids=lambda value: str(value)[:40])
def test_what_the_probe_has_missed_breaks_the_look_up_and_is_never_guessed(
    tmp_path: Path, setting: str, kind: str, record: object
) -> None:
    many = {f"10.{number // 128}.{number % 128 * 2}.0/24": SOUND[setting] for number in range(1000)}
    databases = load(**{setting: write(tmp_path / "x.mmdb", {**many, "198.51.100.7/32": record}, kind)})
    for _ in range(2):
        with pytest.raises(GeoDown, match=rf"geo\.{setting}: {kind} .* is damaged \(.*\); fetch it anew") as caught:
            databases.look_up(INSIDE)
        assert "198.51" not in str(caught.value)
    assert databases.look_up(ip_address("198.51.100.8")) == Place(version=databases.version)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Gdańsk", "Gdańsk"),
        ("東京", "東京"),
        ("A\r\nB\x00\x1b[1mC\u202e", "AB[1mC"),
        ("\x07", None),
        ("", None),
        ("x" * 500_000, "x" * 100),
    ],
    ids=["polish", "japanese", "control", "bell", "empty", "500 KB"],
)
def test_a_citys_name_is_cleaned_and_cut(tmp_path: Path, name: str, shown: str | None) -> None:
    databases = load(city=write(tmp_path / "x.mmdb", {ONE: {"city": {"names": {"en": name, "pl": "?"}}}}))
    assert databases.look_up(INSIDE).city == shown


# What happens to the file later

LIMITS = """
import resource, signal, sys
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
signal.alarm(50)
from ipaddress import ip_address
from pathlib import Path
"""
UNDER_LOAD = """
import threading, time
path, address = Path(sys.argv[1]), ip_address("198.51.100.7")
{load}
whole, done = path.read_bytes(), threading.Event()

def spoil():
    number = 0
    while not done.is_set():
        number += 1
        path.write_bytes((b"", whole[: number * 37 % len(whole)], b"\\xff" * len(whole), whole[::-1])[number % 4])
    path.unlink()

thread = threading.Thread(target=spoil)
thread.start()
until, count = time.monotonic() + 0.5, 0
while time.monotonic() < until:
    assert ask(address) == "Warsaw"
    count += 1
done.set()
thread.join()
assert ask(address) == "Warsaw"
print(count)
"""
OURS = """
from gateway.backends.maxmind import Databases
databases = Databases.load(city=path, asn=None, anonymous=None)
def ask(address):
    return databases._find(address).city  # not what is remembered
"""
NAIVE = """
from geoip2.database import Reader
reader = Reader(path)
def ask(address):
    return reader.city(address).city.name
"""


def child(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", LIMITS + code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=55)


def test_a_file_overwritten_and_truncated_under_load_changes_no_answer(paths: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "x.mmdb"
    path.write_bytes(paths["city"].read_bytes())
    shown = child(UNDER_LOAD.format(load=OURS), str(path))
    assert shown.returncode == 0, shown.stderr
    assert int(shown.stdout) > 100


@pytest.mark.skipif(sys.platform != "linux", reason="what a truncated map does elsewhere is another matter")
def test_a_reader_that_maps_the_file_itself_would_die_of_it(paths: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "x.mmdb"
    path.write_bytes(paths["city"].read_bytes())
    shown = child(UNDER_LOAD.format(load=NAIVE), str(path))
    # An error, a crash, or pointers that lead in a circle for ever.
    assert shown.returncode in (1, -signal.SIGBUS, -signal.SIGSEGV, -signal.SIGALRM)


FUZZ = """
import random
from gateway.backends.maxmind import Databases
from gateway.errors import GeoDown, SettingsError
setting, path = sys.argv[1], Path(sys.argv[2])
whole, spoilt = path.read_bytes(), path.with_suffix(".spoilt")
addresses = [ip_address(f"{net}.{last}") for net in ("192.0.2", "198.51.100", "203.0.113") for last in range(0, 256, 8)]
addresses += [ip_address(f"2001:db8:{net:x}::1") for net in (1, 2, 0x42, 0x99)]
refused = down = 0
for seed in range(80):
    chance, data = random.Random(seed), bytearray(whole)
    # The first 96 nodes (of 6 bytes) of the tree are the way to IPv4; what comes after them is more to the point.
    for _ in range(chance.choice((1, 1, 2, 8))):
        data[chance.randrange(576, len(data))] = chance.randrange(256)
    spoilt.write_bytes(data)
    try:
        databases = Databases.load(**{"city": None, "asn": None, "anonymous": None, setting: spoilt})
    except SettingsError as error:
        assert str(error).isprintable()
        refused += 1
        continue
    for address in addresses:
        try:
            place = databases.look_up(address)
        except GeoDown:
            down += 1
        else:
            assert len(repr(place)) < 500 and repr(place).isprintable()
    databases.close()
print(refused, down)
"""


@pytest.mark.parametrize("setting", ["city", "asn", "anonymous"])
def test_a_damaged_byte_is_refused_or_does_no_harm(paths: dict[str, Path], tmp_path: Path, setting: str) -> None:
    path = tmp_path / "x.mmdb"
    path.write_bytes(paths[setting].read_bytes())
    shown = child(FUZZ, setting, str(path))
    assert shown.returncode == 0, shown.stderr
    assert int(shown.stdout.split()[0]) > 10


BOMB = """
from gateway.backends import maxmind
from gateway.errors import SettingsError
maxmind._HAS_C_READER = maxmind._HAS_C_READER and sys.argv[2] == "c"
try:
    maxmind.Databases.load(city=Path(sys.argv[1]), asn=None, anonymous=None)
except SettingsError as error:
    print(error)
# Not ru_maxrss, which a child inherits from whoever started it.
(most,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
print(int(most.split()[1]) >> 10)
"""


@pytest.mark.parametrize("reader", ["c", "python"])
def test_a_record_made_to_explode_is_refused(tmp_path: Path, reader: str) -> None:
    """Sixty arrays, each of twice the one before: 2^60 texts in 400 bytes."""
    encoder = Encoder(cache=False)
    data, last = encoder.encode("x"), 0
    for _ in range(60):
        last, data = len(data), data + b"\x02\x04" + encoder._encode_pointer(last) * 2
    bomb, data = len(data), data + b"\xe1" + encoder.encode("names") + encoder._encode_pointer(last)
    whole = write(tmp_path / "x.mmdb", {ONE: {"names": "?"}}, ip_version=4).read_bytes()
    metadata = whole[whole.index(b"\xab\xcd\xefMaxMind.com") :].replace(b"\xc1\x18", b"\xc1\x01")
    (tmp_path / "x.mmdb").write_bytes((17 + bomb).to_bytes(3) * 2 + bytes(16) + data + metadata)
    shown = child(BOMB, str(tmp_path / "x.mmdb"), reader)
    assert shown.returncode == 0, shown.stderr
    text, memory = shown.stdout.splitlines()
    assert "is no MaxMind database, or a damaged one (InvalidDatabaseError)" in text
    assert int(memory) < 200


def test_the_reader_without_c_says_the_same(paths: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    quick = Databases.load(**paths)
    monkeypatch.setattr(maxmind, "_HAS_C_READER", False)
    slow = Databases.load(**paths)
    for network in map(ip_network, NETWORKS):
        assert slow.look_up(network.network_address) == quick.look_up(network.network_address)


def test_nothing_stays_open_but_what_is_in_use(paths: dict[str, Path]) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").is_dir() else 0

    def copies() -> int:
        maps = Path("/proc/self/maps")
        return maps.read_text().count("memfd:geo") if maps.exists() else 0

    gc.collect()  # what other tests have left open
    before = descriptors(), copies()
    for _ in range(5):
        Databases.load(**paths).close()
        refusal(city=paths["city"].parent)
    with pytest.raises(SettingsError) as caught:
        load(city=paths["city"], asn=paths["city"])
    assert (descriptors(), copies()) == before  # though the error is still at hand, and its frames with it
    assert caught.value


@pytest.mark.skipif(sys.platform != "linux", reason="files in memory are Linux's")
def test_copies_outlive_files_and_process(paths: dict[str, Path], tmp_path: Path) -> None:
    """Another process, which has only inherited descriptors, says the same."""
    named = {setting: Path(shutil.copy(path, tmp_path / f"{setting}.mmdb")) for setting, path in paths.items()}
    databases = Databases.load(**named)
    for path in named.values():
        path.write_bytes(b"broken")
    arguments = [json.dumps(dict(databases.copies)), json.dumps({name: str(path) for name, path in named.items()})]
    command = [sys.executable, "-c", COPIES, *arguments, str(INSIDE)]
    shown = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=55, pass_fds=databases.copies.values()
    )
    assert shown.stdout == f"{databases.look_up(INSIDE)}\n", shown.stderr
    with pytest.raises(SettingsError, match=r"geo.city: .*other.mmdb"):
        Databases.load_copies(databases.copies, tmp_path / "other.mmdb", None, None)
    databases.close()


COPIES = """
import json, sys
from ipaddress import ip_address
from pathlib import Path
from gateway.backends.maxmind import Databases
copies, named = json.loads(sys.argv[1]), json.loads(sys.argv[2])
databases = Databases.load_copies(copies, **{name: Path(path) for name, path in named.items()})
print(databases.look_up(ip_address(sys.argv[3])))
"""


def test_closed_databases_answer_nothing(paths: dict[str, Path]) -> None:
    databases = Databases.load(**paths)
    databases.look_up(INSIDE)
    databases.close()
    with pytest.raises(GeoDown):
        databases.look_up(INSIDE)


def test_a_fingerprint_changes_with_every_way_to_replace_a_file(paths: dict[str, Path], tmp_path: Path) -> None:
    def place(folder: str) -> Path:
        (tmp_path / folder).mkdir()
        return write(tmp_path / folder / "city.mmdb", {ONE: POLAND})

    place("v1")
    place("v2")
    (tmp_path / "current").symlink_to("v1")
    path = tmp_path / "current" / "city.mmdb"
    seen = [fingerprint([path, None])]
    assert fingerprint([path, None]) == seen[0]

    def has_changed() -> bool:
        now = fingerprint([path, None])
        known = now in seen
        seen.append(now)
        return not known

    (tmp_path / "next").symlink_to("v2")
    (tmp_path / "next").replace(tmp_path / "current")
    assert has_changed()
    path.write_bytes(path.read_bytes())
    assert has_changed()
    (tmp_path / "new").write_bytes(path.read_bytes())
    (tmp_path / "new").replace(path)
    assert has_changed()
    path.unlink()
    assert has_changed()
    assert fingerprint([path, None]) == seen[-1]
    assert fingerprint([None, None]) != fingerprint([None, path])
    hash(seen[0])
