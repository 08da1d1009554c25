"""Which shard holds the keys of an order or a token: the same everywhere, for ever, or counts would be lost."""

from __future__ import annotations

from zlib import crc32


def shard_of(key: str | None, shards: int) -> int:
    """CRC-32 of the UTF-8 `key` (the order, else the token id) modulo `shards`; 0 where there is neither."""
    if key is None:
        return 0
    return crc32(key.encode("utf-8", "surrogatepass")) % shards
