"""The products file, read and checked against settings and rules: a Catalogue, or every mistake in one error.

What was read decides the version; the fingerprint says, without reading, whether it is to be read again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable
from pathlib import Path

from gateway.backends.file_signature import signature
from gateway.backends.memory_file import MemoryFile
from gateway.backends.watched_text import Reading, Texts, packed, unpacked
from gateway.errors import SettingsError
from gateway.policy.products import Catalogue
from gateway.policy.products_reader import ProductsReader, read_catalogue
from gateway.yaml_file import Bounds

BOUNDS = Bounds("products", size=4 * 1024 * 1024, nodes=300_000)

Plans = Callable[[], Collection[str]]


class ProductsFile:
    """A products file that is read again and again. `hosts`: the settings' external_hosts; `plans` gives the names of
    the plans that are in force at the time. None leaves either unchecked.
    """

    def __init__(self, path: Path, *, hosts: Collection[str] | None, plans: Plans | None) -> None:
        self._path = path
        self._hosts = hosts
        self._plans = plans
        self._read: Texts = {}

    def read(self) -> Catalogue:
        """The file as it is now. Raises SettingsError with all mistakes, a line each. Blocks."""
        self._read = {}
        reading = Reading()
        catalogue = self._catalogue(reading, None if self._plans is None else self._plans())
        self._read = reading.read
        return catalogue

    def fingerprint(self) -> Hashable:
        """Changes whenever the file changes, and whenever the names of the plans do: it is right or wrong with them."""
        return signature(self._path), None if self._plans is None else tuple(sorted(self._plans()))

    def take_copy(self) -> MemoryFile | None:
        """What was read last, for a `read_copy` in another process; it is given once. None where it cannot be kept."""
        texts, self._read = self._read, {}
        return packed("products", texts)

    def read_copy(self, copy: bytes) -> Catalogue:
        """The products as they were when the copy was taken, whatever plans there are now. Raises SettingsError,
        ValueError.
        """
        return self._catalogue(Reading(unpacked(copy)), None)

    def _catalogue(self, reading: Reading, plans: Collection[str] | None) -> Catalogue:
        tree = reading.document(self._path, BOUNDS, "name a readable file at `products` in the settings")
        if tree is not None:
            reader = ProductsReader(reading.mistakes, self._hosts, plans)
            catalogue = read_catalogue(tree, reader, reading.version)
            if not reading.mistakes.keys:
                return catalogue
        raise SettingsError(reading.mistakes.report())


def read_products(path: Path, *, hosts: Collection[str] | None, plans: Collection[str] | None) -> Catalogue:
    """The products of this file, once. Raises SettingsError with all mistakes, a line each. Blocks."""
    return ProductsFile(path, hosts=hosts, plans=None if plans is None else lambda: plans).read()
