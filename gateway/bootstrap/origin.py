"""The settings' origin, and whether others can read it too."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from gateway.backends.files import FolderStore, nginx_etag, strong_etag
from gateway.backends.redis_links import RedisLinks
from gateway.bootstrap.redis import open_redis
from gateway.errors import FileMissing, GatewayError, OriginError
from gateway.services.checkup import Threads
from gateway.settings import Settings
from gateway.store_ports import ObjectStore

SOLD_KEYS = 5
SOLD_KEYS_SECONDS = 3.0


def open_store(settings: Settings) -> ObjectStore:
    """The settings' origin; nothing is asked of it yet."""
    origin = settings.origin
    if origin.kind == "file":
        by_nginx = settings.doors.secret is not None
        return FolderStore(origin.folder, etag=nginx_etag if by_nginx else strong_etag)
    # botocore alone takes as long to import as the rest, and a folder's gateway and most commands do without it.
    from gateway.backends.s3 import S3Store  # noqa: PLC0415  botocore is slow to import
    from gateway.backends.s3_client import Wire as S3Wire  # noqa: PLC0415  botocore is slow to import

    return S3Store(
        origin.url,
        endpoint=origin.endpoint,
        region=origin.region,
        access_key=origin.access_key.get_secret_value() if origin.access_key else None,
        secret_key=origin.secret_key.get_secret_value() if origin.secret_key else None,
        session_token=origin.session_token.get_secret_value() if origin.session_token else None,
        addressing=origin.addressing,
        wire=S3Wire(connect_timeout=origin.connect_timeout, read_timeout=origin.read_timeout),
    )


async def refuse_public_bucket(settings: Settings) -> None:
    """Raises SettingsError where the bucket can be read without us; an origin that does not answer is only logged."""
    if settings.origin.kind != "s3":
        return
    from gateway.backends import s3_exposure  # noqa: PLC0415  only in front of a bucket

    asyncio.get_running_loop().set_default_executor(Threads())  # or the end of the loop waits for a hung name look-up
    keys = []
    with suppress(OriginError, TimeoutError):
        async with asyncio.timeout(SOLD_KEYS_SECONDS):
            keys = await stored(settings, await _sold_keys(settings))
    await s3_exposure.refuse_public_bucket(settings, keys)


async def stored(settings: Settings, keys: Sequence[str]) -> list[str]:
    """Those of the keys that the store has: that others may not read what is not there proves nothing.

    Raises OriginError.
    """
    found = []
    store = open_store(settings)
    try:
        for key in keys:
            with suppress(FileMissing):
                await store.stat(key)
                found.append(key)
    finally:
        await store.close()
    return found


async def _sold_keys(settings: Settings) -> list[str]:
    """Some keys that links were made for, where Redis tells."""
    if settings.redis.get_secret_value().startswith("embedded://"):
        return []  # not running yet, and not worth a start
    with suppress(GatewayError):
        async with open_redis(settings) as wire:
            keys: list[str] = []
            async for link in RedisLinks(wire, settings.shards).all():
                keys += [file.key for file in link.claims.files if file.key is not None]
                if len(keys) >= SOLD_KEYS:
                    break
            return keys
    return []
