"""Mail: the shop's brand, the mail server, and who writes and sends."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

from gateway.backends.maildir import MaildirPostman
from gateway.backends.smtp import SmtpPostman
from gateway.bootstrap.files import read_rules
from gateway.errors import SettingsError
from gateway.mail.composing import Composer
from gateway.mail.letter import Brand
from gateway.mail.pictures import LOGO_BYTES_MAX
from gateway.mail.writer import Writer
from gateway.order_ports import OrderBook, Postman
from gateway.policy.orders import Holding, Order
from gateway.policy.ruleset import RuleSet
from gateway.services.addressing import Addressing
from gateway.services.identifiers import now_ms
from gateway.services.mailing import Mailing
from gateway.settings import Settings
from gateway.settings_sections import MailSettings


def mail_settings(settings: Settings) -> MailSettings:
    """Raises SettingsError where there are none."""
    if settings.mail is None:
        raise SettingsError("mail: is not set; write mail: {server: smtp://…, sender: shop@…}, see docs/mail.md")
    return settings.mail


def read_brand(settings: Settings) -> Brand:
    """How the shop looks. Raises SettingsError for a logo that cannot be shown."""
    brand = settings.brand
    if brand is None:
        return Brand(settings.issuer)
    logo = b""
    if brand.logo is not None:
        try:
            with brand.logo.open("rb") as file:
                logo = file.read(LOGO_BYTES_MAX + 1)
        except OSError as error:
            raise SettingsError(f"brand.logo: cannot be read ({error.strerror}); name a readable picture") from None
        if len(logo) > LOGO_BYTES_MAX:
            raise SettingsError(f"brand.logo: is larger than {LOGO_BYTES_MAX} bytes; make it smaller")
    try:
        return Brand(brand.name, brand.color, brand.contact or "", logo)
    except ValueError as error:
        raise SettingsError(f"brand: {error}") from None


def open_postman(settings: Settings) -> Postman:
    """Hands mails to the settings' server, or puts them into their folder. Raises SettingsError."""
    section = mail_settings(settings)
    return MaildirPostman(section.server) if isinstance(section.server, Path) else SmtpPostman(section)


def open_writer(settings: Settings, rules: Callable[[], RuleSet] | None = None) -> Writer:
    """Writes the settings' mails; without `rules`, by those that are in the file now. Raises SettingsError."""
    addressing = Addressing(
        settings.key_set(),
        settings.issuer,
        settings.base_url,
        rules or cache(lambda: read_rules(settings)),
        holding_of(settings),
        short=settings.accounts is not None,
    )
    return Writer(
        Composer(),
        read_brand(settings),
        mail_settings(settings),
        addresses=lambda order: addressing.of(order, now_ms() // 1000),
        clock=now_ms,
    )


def open_mailing(settings: Settings, book: OrderBook, rules: Callable[[], RuleSet]) -> Mailing:
    """Sends what the book has queued. Raises SettingsError."""
    writer = open_writer(settings, rules)
    return Mailing(book, open_postman(settings), writer.compose, sender=writer.sender, holding=holding_of(settings))


def holding_of(settings: Settings) -> Callable[[Order], Holding]:
    """Says what an order gives its buyer now, by these settings."""
    confirmed = {shop.name for shop in settings.shops if shop.require_confirmation}
    return lambda order: order.holding(needs_confirmation=order.shop in confirmed)
