"""The sections of the settings, each with its defaults and what must hold among its values. See docs/settings.md."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import unquote

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

from gateway.policy.counting import CountingRules
from gateway.policy.events import TYPES
from gateway.policy.fronts import AUTH, MITM, NGINX, Front, Refused, Waived, refused_at
from gateway.policy.keys import Key, load_key
from gateway.policy.limits import LIMITS
from gateway.policy.webhooks import secret_key
from gateway.settings_values import (
    Address,
    Color,
    DatabaseUrl,
    DoorSecret,
    FilePath,
    HttpUrl,
    InternalPath,
    Listen,
    MailAddress,
    MailServer,
    Seconds,
    Secret,
    Size,
    SizeOrZero,
    WebhookUrl,
)

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}(/[^?#]*)?")
_SHOP = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")
_LINK_KEYS_MAX = 3
_TOLD = (
    "download.finished",
    "download.lost",
    "download.denied",
    "link.revoked",
    "order.refunded",
    "order.cancelled",
    "order.charged_back",
    "order.withdrawn",
    "order.restored",
)


class Section(BaseModel):
    """What all sections keep: nothing changes, nothing unknown, no value in an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, str_min_length=1)


class TlsSettings(Section):
    """TLS at the public listener: PEM files."""

    certificate: FilePath
    key: FilePath


class UserSettings(Section):
    """Somebody who may use the management API: `read-only` looks, `support` helps buyers, `ops` does everything."""

    name: str = Field(examples=["anna"])
    token: Secret
    role: Literal["ops", "support", "read-only"]


class ManagementSettings(Section):
    """The listener for ops; without a token its protected addresses answer 401."""

    listen: Address = Listen("127.0.0.1", 8081)
    token: Secret | None = None
    users: tuple[UserSettings, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        for what in ("name", "token"):
            given = [getattr(user, what) for user in self.users]
            if len(set(given)) < len(given):
                raise ValueError(f"users: two have the same {what}; give each their own")
        if self.token is not None and any(user.token == self.token or user.name == "token" for user in self.users):
            raise ValueError("users: one has the name or the token of management.token; give them their own")
        return self


class OriginSettings(Section):
    """Where the files are: `s3://bucket/prefix` or `file:///folder`. Timeouts in seconds."""

    url: str = Field(examples=["s3://shop-files/prefix"])
    endpoint: HttpUrl | None = None
    region: str | None = None
    access_key: Secret | None = None
    secret_key: Secret | None = None
    session_token: Secret | None = None
    addressing: Literal["auto", "path", "virtual"] = "auto"
    connect_timeout: Seconds = 5
    read_timeout: Seconds = 30

    @property
    def kind(self) -> Literal["s3", "file"]:
        return "s3" if self.url.startswith("s3://") else "file"

    @property
    def folder(self) -> Path:
        """The folder of a file:// origin."""
        return Path(unquote(self.url.removeprefix("file://")))

    @model_validator(mode="after")
    def _check(self) -> Self:
        scheme, _, rest = self.url.partition("://")
        if scheme == "s3":
            if not _BUCKET.fullmatch(rest):
                raise ValueError("url names no bucket; write it like s3://shop-files or s3://shop-files/prefix")
            if (self.access_key is None) != (self.secret_key is None):
                raise ValueError("has only one of access_key and secret_key; set both, or neither for AWS's own ways")
        elif scheme == "file":
            if not rest.startswith("/") or not rest.strip("/"):
                raise ValueError("url names no folder; write an absolute one with three slashes: file:///srv/files")
            if surplus := sorted(self.model_fields_set - {"url"}):
                raise ValueError(f"is a folder, which has no {' or '.join(surplus)}; remove it, or write an s3:// url")
        else:
            raise ValueError("url has an unknown scheme; write s3://bucket/prefix or file:///folder")
        return self


class KeySettings(Section):
    """A key for link tokens: `secret` for HS…, PEM keys for the others."""

    kid: str = Field(examples=["2026-11"])
    alg: str = Field(examples=["HS256"])
    secret: Secret | None = None
    private_key: Secret | None = None
    public_key: Secret | None = None
    use: Literal["sign", "verify"] = "verify"

    def load(self) -> Key:
        """The key itself. Raises ValueError, which validation has done before."""
        return load_key(
            kid=self.kid,
            alg=self.alg,
            use=self.use,
            secret=_revealed(self.secret),
            private_key=_revealed(self.private_key),
            public_key=_revealed(self.public_key),
        )

    @model_validator(mode="after")
    def _check(self) -> Self:
        self.load()
        return self


class RollbackSettings(Section):
    """When the last rules return: where new ones refuse `factor` times what these would have refused of the same
    requests, within so many seconds of coming into force and after at least so many decisions.
    """

    factor: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 3
    within: Annotated[Seconds, Field(le=86_400)] = 600
    least: Annotated[int, Field(ge=10)] = 50


class GeoSettings(Section):
    """MaxMind databases (.mmdb), each of them optional."""

    city: FilePath | None = None
    asn: FilePath | None = None
    anonymous: FilePath | None = None


class CountingSettings(Section):
    """What counts as a download. Times in seconds, `free_below` in bytes."""

    resume_window: Seconds = 86_400
    repeat_window: Seconds = 60
    free_below: SizeOrZero = 64 * 1024
    lease: Annotated[Seconds, Field(ge=2)] = 10

    @property
    def rules(self) -> CountingRules:
        """The part of them that decides what is one download."""
        return CountingRules(self.resume_window, self.repeat_window, self.free_below)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.repeat_window > self.resume_window:
            raise ValueError("repeat_window is longer than resume_window; make it shorter")
        return self


def _unkept(front: Front) -> Callable[[tuple[str, ...]], tuple[str, ...]]:
    """Checks what a door's settings waive: only what it cannot keep, so that nobody thinks a limit off that is on."""

    def check(names: tuple[str, ...]) -> tuple[str, ...]:
        if surplus := sorted(set(names) - set(front.unkept)):
            may = f"write some of {', '.join(front.unkept)}, or nothing"
            is_kept = any(limit.name == surplus[0] for limit in LIMITS)
            said = f"is kept by the door {front.name}, so it cannot be waived" if is_kept else "is no limit"
            raise ValueError(f"{surplus[0]} {said}; {may}")
        return names

    return check


class MitmSettings(Section):
    """The plugin for mitmproxy."""

    waive: Annotated[tuple[str, ...], AfterValidator(_unkept(MITM))] = ()


class NginxSettings(Section):
    """nginx in front, which moves the bytes itself: `redirect` is its internal location, such as `/_gateway/`."""

    redirect: InternalPath | None = None
    waive: Annotated[tuple[str, ...], AfterValidator(_unkept(NGINX))] = ()


class AuthSettings(Section):
    """The decision endpoint for other proxies."""

    waive: Annotated[tuple[str, ...], AfterValidator(_unkept(AUTH))] = ()


class DoorsSettings(Section):
    """The other front doors. `waive`: limits that a door cannot keep, and that a link may have there all the same.

    `secret`: what a proxy shows, beside its address, to be told where bytes lie.
    """

    secret: DoorSecret | None = None
    mitm: MitmSettings = MitmSettings()
    nginx: NginxSettings = NginxSettings()
    auth: AuthSettings = AuthSettings()

    @property
    def waived(self) -> Waived:
        """By a door's name: what it need not keep."""
        given = {MITM.name: self.mitm.waive, NGINX.name: self.nginx.waive, AUTH.name: self.auth.waive}
        return {name: frozenset(names) for name, names in given.items()}

    @property
    def refused(self) -> Refused:
        """By the name of each door that is set up here: the limits with which a link is refused there."""
        # A secret has no other use: without a redirect it is shown at /auth.
        front = AUTH if self.nginx.redirect is None else NGINX
        is_open = self.nginx.redirect is not None or self.secret is not None
        return {front.name: refused_at(front, self.waived)} if is_open else {}


class JournalSettings(Section):
    """What was written to Redis, on this machine's disk. `keep` in seconds, `size` of the whole folder in bytes."""

    path: FilePath
    keep: Seconds = 86_400
    size: Size = 1_000_000_000


class EventsSettings(Section):
    """How long events stay in Redis, in seconds."""

    keep: Seconds = 90 * 86_400


class CacheSettings(Section):
    """Files kept on the local disk, at most `size` bytes of them."""

    path: FilePath
    size: Size


class ShopSettings(Section):
    """A shop whose order webhooks are taken at `/hooks/{name}`; the first of `secrets` is the newest."""

    name: str = Field(examples=["main"])
    kind: Literal["shopify", "woocommerce", "shoper", "signed"]
    secrets: tuple[Secret, ...] = Field(min_length=1, max_length=_LINK_KEYS_MAX, examples=["[${SHOP_WEBHOOK_SECRET}]"])
    require_confirmation: bool = False
    trust_unproven_signature: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not _SHOP.fullmatch(self.name):
            raise ValueError("name is not of small letters, digits and hyphens; write one like main or shop-pl")
        if (self.kind == "shoper") != self.trust_unproven_signature:
            raise ValueError(
                "kind: shoper needs trust_unproven_signature: true, and no other kind has it; see docs/shops.md"
            )
        return self


class OrdersSettings(Section):
    """Where orders are kept: a file of SQLite, or a PostgreSQL server for gateways on several machines."""

    url: DatabaseUrl = SecretStr("sqlite:///var/orders.db")


class MailSettings(Section):
    """Mail to buyers. `server` is `smtp://host:587` (STARTTLS), `smtps://host:465`, `smtp+plain://` on loopback, or a
    folder that mails are put into instead of being sent: `maildir:///path`.
    """

    server: MailServer = Field(examples=["smtp://mail.example.com:587"])
    user: str | None = None
    password: Secret | None = None
    sender: MailAddress = Field(examples=["shop@example.com"])
    reply_to: MailAddress | None = None
    bounces: MailAddress | None = None
    language: str = "en"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.user is None) != (self.password is None):
            raise ValueError("has only one of user and password; set both, or neither")
        return self


class WebhookSettings(Section):
    """An address of the shop's that is told of events, each signed with `secret` (Standard Webhooks)."""

    url: WebhookUrl = Field(examples=["https://shop.example.com/downloads"])
    secret: Secret
    events: tuple[str, ...] = Field(default=_TOLD, min_length=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        try:
            secret_key(self.secret.get_secret_value())
        except ValueError as error:
            raise ValueError(f"secret: {error}") from None
        if unknown := sorted(set(self.events) - set(TYPES)):
            raise ValueError(f"events: {unknown[0]} is no type of event; docs/events.md lists them")
        return self


class BrandSettings(Section):
    """How the shop looks in mails and on pages. `logo` is a PNG, JPEG or GIF file of at most 24 KB."""

    name: str = Field(examples=["Sea Shop"])
    logo: FilePath | None = None
    color: Color = "#1d4ed8"
    contact: str | None = None


def _revealed(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()
