"""Small geo databases for the demo and the tests, over the networks that stand for examples (RFC 5737, RFC 3849).

NETWORKS says what each of them means; all that is not in it is unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from gateway.errors import SettingsError
from gateway.policy.model import Place

OFFICE, OFFICE_IPV6 = "203.0.113.0/24", "2001:db8:42::/48"

_WARSAW = Place(country="PL", continent="EU", region="PL-14", city="Warsaw")

# Disjoint; the AS numbers are those of RFC 5398. As in MaxMind's own data, whatever hides somebody is `anonymous` too,
# and a network that hides nobody is not in that database at all.
NETWORKS: Mapping[str, Place] = {
    OFFICE: replace(_WARSAW, asn=64496),
    OFFICE_IPV6: replace(_WARSAW, asn=64496),
    "198.51.100.0/26": replace(_WARSAW, asn=64500),
    "198.51.100.64/26": Place(country="CU", continent="NA", region="CU-03", city="Havana", asn=64501),
    "198.51.100.128/26": Place(country="DE", continent="EU", region="DE-BY", city="Munich", asn=64502),
    "198.51.100.192/26": Place(),
    "192.0.2.0/25": Place(
        country="US",
        continent="NA",
        region="US-VA",
        city="Ashburn",
        asn=64510,
        network=frozenset({"hosting", "anonymous"}),
    ),
    "192.0.2.128/26": Place(country="DE", continent="EU", asn=64511, network=frozenset({"vpn", "anonymous"})),
    "192.0.2.192/27": Place(country="NL", continent="EU", asn=64511, network=frozenset({"tor", "anonymous"})),
    "192.0.2.224/28": Place(country="GB", continent="EU", region="GB-ENG", network=frozenset({"proxy", "anonymous"})),
    "192.0.2.240/28": Place(network=frozenset({"anonymous"})),
    "2001:db8:1::/48": Place(country="PL", continent="EU", region="PL-22", city="Gdańsk", asn=64500),
    "2001:db8:2::/48": Place(country="US", continent="NA", asn=64510, network=frozenset({"hosting", "anonymous"})),
}

_FLAGS = {
    "hosting": "is_hosting_provider",
    "vpn": "is_anonymous_vpn",
    "proxy": "is_public_proxy",
    "tor": "is_tor_exit_node",
    "anonymous": "is_anonymous",
}

_Value = str | int | bool | list["_Value"] | dict[str, "_Value"]
_Record = dict[str, _Value]


def build_demo_databases(folder: Path) -> dict[str, Path]:
    """Write the three databases into the folder; returns their paths by setting (`geo.city` …).

    The same bytes every time, but for the build date. Raises SettingsError without the extra `demo`, and OSError.
    """
    return {
        "city": _write(folder / "GeoLite2-City.mmdb", _city),
        "asn": _write(folder / "GeoLite2-ASN.mmdb", _asn),
        "anonymous": _write(folder / "GeoIP2-Anonymous-IP.mmdb", _anonymous),
    }


def _write(path: Path, record_of: Callable[[Place], _Record]) -> Path:
    try:
        from mmdb_writer import MMDBWriter  # noqa: PLC0415  only the extra `demo` brings it

        # The library has no types.
        from netaddr import IPSet  # type: ignore[import-untyped]  # noqa: PLC0415  only the extra `demo` brings it
    except ImportError:
        raise SettingsError(
            "mmdb-writer is missing, which makes the demo's geo data; `make setup` installs it"
        ) from None
    writer = MMDBWriter(
        ip_version=6,
        ipv4_compatible=True,
        database_type=path.stem,
        languages=["en"],
        description="Examples of download-gateway; nothing in it is true",
    )
    for network, place in NETWORKS.items():
        if record := record_of(place):
            writer.insert_network(IPSet([network]), record)
    complete = path.with_suffix(".new")
    writer.to_db_file(str(complete))
    return complete.replace(path)


def _city(place: Place) -> _Record:
    record: _Record = {}
    if place.continent:
        record["continent"] = {"code": place.continent}
    if place.country:
        record["country"] = {"iso_code": place.country}
    if place.region:
        record["subdivisions"] = [{"iso_code": place.region.partition("-")[2]}]
    if place.city:
        record["city"] = {"names": {"en": place.city}}
    return record


def _asn(place: Place) -> _Record:
    if place.asn is None:
        return {}
    return {"autonomous_system_number": place.asn, "autonomous_system_organization": f"Example {place.asn}"}


def _anonymous(place: Place) -> _Record:
    return {_FLAGS[name]: True for name in sorted(place.network or ())}
