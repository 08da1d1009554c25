"""Whether a body is genuine: one header, one spelling of it, compared in constant time with every secret.

Law: nothing here raises, whatever the headers and the body hold, and what is said of them quotes neither.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64encode
from collections.abc import Sequence

from gateway.shops.base import Headers

BODY_MAX = 2 * 1024 * 1024
"""Bytes of a webhook's body. The largest order of 1,000 lines has about a third of it."""
HEADER_MAX = 512
"""Characters of a header that is looked at."""
WRONG = "the signature is not of this body by any secret of the settings"


def only(headers: Headers, name: str) -> str | None:
    """The value of a header that is there once, not empty and not too long; None for any other."""
    values = headers.get(name, ())
    return values[0] if len(values) == 1 and 0 < len(values[0]) <= HEADER_MAX else None


def word(headers: Headers, name: str) -> str:
    """That value where it is of visible ASCII characters, 100 at most, else ""."""
    value = only(headers, name) or ""
    return value if len(value) <= _WORD_MAX and value.isascii() and value.isprintable() and " " not in value else ""


def unfit(headers: Headers, body: bytes) -> str:
    """Why no signature can help this request, or ""."""
    if len(body) > BODY_MAX:
        return f"the body is larger than {BODY_MAX} bytes"
    # What was signed is what is read: a body that has still to be unpacked is neither.
    if any(value.strip().lower() not in ("", "identity") for value in headers.get("content-encoding", ())):
        return "the body is compressed; send it as it is"
    return ""


def hmac_sha256(secret: bytes, message: bytes) -> bytes:
    """The 32 bytes of RFC 2104 over SHA-256."""
    return hmac.digest(secret, message, hashlib.sha256)


def hmac_base64(secret: bytes, body: bytes) -> str:
    """Those in base64 with padding (RFC 4648 §4), as Shopify and WooCommerce sign."""
    return b64encode(hmac_sha256(secret, body)).decode()


def by_base64_hmac(headers: Headers, name: str, body: bytes, secrets: Sequence[bytes]) -> str:
    """ "" where the header `name` is `hmac_base64` of the body by one of the secrets, else what is wrong."""
    given = only(headers, name)
    if given is None:
        return f"the header {name} is missing, empty, too long or there twice"
    return unfit(headers, body) or judged(given, [hmac_base64(secret, body) for secret in secrets])


def judged(given: str, right: Sequence[str]) -> str:
    """ "" where `given` is one of `right`, else WRONG; the time it takes hangs on their lengths alone."""
    # Headers may hold what no encoding but this one takes: bytes that were no UTF-8.
    shown = given.encode("utf-8", "surrogatepass")
    matches = [hmac.compare_digest(shown, each.encode()) for each in right]
    return "" if any(matches) else WRONG


def digest(body: bytes) -> str:
    """A name for these bytes: 32 hex digits."""
    return hashlib.sha256(body).hexdigest()[:32]


_WORD_MAX = 100
