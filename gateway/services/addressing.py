"""The addresses that a mail, a page or an API carries for an order: its links, their tokens signed anew each time."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from gateway.errors import GatewayError
from gateway.http.disposition import file_name
from gateway.mail.letter import FileAddress, LinkAddresses
from gateway.policy.decide import plan_of
from gateway.policy.granting import claims_of
from gateway.policy.keys import KeySet
from gateway.policy.links import file_path, link_path, order_path
from gateway.policy.model import Claims, Deny
from gateway.policy.orders import Holding, IssuedLink, Order
from gateway.policy.purchases import held, newest
from gateway.policy.ruleset import RuleSet
from gateway.policy.tokens import encode


@dataclass(frozen=True, slots=True)
class Addressing:
    """`base_url` is what public addresses begin with; `holding` says what an order gives now."""

    keys: KeySet
    issuer: str
    base_url: str
    rules: Callable[[], RuleSet]
    holding: Callable[[Order], Holding]
    short: bool = False
    """Whether links of registered customers are named by `/o/{id}`, which asks for the account first."""

    def of(self, order: Order, now: int) -> list[LinkAddresses]:
        """The order's links that are good at `now` (Unix s), with those of their files that are the buyer's still.

        Of a file only the newest link is named, which stands in for those before it. Raises GatewayError where no key
        signs.
        """
        mine = held(self.holding(order), now)
        chosen = self.good(order, now)
        return [self._addresses(order, link, mine, alone=len(chosen) == 1) for link in chosen]

    def good(self, order: Order, now: int) -> list[IssuedLink]:
        """Those links of the order themselves."""
        live = [link for link in order.links if link.expires_at > now]
        return newest(live, held(self.holding(order), now))

    def _addresses(self, order: Order, link: IssuedLink, mine: Collection[str], *, alone: bool) -> LinkAddresses:
        claims = claims_of(order, link, self.issuer)
        token = self.token(claims)
        short = None
        if self.short and link.account:
            short = order_path(self.base_url, order.order_id if alone else link.token_id)
        sizes = {sold.file: sold.size for each in order.entitlements for sold in each.files}
        files = tuple(
            FileAddress(
                name=(name := file_name(file.shown_name)),
                address=short or file_path(self.base_url, token, number, name),
                size=size if (size := sizes.get(file, -1)) >= 0 else None,
            )
            for number, file in enumerate(link.files, 1)
            if file.identity in mine
        )
        titles = [each.title for each in order.entitlements if each.line_id in link.line_ids and each.title]
        plan = plan_of(claims, self.rules())
        limits = link.limits if isinstance(plan, Deny) else plan.limits.tightened(link.limits)
        return LinkAddresses(
            address=short or link_path(self.base_url, token),
            files=files,
            expires_at=link.expires_at,
            limits=limits,
            title=", ".join(dict.fromkeys(titles)),
            account=link.account,
            guests=() if isinstance(plan, Deny) else plan.guests,
        )

    def token(self, claims: Claims) -> str:
        """The token of these claims. Raises GatewayError where no key signs, or they are too many."""
        if self.keys.signing is None:
            raise GatewayError("keys: no key has use: sign, so no link can be made; add one (gateway keys new)")
        try:
            return encode(claims, self.keys.signing)
        except ValueError as error:
            raise GatewayError(f"a link of order {claims.order_id} cannot be made: {error}") from None
