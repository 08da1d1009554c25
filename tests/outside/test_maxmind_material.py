"""MaxMind's own test databases say what MaxMind says they say; the broken ones are refused or do no harm."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from ipaddress import ip_address
from pathlib import Path

import pytest

from gateway.backends.maxmind import Databases

FOLDER = Path(__file__).parents[2] / ".." / "shared" / "material" / "maxmind"
TEST = FOLDER / "test-data"
FILES = sorted([*TEST.glob("*.mmdb"), *(FOLDER / "bad-data").rglob("*.mmdb")])
pytestmark = pytest.mark.skipif(not FILES, reason="the collected test material is not beside this checkout")

ROWS = json.loads((FOLDER / "ip_lookup_cases.json").read_text())["rows"] if FILES else []
FLAGS = {
    "is_hosting_provider": "hosting",
    "is_anonymous_vpn": "vpn",
    "is_public_proxy": "proxy",
    "is_residential_proxy": "proxy",
    "is_tor_exit_node": "tor",
    "is_anonymous": "anonymous",
}


@cache
def loaded(city: str) -> Databases:
    asn, anonymous = TEST / "GeoLite2-ASN-Test.mmdb", TEST / "GeoIP2-Anonymous-IP-Test.mmdb"
    return Databases.load(city=TEST / f"{city}-Test.mmdb", asn=asn, anonymous=anonymous)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["ip"])
def test_an_address_is_where_maxmind_says(row: dict[str, object]) -> None:
    address = ip_address(str(row["ip"]))
    lite, country, city = (
        loaded(name).look_up(address) for name in ("GeoLite2-Country", "GeoIP2-Country", "GeoIP2-City")
    )
    assert (lite.country, lite.continent) == (row["GeoLite2-Country.country"], row["GeoLite2-Country.continent"])
    assert country.country == row["GeoIP2-Country.country"]
    assert (city.country, city.city) == (row["GeoIP2-City.country"], row["GeoIP2-City.city"])
    flags = row["anon"]
    assert flags is None or isinstance(flags, dict)
    network = None if flags is None else {FLAGS[name] for name, value in flags.items() if value}
    for place in (lite, country, city):
        assert (place.asn, place.network) == (row["asn"], network)


def test_the_rows_know_every_answer() -> None:
    assert {flag for row in ROWS for flag, value in (row["anon"] or {}).items() if value} == set(FLAGS)
    assert any(row["GeoIP2-City.city"] for row in ROWS)
    assert any(row["GeoLite2-Country.country"] != row["GeoLite2-Country.registered"] for row in ROWS)


@pytest.mark.parametrize(
    ("address", "region"), [("81.2.69.160", "GB-ENG"), ("2.125.160.216", "GB-ENG"), ("89.160.20.112", "SE-E")]
)
def test_a_region_of_the_city_database(address: str, region: str) -> None:
    assert loaded("GeoIP2-City").look_up(ip_address(address)).region == region


OWNERS = {
    "city": ("City", "Country", "Enterprise"),
    "asn": ("GeoLite2-ASN", "GeoIP2-ISP"),
    "anonymous": ("Anonymous-IP", "Anonymous-Plus"),
}

# One line of JSON for each file and setting, so that the last one names the file that a crash came from.
CHILD = """
import json, resource, signal, sys
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
signal.alarm(50)
from ipaddress import ip_address
from pathlib import Path
from gateway.backends import maxmind
from gateway.errors import GeoDown, SettingsError

maxmind._HAS_C_READER = maxmind._HAS_C_READER and sys.argv[1] == "c"
addresses = [ip_address(text) for text in ("0.0.0.0", "1.1.1.1", "1.1.1.3", "81.2.69.160", "255.255.255.255", "::",
                                           "::1:ffff:ffff", "::2:0:40", "2001:218::1", "2a02:cf40::1", "ffff::")]
for path in map(Path, sys.argv[2:]):
    for setting in ("city", "asn", "anonymous"):
        print(json.dumps([path.name, setting]), end=" ", flush=True)
        try:
            databases = maxmind.Databases.load(**{"city": None, "asn": None, "anonymous": None, setting: path})
        except SettingsError as error:
            text = str(error)
            assert text.isprintable() and len(text) < 600, text
            print(json.dumps(text.replace(str(path), "it")), flush=True)
            continue
        broken = 0
        for address in addresses:
            try:
                databases.look_up(address)
            except GeoDown:
                broken += 1
        print(json.dumps([databases.version, broken]), flush=True)
"""


def behaviour(paths: list[Path], reader: str = "c") -> dict[tuple[str, str], object]:
    """What becomes of each file by setting: a text where it is refused, else its version and its broken look-ups."""
    command = [sys.executable, "-c", CHILD, reader, *map(str, paths)]
    shown = subprocess.run(command, capture_output=True, text=True, check=False, timeout=55)
    assert shown.returncode == 0, shown.stdout[-300:] + shown.stderr[-2000:]
    decoder, found = json.JSONDecoder(), {}
    for line in shown.stdout.splitlines():
        (name, setting), end = decoder.raw_decode(line)
        found[name, setting] = json.loads(line[end:])
    assert len(found) == 3 * len(paths)
    return found


@pytest.mark.parametrize("reader", ["c", "python"])
def test_each_file_is_taken_by_its_own_setting_or_refused(reader: str) -> None:
    taken = {key for key, value in behaviour(FILES, reader).items() if not isinstance(value, str)}
    sound = [path.name for path in TEST.glob("Geo*.mmdb") if "Broken" not in path.name and "Invalid" not in path.name]
    right = {
        (name, setting) for name in sound for setting, parts in OWNERS.items() if any(part in name for part in parts)
    }
    assert taken == right


def stumbles(path: Path, mode: str) -> bool:
    """Whether the library was seen to stumble over what the file holds (IPv6 asked of IPv4 is no such case)."""
    seen = json.loads((FOLDER / "reader_behaviour.json").read_text())["databases"][str(path.relative_to(FOLDER))][mode]
    errors = {seen["open"], *seen.get("get_errors", ()), seen.get("iter") if "iter_n" in seen else None}
    return bool(errors - {"ok", "builtins.ValueError", None})


@pytest.mark.parametrize(("reader", "mode"), [("c", "MODE_MMAP_EXT"), ("python", "MODE_MEMORY")])
def test_broken_databases_that_call_themselves_city_are_refused_too(tmp_path: Path, reader: str, mode: str) -> None:
    """Their type is Test, which alone refuses them; with another one in the same four letters, the probe has to."""
    renamed, broken = [], set()
    for path in FILES:
        whole = path.read_bytes()
        tree, mark, metadata = whole.rpartition(b"\xab\xcd\xefMaxMind.com")
        copy = tmp_path / path.name
        copy.write_bytes(tree + mark + metadata.replace(b"DTest", b"DCity"))
        renamed.append(copy)
        broken |= {path.name} if stumbles(path, mode) else set()
    found = behaviour(renamed, reader)
    assert {name for name in broken if not isinstance(found[name, "city"], str)} == set()
    assert all(value[1] == 0 for value in found.values() if not isinstance(value, str))
    assert found["libmaxminddb-uint64-max-epoch.mmdb", "city"] == ["City", 0]
    assert len(broken) >= 19
