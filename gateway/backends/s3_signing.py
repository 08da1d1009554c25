"""Where a bucket's objects live and the signed addresses to ask for them (AWS Signature Version 4 in the query).

A signed address is a bearer secret: it leaves this module as a URL only, never in a log line or an error.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal
from urllib.parse import SplitResult, quote, urlsplit

import botocore.session
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials, ReadOnlyCredentials
from botocore.exceptions import BotoCoreError, ClientError
from yarl import URL

from gateway.errors import OriginDown, OriginTimeout, SettingsError

Addressing = Literal["auto", "path", "virtual"]

HEAD_HEADERS = {"x-amz-checksum-mode": "ENABLED"}
"""What every HEAD carries, so that the store tells the checksums it keeps. S3 wants each `x-amz-` header signed."""

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}")

# An address is valid for an hour, which forgives a slow clock, and used for five minutes. Temporary credentials are
# looked at every minute; botocore renews them ten minutes before they end, so none ends while its address is in use.
_VALID_S = 3600
_USED_S = 300
_LOOKED_AT_S = 60
_CREDENTIALS_TIMEOUT_S = 10
_ADDRESSES_MAX = 4096


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket, the prefix that every key gets (empty or ending in "/"), its region and its base address."""

    name: str
    prefix: str
    region: str
    base: str

    def address(self, key: str) -> str:
        """The unsigned address of a key, percent-encoded as SigV4 wants it (all but RFC 3986 unreserved and "/")."""
        return self.base + quote(self.prefix + key, safe="/")


def bucket(url: str, endpoint: str | None, region: str | None, addressing: Addressing) -> Bucket:
    """The bucket of `s3://name/prefix`. `auto` is path style at a given endpoint, host style at AWS.

    Raises SettingsError.
    """
    parts = _split(url)
    name = "" if parts is None else parts.netloc
    if parts is None or parts.scheme != "s3" or not _BUCKET.fullmatch(name) or parts.query or parts.fragment:
        raise SettingsError(f"origin.url: {url!r} is no bucket; right would be s3://bucket or s3://bucket/prefix")
    prefix = parts.path.strip("/")
    if region is None:
        region = botocore.session.Session().get_config_variable("region") or "us-east-1"
    style = addressing
    if endpoint is None:
        suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
        endpoint = f"https://s3.{region}.{suffix}"
        if style == "auto":
            # AWS's certificate is for *.s3…: a name with dots does not match it.
            style = "path" if "." in name else "virtual"
    scheme, host, path = _endpoint(endpoint)
    base = f"{scheme}://{name}.{host}{path}/" if style == "virtual" else f"{scheme}://{host}{path}/{name}/"
    return Bucket(name, f"{prefix}/" if prefix else "", region, base)


def _endpoint(text: str) -> tuple[str, str, str]:
    """Scheme, host with port, and path (empty or "/…") of an endpoint. Raises SettingsError."""
    at = _split(text)
    if at is None or at.scheme not in ("http", "https") or not at.hostname or at.query or "@" in at.netloc:
        raise SettingsError("origin.endpoint: this is no address; right would be http://minio:9000")
    return at.scheme, at.netloc, at.path.rstrip("/")


def _split(text: str) -> SplitResult | None:
    try:
        parts = urlsplit(text)
        return parts if parts.port != 0 else None  # .port raises for what is no port
    except ValueError:
        return None


class Signer:
    """Signed addresses of one bucket, per method and key (a GET's is not valid for a HEAD), kept while good."""

    def __init__(
        self, bucket: Bucket, access_key: str | None, secret_key: str | None, session_token: str | None
    ) -> None:
        if (access_key is None) != (secret_key is None):
            raise SettingsError("origin: access_key and secret_key must be given together, or neither")
        # At DEBUG botocore logs the signature and the string it signs.
        logging.getLogger("botocore.auth").setLevel(logging.INFO)
        self._bucket = bucket
        self._lock = asyncio.Lock()
        self._source: Credentials | None = None
        if access_key is not None and secret_key is not None:
            self._source = Credentials(access_key, secret_key, session_token)
        self._credentials: ReadOnlyCredentials | None = None
        self._look_again = 0.0
        self._addresses: OrderedDict[tuple[str, str], tuple[float, URL]] = OrderedDict()

    async def address(self, method: str, key: str) -> tuple[URL, bool]:
        """The signed address, and whether it was signed before this call. Raises OriginDown, OriginTimeout."""
        now = time.monotonic()
        known = self._addresses.get((method, key))
        if known is not None and now < known[0]:
            self._addresses.move_to_end((method, key))
            return known[1], True
        if self._credentials is None or now >= self._look_again:
            async with self._lock:
                if self._credentials is None or now >= self._look_again:
                    current = await self._current_credentials()
                    if current != self._credentials:
                        self._addresses.clear()
                    self._credentials = current
                    self._look_again = time.monotonic() + _LOOKED_AT_S
        headers = HEAD_HEADERS if method == "HEAD" else {}
        request = AWSRequest(method=method, url=self._bucket.address(key), headers=headers)
        signature = S3SigV4QueryAuth(self._credentials, "s3", self._bucket.region, expires=_VALID_S)
        signature.add_auth(request)
        # encoded=True: yarl would otherwise rewrite %27, %7E and dots, and the signature would no longer match.
        url = URL(str(request.url), encoded=True)
        self._addresses[method, key] = (now + _USED_S, url)
        self._addresses.move_to_end((method, key))
        if len(self._addresses) > _ADDRESSES_MAX:
            self._addresses.popitem(last=False)
        return url, False

    def forget(self, method: str, key: str) -> None:
        """Sign this one anew, with credentials looked up anew: the store has refused it."""
        self._addresses.pop((method, key), None)
        self._look_again = 0.0

    async def _current_credentials(self) -> ReadOnlyCredentials:
        # The chain reads files, starts programs or asks the instance's metadata service: all of it blocks.
        try:
            async with asyncio.timeout(_CREDENTIALS_TIMEOUT_S):
                found = await asyncio.to_thread(self._find_credentials)
        except TimeoutError:
            raise OriginTimeout("finding S3 credentials took too long") from None
        except (BotoCoreError, ClientError) as error:
            raise OriginDown(f"no S3 credentials: {type(error).__name__}") from None
        if found is None:
            raise OriginDown("no S3 credentials in the settings, the environment, a profile or the instance's role")
        return found

    def _find_credentials(self) -> ReadOnlyCredentials | None:
        if self._source is None:
            self._source = botocore.session.Session().get_credentials()
        return None if self._source is None else self._source.get_frozen_credentials()
