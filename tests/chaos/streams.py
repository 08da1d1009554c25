"""The event streams as Redis has them, read past the gateway and the proxy: XRANGE and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from urllib.parse import urlsplit

from redis import Redis, RedisCluster
from redis.cluster import ClusterNode
from redis.sentinel import Sentinel

Fields = Mapping[str, str]
PATIENCE = 10.0


def read_events(url: str, shards: int) -> list[Fields]:
    """Every event, each shard in its stream's order; `url` as in the settings. Raises redis.RedisError."""
    with closing(_client(url)) as client:
        streams = [client.xrange(f"gw:{{{shard}}}:events") for shard in range(shards)]
    return [fields for entries in streams for _, fields in entries]


def _client(url: str) -> Redis | RedisCluster:
    parts = urlsplit(url)
    if "+" not in parts.scheme:
        return Redis.from_url(url, decode_responses=True, socket_timeout=PATIENCE)
    addresses = [(host, int(port)) for host, _, port in (each.rpartition(":") for each in parts.netloc.split(","))]
    if parts.scheme == "redis+cluster":
        nodes = [ClusterNode(*address) for address in addresses]
        return RedisCluster(startup_nodes=nodes, decode_responses=True, socket_timeout=PATIENCE)
    sentinel = Sentinel(addresses, socket_timeout=1)
    master: Redis = sentinel.master_for(parts.path.split("/")[1], decode_responses=True, socket_timeout=PATIENCE)
    return master
