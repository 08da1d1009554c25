"""Webhooks to the shop: an endpoint for each one of the settings."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from gateway.backends.redis_client import Wire
from gateway.backends.redis_webhooks import RedisEventQueue, groups_of
from gateway.backends.webhook_sender import HttpSender, host_of
from gateway.policy.webhooks import secret_key
from gateway.services.webhooks import Endpoint
from gateway.settings import Settings


@asynccontextmanager
async def open_endpoints(settings: Settings, wire: Wire, count: Callable[[str], None]) -> AsyncIterator[list[Endpoint]]:
    """The settings' endpoints; `count` hears what became of each try. Nothing is sent before they work."""
    urls = [each.url.get_secret_value() for each in settings.webhooks]
    groups = groups_of(urls)
    async with AsyncExitStack() as closing:
        endpoints = []
        for each, url, group in zip(settings.webhooks, urls, groups, strict=True):
            host = host_of(url)
            endpoints.append(
                Endpoint(
                    RedisEventQueue(wire, settings.shards, group=group, host=host, events=each.events),
                    await closing.enter_async_context(HttpSender(url)),
                    host=host,
                    key=secret_key(each.secret.get_secret_value()),
                    shards=settings.shards,
                    count=count,
                )
            )
        yield endpoints
