"""From an order and its mail, as they are in the book, to the message that the buyer gets."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gateway.mail.composing import Composer
from gateway.mail.envelope import message_id, return_path
from gateway.mail.letter import Brand, Letter, LinkAddresses
from gateway.order_ports import Mail
from gateway.policy.orders import Order
from gateway.settings_sections import MailSettings


class Writer:
    """Writes the mails of one shop. `addresses` gives an order's links that work now, `code` what the mail of this id
    says to a new device, `clock` Unix ms.
    """

    def __init__(
        self,
        composer: Composer,
        brand: Brand,
        settings: MailSettings,
        *,
        addresses: Callable[[Order], Sequence[LinkAddresses]],
        code: Callable[[str], str],
        clock: Callable[[], int],
    ) -> None:
        self.composer = composer
        self._brand = brand
        self._settings = settings
        self._addresses = addresses
        self._code = code
        self._clock = clock

    def compose(self, order: Order, mail: Mail) -> bytes:
        """The message. Raises ValueError where the order has no link, or its buyer no address that mail can go to."""
        return self.composer.compose(self.letter(order, mail))

    def letter(self, order: Order, mail: Mail) -> Letter:
        """What the mail says now. Raises ValueError where the order has no link."""
        is_code = mail.purpose == "code"
        links = () if is_code else tuple(self._addresses(order))
        if not links and not is_code:
            raise ValueError("the order has no link that works")
        settings = self._settings
        return Letter(
            brand=self._brand,
            language=self.composer.language(mail.language, settings.language),
            sender=settings.sender,
            to=mail.to,
            reply_to=settings.reply_to or "",
            message_id=message_id(mail.mail_id, settings.sender),
            sent_at=self._clock() // 1000,
            reference=order.reference,
            buyer_name=order.buyer.value.name,
            links=links,
            code=self._code(mail.mail_id) if is_code else "",
        )

    def sender(self, mail: Mail) -> str:
        """The envelope's sender of this mail. Raises ValueError for a mail id that no address can hold."""
        return return_path(mail.mail_id, self._settings.bounces, self._settings.sender)
