"""What is broken, as exceptions; a refusal is never one of these (see policy.reasons).

Each backend translates its library's errors into these once, at its edge. The text is for ops
and is safe to log: it never holds a token, a signature, a key or a presigned address.
"""

from __future__ import annotations


class GatewayError(Exception):
    """The root of everything the gateway raises by itself."""


class SettingsError(GatewayError):
    """A setting is missing or wrong; the text has one line per mistake and says what would be right."""


class LedgerDown(GatewayError):
    """Redis cannot be asked, or did not answer in time: nothing was granted by this call, as far as we know."""


class LedgerFault(LedgerDown):
    """Redis is well but could not run this one command: its keys hold something that is not ours or not readable."""


class JournalDown(LedgerDown):
    """The journal cannot be written or fsynced: what is granted now could be lost, so nothing is."""


class ReservationGone(GatewayError):
    """The ledger no longer knows this reservation as open: it was closed by the reaper or lost by Redis."""


class GeoDown(GatewayError):
    """A geo database turned out to be broken: where the client is cannot be told."""


class FileMissing(GatewayError):
    """The store answered that this key does not exist (or is not a regular file)."""


class OriginError(GatewayError):
    """The store could not give the bytes that were asked for."""


class OriginDown(OriginError):
    """Refused, reset, 5xx after retries, wrong credentials, or an answer that is not the file."""


class OriginTimeout(OriginError):
    """The store accepted the request and then said nothing for too long."""


class OriginChanged(OriginError):
    """The object was replaced: its ETag is no longer the one the download began with."""


class ClientGone(GatewayError):
    """The client closed or reset its connection while bytes were on their way to it."""


class OrdersDown(GatewayError):
    """The order book cannot be asked, or did not answer in time: nothing of this call is known to have happened."""


class ProviderDown(GatewayError):
    """The shop's identity provider cannot be asked now, or what it answers is not what its standard says."""


class SignInRefused(GatewayError):
    """The sign-in ended without a customer. The text is fit for the log: it holds no code, token or name."""
