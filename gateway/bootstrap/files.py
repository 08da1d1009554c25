"""What is read from files: rules, products and geo databases; the latter two watched, each with its last good copy."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path

from gateway.backends import maxmind, rules_file
from gateway.backends.maxmind import Databases
from gateway.backends.memory_file import MemoryFile
from gateway.backends.products_file import ProductsFile
from gateway.backends.rules_file import Examined, RulesFile
from gateway.errors import SettingsError
from gateway.policy.products import NO_PRODUCTS, Catalogue
from gateway.policy.ruleset import NO_RULES, RuleSet
from gateway.services.reloading import Keeper, Watched
from gateway.settings import Settings


def read_rules(settings: Settings, *, tested: bool = True) -> RuleSet:
    """The settings' rules as they are now, or NO_RULES. Raises SettingsError with a line per mistake, and, if `tested`,
    per failing test.
    """
    if settings.rules is None:
        return NO_RULES
    return rules_file.read_rules(settings.rules, databases_of(settings), tested=tested)


def examine_rules(path: Path, databases: Collection[str] | None) -> Examined:
    """All that can be said of a rules file and the tests beside it, right or wrong. `databases`: the settings' own;
    None: nobody knows them.
    """
    return rules_file.examine(path, databases, tested=True)


def read_candidate(settings: Settings) -> RuleSet:
    """The rules that are judged beside those in force, or NO_RULES. Raises SettingsError with a line per mistake."""
    if settings.rules_candidate is None:
        return NO_RULES
    return RulesFile(settings.rules_candidate, databases_of(settings)).read_if_there()


def read_products(settings: Settings, rules: RuleSet) -> Catalogue:
    """The settings' products as they are now, or NO_PRODUCTS. Raises SettingsError with a line per mistake."""
    if settings.products is None:
        return NO_PRODUCTS
    return ProductsFile(settings.products, hosts=settings.external_hosts, plans=lambda: rules.plans).read()


def check_policy(settings: Settings) -> None:
    """Read rules and geo databases once, so that nothing is started that could not serve. Raises SettingsError."""
    mistakes = []
    for read in (lambda settings: read_products(settings, read_rules(settings)), read_geo):
        try:
            read(settings)
        except SettingsError as error:
            mistakes.append(str(error))
    if mistakes:
        raise SettingsError("\n".join(mistakes))


def databases_of(settings: Settings) -> frozenset[str]:
    """The geo databases that the settings name, of `city`, `asn` and `anonymous`."""
    geo = settings.geo
    named = {"city": geo and geo.city, "asn": geo and geo.asn, "anonymous": geo and geo.anonymous}
    return frozenset(name for name, path in named.items() if path is not None)


def read_geo(settings: Settings) -> Databases:
    """The settings' geo databases; of none, every address is an unknown place. Raises SettingsError."""
    geo = settings.geo
    return Databases() if geo is None else Databases.load(geo.city, geo.asn, geo.anonymous)


def watched_geo(settings: Settings, keeper: Keeper) -> Watched[Databases]:
    what, geo = "geo databases", settings.geo
    if geo is None:
        return Watched(what, Databases, None)

    def last_good() -> Databases | None:
        copies = keeper.kept(what)
        return Databases.load_copies(copies, geo.city, geo.asn, geo.anonymous) if copies else None

    return Watched(
        what,
        lambda: read_geo(settings),
        partial(maxmind.fingerprint, (geo.city, geo.asn, geo.anonymous)),
        # A look-up never spans an await, so on the event loop none can be under way in what is being closed.
        Databases.close,
        keep=lambda databases: keeper.keep(what, databases.copies),
        last_good=last_good,
    )


def watched_products(settings: Settings, keeper: Keeper, plans: Callable[[], Collection[str]]) -> Watched[Catalogue]:
    """The products file, checked against the plans that are in force; without one nothing is given."""
    what = "products"
    if settings.products is None:
        return Watched(what, lambda: NO_PRODUCTS, None)
    file, name = ProductsFile(settings.products, hosts=settings.external_hosts, plans=plans), str(settings.products)

    def keep(_: Catalogue) -> None:
        if copy := file.take_copy():
            keeper.keep(what, {name: copy.fileno()})

    def last_good() -> Catalogue | None:
        copy = keeper.kept(what).get(name)
        return None if copy is None else file.read_copy(MemoryFile.of(copy).read())

    return Watched(what, file.read, file.fingerprint, keep=keep, last_good=last_good)
