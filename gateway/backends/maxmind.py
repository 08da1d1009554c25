"""MaxMind databases (.mmdb): copied to memory, probed, then asked. What happens to the files later touches no look-up.

What a database says is not trusted: codes are right or it is broken (GeoDown), names are cleaned and cut.
"""

from __future__ import annotations

import errno
import importlib.util
import io
import logging
import os
import re
import stat
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Self

from geoip2.database import MODE_FD, MODE_MMAP_EXT, Reader
from geoip2.errors import AddressNotFoundError
from geoip2.models import ASN, AnonymousIP, City, Country

from gateway.backends.file_signature import signature
from gateway.backends.memory_file import MemoryFile
from gateway.errors import GeoDown, SettingsError
from gateway.policy.model import Address, Place

log = logging.getLogger(__name__)

SIZE_MAX = 1 << 30
"""Bytes; the largest commercial database is smaller, and a file is held in memory as a whole."""
REMEMBERED = 4096
"""Addresses whose places are kept: the ranges of one download all come from one address."""

_Model = Country | ASN | AnonymousIP
_Ask = Callable[[Reader, Address], _Model]

# The part of a database's type that geoip2 asks for, with what reads it. Other makers write it too ("DBIP-City-Lite").
_TYPES: dict[str, tuple[tuple[str, _Ask], ...]] = {
    "city": (("Enterprise", Reader.enterprise), ("City", Reader.city), ("Country", Reader.country)),
    "asn": (("GeoLite2-ASN", Reader.asn), ("GeoIP2-ISP", Reader.isp)),
    "anonymous": (("GeoIP2-Anonymous-IP", Reader.anonymous_ip), ("GeoIP-Anonymous-Plus", Reader.anonymous_plus)),
}
_RIGHT = {
    "city": "GeoLite2-City, GeoLite2-Country or their GeoIP2 kin",
    "asn": "GeoLite2-ASN or GeoIP2-ISP",
    "anonymous": "GeoIP2-Anonymous-IP or GeoIP-Anonymous-Plus",
}
_NOT_DATABASES = (
    (0, b"\x1f\x8b", "is gzipped; unpack it and name the .mmdb file inside"),
    (0, b"PK\x03\x04", "is a ZIP archive; unpack it and name the .mmdb file inside"),
    # A plain tar of a database opens cleanly and answers nonsense: the metadata are found from the end.
    (257, b"ustar", "is a tar archive; unpack it and name the .mmdb file inside"),
    (0, b"<", "is a web page, not a database: the download was refused; look into it, then fetch it anew"),
)

_COUNTRY = re.compile(r"[A-Z]{2}")
_SUBDIVISION = re.compile(r"[A-Z0-9]{1,3}")
_CONTINENT = re.compile(r"A[FNS]|EU|NA|OC|SA")
_ASN_MAX = 2**32 - 1
_CITY_MAX = 100
_TYPE_MAX = 60

_BLOCK, _HEAD = 1 << 20, 512
_HAS_C_READER = importlib.util.find_spec("maxminddb.extension") is not None and Path("/proc/self/fd").is_dir()

_IPV4 = 4
_PROBES = 512
_FIRST_IPV6 = 0x2 << 124  # 2000::/3 is what has been given out (RFC 4291 §2.4)
# Multiples of these (of the golden ratio) lie evenly in the 32 bits of IPv4 and the 125 of 2000::/3.
_STEP_IPV4, _STEP_IPV6 = 0x9E3779B1, 0x13C6EF372FE94F82BE8FA9F28C5C7D8B


@dataclass(frozen=True, slots=True)
class _Database:
    """One open database; `title` is its type and build date, `copy` what the C reader has mapped."""

    setting: str
    path: Path
    copy: MemoryFile | None
    reader: Reader
    ask: _Ask
    ipv4_only: bool
    title: str

    def close(self) -> None:
        self.reader.close()
        if self.copy is not None:
            self.copy.close()

    def get(self, address: Address) -> Place:
        """What this database says of the address. Raises GeoDown."""
        try:
            return self._tell(address)
        except Exception as error:  # noqa: BLE001  a damaged file breaks its reader in ways that nobody has listed
            raise GeoDown(f"geo.{self.setting}: {self.title} is damaged ({_named(error)}); fetch it anew") from None

    def probe(self) -> None:
        """Decode some thousand records, spread out and side by side, in both address families. Raises what breaks."""
        for number in range(1, _PROBES + 1):
            self._tell(IPv4Address(number * _STEP_IPV4 % 2**32))
            self._tell(IPv6Address(_FIRST_IPV6 + number * _STEP_IPV6 % 2**125))
        self._walk(0, 2**32, IPv4Address)
        if not self.ipv4_only:
            self._walk(_FIRST_IPV6, 2**128, IPv6Address)

    def _tell(self, address: Address) -> Place:
        if self.ipv4_only and isinstance(address, IPv6Address):
            return _NOWHERE
        try:
            return _place(self.ask(self.reader, address))
        except AddressNotFoundError:
            return _NOWHERE

    def _walk(self, start: int, end: int, family: type[IPv4Address] | type[IPv6Address]) -> None:
        """From network to network: in a small or sparse database the spread addresses would fall between records."""
        for _ in range(_PROBES):
            if start >= end:
                return
            try:
                model = self.ask(self.reader, family(start))
                _place(model)
                network = model.traits.network if isinstance(model, Country) else model.network
            except AddressNotFoundError as missing:
                network = missing.network
            start = max(start, int(network.broadcast_address) if network else 0) + 1


class Databases:
    """GeoLookup over the databases that the settings name; with none of them every address is a Place of Nones."""

    def __init__(self, opened: Iterable[_Database] = ()) -> None:
        by_setting = {database.setting: database for database in opened}
        self._all = tuple(by_setting[setting] for setting in _TYPES if setting in by_setting)
        self._city, self._asn, self._anonymous = (by_setting.get(setting) for setting in _TYPES)
        self.version = ", ".join(database.title for database in self._all)
        self._remembered = lru_cache(REMEMBERED)(self._find)

    @property
    def copies(self) -> Mapping[str, int]:
        """By its path, a descriptor of each database's bytes, good until `close`; another process can `load` them."""
        return {str(each.path): each.copy.fileno() for each in self._all if each.copy is not None}

    @classmethod
    def load(cls, city: Path | None, asn: Path | None, anonymous: Path | None) -> Self:
        """Open them all. Blocks for as long as reading the files takes. Raises SettingsError, a line per mistake."""
        return cls._load(city, asn, anonymous, None)

    @classmethod
    def load_copies(
        cls, copies: Mapping[str, int], city: Path | None, asn: Path | None, anonymous: Path | None
    ) -> Self:
        """`load` from what the `copies` of another process's databases gave, in place of the files."""
        return cls._load(city, asn, anonymous, copies)

    @classmethod
    def _load(
        cls, city: Path | None, asn: Path | None, anonymous: Path | None, copies: Mapping[str, int] | None
    ) -> Self:
        opened: list[_Database] = []
        mistakes: list[str] = []
        for setting, path in (("city", city), ("asn", asn), ("anonymous", anonymous)):
            try:
                if path is not None:
                    opened.append(_open(setting, path, copies))
            except SettingsError as error:
                mistakes.append(str(error))
        if mistakes:
            for database in opened:
                database.close()
            raise SettingsError("\n".join(mistakes))
        return cls(opened)

    def look_up(self, address: Address) -> Place:
        """See GeoLookup. The country is where the address is used, never the one it is merely registered in."""
        return self._remembered(address)

    def close(self) -> None:
        """Give the memory back. Not while another thread looks something up; look-ups after it raise GeoDown."""
        self._remembered.cache_clear()
        for database in self._all:
            database.close()

    def _find(self, address: Address) -> Place:
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        where = self._city.get(address) if self._city else _NOWHERE
        return Place(
            country=where.country,
            continent=where.continent,
            region=where.region,
            city=where.city,
            asn=self._asn.get(address).asn if self._asn else None,
            network=self._anonymous.get(address).network if self._anonymous else None,
            version=self.version,
        )


def fingerprint(paths: Iterable[Path | None]) -> Hashable:
    """Changes whenever one of the files is replaced, rewritten, removed or re-linked; costs a stat each."""
    return tuple(None if path is None else signature(path) for path in paths)


_NOWHERE = Place()


def _place(model: _Model) -> Place:
    """The one database's part of a Place. Raises _Malformed, or whatever a value of a wrong type leads to."""
    if isinstance(model, ASN):
        return Place(asn=_number(model.autonomous_system_number))
    if isinstance(model, AnonymousIP):
        return Place(network=_networks(model))
    country = _code(model.country.iso_code, _COUNTRY)
    continent = _code(model.continent.code, _CONTINENT)
    if not isinstance(model, City):
        return Place(country=country, continent=continent)
    first = model.subdivisions[0].iso_code if model.subdivisions else None
    subdivision = _code(first, _SUBDIVISION)
    region = f"{country}-{subdivision}" if country and subdivision else None
    return Place(country=country, continent=continent, region=region, city=_name(model.city.name))


def _networks(model: AnonymousIP) -> frozenset[str]:
    flags = (
        ("hosting", model.is_hosting_provider),
        ("vpn", model.is_anonymous_vpn),
        ("proxy", model.is_public_proxy),
        ("proxy", model.is_residential_proxy),
        ("tor", model.is_tor_exit_node),
        ("anonymous", model.is_anonymous),
    )
    if not all(isinstance(flag, bool) for _, flag in flags):
        raise _Malformed("a flag is no boolean")
    return frozenset(name for name, flag in flags if flag)


def _code(value: object, pattern: re.Pattern[str]) -> str | None:
    """Rules compare codes, so one that is none must not pass as one that merely differs."""
    if value is None or value == "":
        return None
    if isinstance(value, str) and pattern.fullmatch(value):
        return value
    raise _Malformed("a code is malformed")


def _number(value: object) -> int | None:
    if value is None:
        return None
    if type(value) is int and 0 <= value <= _ASN_MAX:
        return value
    raise _Malformed("an AS number is none")


def _name(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, str):
        return _clean(value, _CITY_MAX) or None
    raise _Malformed("a name is no text")


def _clean(text: str, length: int) -> str:
    """Without control characters and such, at most `length` characters; the cut comes first, for a name of 10 MB."""
    return "".join(letter for letter in text[:length] if letter.isprintable()).strip()


class _Malformed(ValueError):
    """A value that no sound database has; the text does not repeat it."""


class _Unusable(Exception):
    """What is wrong with a file, as the end of a sentence that begins with its path."""


def _open(setting: str, path: Path, copies: Mapping[str, int] | None) -> _Database:
    """Loaded and probed. Raises SettingsError."""
    try:
        copy = _load(path) if copies is None else MemoryFile.of(copies[str(path)])
        database = _identified(setting, path, copy)
        database.probe()
    except _Unusable as error:
        what = str(error)
    except OSError as error:
        what = f"cannot be read: {os.strerror(error.errno or errno.EIO)}; check the path and its permissions"
    except Exception as error:  # noqa: BLE001  a damaged file breaks its reader in ways that nobody has listed
        what = f"is no MaxMind database, or a damaged one ({_named(error)}); fetch it anew"
    else:
        return database
    raise SettingsError(f"geo.{setting}: {path} {what}")


def _load(path: Path) -> MemoryFile | io.BytesIO:
    """A copy in memory. Raises _Unusable, OSError."""
    # O_NONBLOCK: opening a FIFO must not wait for a writer.
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        before = os.fstat(file)
        _check(before)
        _check_head(os.pread(file, _HEAD, 0))
        copy = _copy(file, before.st_size)
        after = os.fstat(file)
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise _Unusable("was written to while it was read; rename a complete file to its name instead")
        return copy
    finally:
        os.close(file)


def _check(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise _Unusable("is a folder; name the .mmdb file in it")
    if not stat.S_ISREG(status.st_mode):
        raise _Unusable("is no regular file; name an .mmdb file")
    if status.st_size == 0:
        raise _Unusable("is empty, as after a download that failed; fetch it anew")
    if status.st_size > SIZE_MAX:
        raise _Unusable(f"has {status.st_size:,} bytes, more than the {SIZE_MAX:,} that are taken into memory")


def _check_head(head: bytes) -> None:
    for offset, mark, what in _NOT_DATABASES:
        if head[offset : offset + len(mark)] == mark:
            raise _Unusable(what)


def _copy(file: int, size: int) -> MemoryFile | io.BytesIO:
    """The file's bytes in memory, for the C reader, which is many times faster but opens nothing except a path; a plain
    buffer where there is none such.
    """
    copy = MemoryFile.written("geo", _blocks(file, size)) if _HAS_C_READER else None
    return copy or io.BytesIO(b"".join(_blocks(file, size)))


def _blocks(file: int, size: int) -> Iterator[bytes]:
    left = size
    while left > 0 and (block := os.read(file, min(left, _BLOCK))):
        left -= len(block)
        yield block


def _reader(copy: MemoryFile | io.BytesIO) -> Reader:
    if isinstance(copy, io.BytesIO):
        log.warning("geo: no C reader of MaxMind databases here; each look-up takes several times as long")
        return Reader(copy, mode=MODE_FD)
    return Reader(copy.path, mode=MODE_MMAP_EXT)


def _identified(setting: str, path: Path, copy: MemoryFile | io.BytesIO) -> _Database:
    """Which database this is. Raises _Unusable where it is not for that setting, or whatever the library does."""
    reader = _reader(copy)
    metadata = reader.metadata()
    kind: object = metadata.database_type  # as the file has it, whatever the library promises
    if not isinstance(kind, str) or metadata.ip_version not in (4, 6):
        raise _Malformed("its metadata make no sense")
    name = _clean(kind, _TYPE_MAX)
    for own, types in _TYPES.items():
        for part, ask in types:
            if part not in kind:
                continue
            if own == setting:
                title = " ".join(filter(None, (name, _date(metadata.build_epoch))))
                kept = copy if isinstance(copy, MemoryFile) else None
                return _Database(setting, path, kept, reader, ask, metadata.ip_version == _IPV4, title)
            raise _Unusable(f"is a {name} database, which belongs to geo.{own}; right here would be {_RIGHT[setting]}")
    raise _Unusable(f"is a {name!r} database, which no setting takes; right here would be {_RIGHT[setting]}")


def _date(epoch: object) -> str:
    """When it was built (UTC); nothing where the number is beyond any calendar."""
    try:
        return f"{datetime.fromtimestamp(epoch, UTC):%Y-%m-%d}" if isinstance(epoch, int) else ""
    except (ValueError, OverflowError, OSError):
        return ""


def _named(error: Exception) -> str:
    """What went wrong; a library's own text may repeat what the file says."""
    return str(error) if isinstance(error, _Malformed) else type(error).__name__
