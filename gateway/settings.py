"""Every setting, once: its name, type and default. docs/settings.md tells what each is for; a test compares the two.

All mistakes are reported together and nothing starts half-configured. Secrets are never in an error or a repr.
"""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Mapping
from itertools import permutations
from pathlib import Path
from typing import Literal, Self, get_args, get_origin

from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from gateway.document import Mistakes, Node, find, join, plain
from gateway.errors import SettingsError
from gateway.policy.keys import KeySet
from gateway.settings_accounts import AccountsSettings, is_safe
from gateway.settings_file import parse, read_file, references, substitute
from gateway.settings_sections import (
    BrandSettings,
    CacheSettings,
    CountingSettings,
    DoorsSettings,
    EventsSettings,
    GeoSettings,
    JournalSettings,
    KeySettings,
    MailSettings,
    ManagementSettings,
    OrdersSettings,
    OriginSettings,
    RollbackSettings,
    Section,
    ShopSettings,
    TlsSettings,
    WebhookSettings,
)
from gateway.settings_values import Address, FilePath, Host, HttpUrl, Listen, ProxyNetwork, RedisUrl, Seconds, Size

PREFIX = "GATEWAY_"
NOT_SETTINGS = frozenset({"GATEWAY_CONFIG"})
"""Variables that the command line reads itself."""

log = logging.getLogger(__name__)

_STEPS_MAX = 8  # no setting lies as deep
_EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104  compared with, not bound


class Settings(Section):
    """All settings; times in seconds, sizes in bytes."""

    listen: Address = Listen("0.0.0.0", 8080)  # noqa: S104  # a gateway is there for everybody
    tls: TlsSettings | None = None
    public_url: HttpUrl | None = None
    management: ManagementSettings = ManagementSettings()
    origin: OriginSettings = Field(examples=["{url: s3://shop-files}"])
    redis: RedisUrl = Field(examples=["redis://127.0.0.1:6379/0"])
    shards: int = Field(default=1, ge=1, le=1024)
    keys: tuple[KeySettings, ...] = Field(
        min_length=1, examples=["[{kid: a, alg: HS256, secret: …, use: sign}], from `gateway keys new --kid a`"]
    )
    issuer: str = Field(examples=["shop.example.com"])
    rules: FilePath | None = None
    rules_candidate: FilePath | None = None
    rollback: RollbackSettings | None = None
    geo: GeoSettings | None = None
    trusted_proxies: tuple[ProxyNetwork, ...] = ()
    external_hosts: tuple[Host, ...] = ()
    doors: DoorsSettings = DoorsSettings()
    counting: CountingSettings = CountingSettings()
    when_redis_is_down: Literal["deny", "allow"] = "deny"
    journal: JournalSettings | None = None
    events: EventsSettings = EventsSettings()
    drain: Seconds = 30
    cache: CacheSettings | None = None
    shops: tuple[ShopSettings, ...] = ()
    orders: OrdersSettings | None = None
    products: FilePath | None = None
    mail: MailSettings | None = None
    brand: BrandSettings | None = None
    accounts: AccountsSettings | None = None
    webhooks: tuple[WebhookSettings, ...] = ()
    memory: Size | None = None
    workers: int = Field(default_factory=lambda: min(os.cpu_count() or 1, 4), ge=1, le=256)

    def key_set(self) -> KeySet:
        """The keys that sign and verify links."""
        return KeySet(key.load() for key in self.keys)

    @property
    def has_orders(self) -> bool:
        """Whether there is an order book."""
        return self.orders is not None or bool(self.shops)

    @property
    def has_background(self) -> bool:
        """Whether there is something to do beside answering requests."""
        return self.has_orders or bool(self.webhooks)

    @property
    def base_url(self) -> str:
        """What links begin with: `public_url`, else this machine's own name for the listener."""
        if self.public_url is not None:
            return self.public_url
        host = "localhost" if self.listen.host in _EVERYWHERE else self.listen.host
        return f"{'https' if self.tls else 'http'}://{Listen(host, self.listen.port)}"

    @model_validator(mode="after")
    def _check(self) -> Self:
        self.key_set()
        if self.listen == self.management.listen and self.listen.port:
            raise ValueError(f"listen and management.listen are both {self.listen}; give them different ports")
        if self.rules_candidate is not None and self.rules_candidate == self.rules:
            raise ValueError("rules_candidate is the file of rules; name another one, which is judged beside it")
        if self.rollback is not None and self.rules is None:
            raise ValueError("rollback has no rules to watch; set rules, or remove it")
        names = [shop.name for shop in self.shops]
        if len(set(names)) < len(names):
            raise ValueError("shops: two have the same name; give each its own")
        for one, other in permutations(names, 2):
            if other.startswith(f"{one}-"):
                raise ValueError(f"shops: {one} and {other} could have orders of one id; rename one of them")
        if self.doors.nginx.redirect is not None and self.doors.secret is None:
            raise ValueError(
                "doors.nginx.redirect needs doors.secret, which nginx shows; make one: openssl rand -hex 16"
            )
        if self.accounts is not None:
            self._check_accounts(self.accounts)
        if self.when_redis_is_down == "allow" and self.journal is None:
            raise ValueError("when_redis_is_down: allow needs a journal to count afterwards; write journal: {path: …}")
        return self

    def _check_accounts(self, accounts: AccountsSettings) -> None:
        if not is_safe(self.base_url):
            raise ValueError(
                "accounts needs an https public_url, for over http browsers keep no __Host- cookie; "
                "write public_url: https://…, or http://localhost:8080 to try it on this machine"
            )
        names = [shop.name for shop in self.shops]
        if unknown := [name for name in accounts.shops if name not in names]:
            raise ValueError(f"accounts.shops: there is no shop {unknown[0]}; write some of {', '.join(names)}")
        # Two shops may both have a customer 7.
        if len(names) > 1 and not accounts.shops:
            raise ValueError("accounts.shops: say whose customers sign in there; write some of " + ", ".join(names))


def load(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """The settings of a YAML file (None: no file) and of `GATEWAY_…` variables, which win.

    Raises SettingsError with one line per mistake: `file:line: key: what is wrong; what would be right`.
    """
    mistakes = Mistakes()
    written = Node("environment", {}) if path is None else read_file(path, mistakes)
    if written is None:
        raise SettingsError(mistakes.report())
    tree = substitute(_overlay(written, environ, mistakes), environ, mistakes)
    try:
        settings = Settings.model_validate(plain(tree))
    except ValidationError as error:
        for details in error.errors(include_url=False):
            _report(details, tree, mistakes)
        raise SettingsError(mistakes.report()) from None
    if mistakes.keys:
        raise SettingsError(mistakes.report())
    return settings


def unsupported(settings: Settings) -> list[str]:
    """Settings that protect and that this release does not enforce, one line each: refuse to serve with them."""
    reasons = {
        "cache": settings.cache is not None,
    }
    return [f"{name}: is not kept by this release; remove it" for name, is_set in reasons.items() if is_set]


def notes(settings: Settings) -> list[str]:
    """What the ops should know of their settings at each start, one line each, for the log."""
    lines = {
        "journal: is not set; what Redis loses is given again (write journal: {path: var/journal})": settings.journal
        is None,
        "when_redis_is_down: allow: without Redis every genuine link is served, whatever its limits say": (
            settings.when_redis_is_down == "allow"
        ),
        "doors.secret: is set and trusted_proxies is empty; no proxy is told where bytes lie": (
            settings.doors.secret is not None and not settings.trusted_proxies
        ),
    }
    return [line for line, is_so in lines.items() if is_so]


def _overlay(tree: Node, environ: Mapping[str, str], mistakes: Mistakes) -> Node:
    read = set(references(tree))
    for name in sorted(environ, key=lambda name: (name.count("__"), name)):
        if not name.startswith(PREFIX) or name in NOT_SETTINGS:
            continue
        steps = name.removeprefix(PREFIX).lower().split("__", _STEPS_MAX)
        key = ".".join(steps)
        if steps[0] not in Settings.model_fields:
            # Kubernetes sets GATEWAY_PORT and the like by itself; only what looks meant for us is a mistake.
            nearest = difflib.get_close_matches(steps[0], Settings.model_fields, 1, 0.8)
            if name not in read and (nearest or len(steps) > 1):
                mistakes.add(name, key, _unknown(nearest))
            elif name not in read and (meant := _with_two_underscores(steps[0])):
                log.warning("%s is no setting and is ignored; did you mean %s?", name, meant)
        elif not environ[name]:
            mistakes.add(name, key, "is empty; give it a value or unset the variable")
        else:
            value = _from_variable(name, environ[name], _field(steps), mistakes)
            tree = tree if value is None else _replaced(tree, steps, value)
    return tree


def _with_two_underscores(name: str) -> str | None:
    """The variable that was meant by `section_setting` with one underscore between the two."""
    for section, field in Settings.model_fields.items():
        model = _section(field)
        rest = name.removeprefix(f"{section}_")
        if model is not None and rest != name and rest in model.model_fields:
            return f"{PREFIX}{section}__{rest}".upper()
    return None


def _from_variable(name: str, text: str, field: FieldInfo | None, mistakes: Mistakes) -> Node | None:
    if field is not None and _is_nested(field) and text.lstrip().startswith(("[", "{")):
        return parse(text, lambda _: name, mistakes, name.removeprefix(PREFIX).lower().replace("__", "."))
    return Node(name, text)


def _replaced(tree: Node, steps: list[str], value: Node) -> Node:
    children = dict(tree.value) if isinstance(tree.value, dict) else {}
    first, *rest = steps
    children[first] = _replaced(children.get(first, Node(value.source, {})), rest, value) if rest else value
    return Node(tree.source, children)


def _report(error: ErrorDetails, tree: Node, mistakes: Mistakes) -> None:
    location = error["loc"]
    key = ""
    for step in location:
        key = join(key, step)
        if key in mistakes.keys:
            return
    inside = tuple(f"{key}{mark}" for mark in ".[") if key else ""
    if error["type"] in ("value_error", "too_short") and any(known.startswith(inside) for known in mistakes.keys):
        return  # what is reported inside is missing here
    mistakes.add(find(tree, location), key, _explained(error))


_BOUNDS = {"gt": "more than", "ge": "at least", "le": "at most"}


def _explained(error: ErrorDetails) -> str:
    """What is wrong and what would be right, without the value: it may be a secret in the wrong place."""
    context = error.get("ctx", {})
    names = [str(step) for step in error["loc"] if not isinstance(step, int)]
    field = _field(names)
    example = f"; for example {field.examples[0]}" if field is not None and field.examples else ""
    match error["type"]:
        case "value_error":
            text = str(context["error"])
        case "missing":
            text = f"is required{example or '; add it'}"
        case "extra_forbidden":
            known = _section(_field(names[:-1])) if names[1:] else Settings
            text = _unknown(difflib.get_close_matches(names[-1], known.model_fields if known else (), 1), known)
        case "literal_error":
            text = f"has a value that it cannot have; write {context['expected']}"
        case "string_too_short" | "too_short":
            text = f"is empty; give it a value{example}"
        case "int_parsing" | "int_parsing_size" | "int_type" | "float_parsing" | "finite_number":
            number = (
                "whole number; write digits only" if error["type"].startswith("int") else "number; write one like 2.5"
            )
            text = f"is no {number}{example}"
        case "greater_than" | "greater_than_equal" | "less_than_equal":
            text = "; ".join(f"is out of range; write {_BOUNDS[bound]} {value}" for bound, value in context.items())
        case "model_type":
            text = f"is no section; write `name: value` lines under it{example}"
        case "tuple_type":
            text = f"is no list; write [a, b] or one `- a` a line{example}"
        case _:
            text = f"is not one single text{example or '; write one value'}"
    return text


def _unknown(nearest: list[str], section: type[BaseModel] | None = None) -> str:
    if nearest:
        return f"is no setting; did you mean {nearest[0]}?"
    known = (section or Settings).model_fields
    return f"is no setting; remove it, or write one of {', '.join(known)}"


def _field(steps: list[str]) -> FieldInfo | None:
    """The setting with this key, list indices left out; None where there is none."""
    field: FieldInfo | None = None
    section: type[BaseModel] | None = Settings
    for step in steps:
        if section is None or step not in section.model_fields:
            return None
        field = section.model_fields[step]
        section = _section(field)
    return field


def _section(field: FieldInfo | None) -> type[BaseModel] | None:
    """The model behind `Section`, `Section | None` or a list of sections."""
    if field is None:
        return None
    for candidate in (field.annotation, *get_args(field.annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _is_nested(field: FieldInfo) -> bool:
    return _section(field) is not None or get_origin(field.annotation) is tuple
