"""What the door's promises stand on: the settings' origin, and mitmproxy's options, whoever starts it."""

from __future__ import annotations

import ssl
from collections.abc import Collection
from typing import Any
from urllib.parse import urlsplit

from gateway.errors import SettingsError
from gateway.policy.fronts import MITM
from gateway.settings import Settings

NOWHERE = "gateway.invalid"
"""A name that never resolves (RFC 6761 §6.4): a request that we did not lead elsewhere leads nowhere."""
MODE = f"reverse:http://{NOWHERE}"
FIXED: dict[str, object] = {
    "http2": False,  # it has no backpressure for such a client: memory without bound, and bytes counted that never went
    "http3": False,
    "websocket": False,
    "rawtcp": False,
    "validate_inbound_headers": True,
    "connection_strategy": "lazy",  # else it connects before there is a decision
    "store_streamed_bodies": False,
    "stream_large_bodies": None,
    "body_size_limit": None,  # it would also refuse large files
    "onboarding": False,
    "block_global": False,
    "upstream_cert": False,
    "flow_detail": 0,  # else it prints addresses, and tokens with them
}
IDLE = 30
"""Seconds beside the store's own timeouts after which a connection without a byte is closed."""


def fit(settings: Settings) -> Settings:
    """The settings. Raises SettingsError where this door cannot stand before their origin."""
    if settings.origin.kind not in MITM.origins:
        raise SettingsError(
            "origin.url: mitmproxy passes on what a bucket sends, and a folder cannot stand behind it; "
            "write s3://bucket/prefix, or run gateway serve"
        )
    return settings


def fix(options: Any, read_timeout: float) -> None:
    """Set them; options that this kind of mitmproxy does not know are left out."""
    known = {name: value for name, value in FIXED.items() if name in options.keys()}  # noqa: SIM118  no mapping
    options.update(**known, tcp_timeout=round(read_timeout) + IDLE)
    # Where Python finds certificates, so that the bucket's is trusted by the same as everywhere in the gateway.
    store = ssl.get_default_verify_paths().cafile
    if store and not options.ssl_verify_upstream_trusted_ca:
        options.update(ssl_verify_upstream_trusted_ca=store)


def check(options: Any, updated: Collection[str] = ()) -> None:
    """Raises SettingsError where mitmproxy would lead a request somewhere without our word, or where one of the
    `updated` options breaks a promise.
    """
    for mode in options.mode:
        kind, _, target = str(mode).partition("@")[0].partition(":")
        host = urlsplit(target if "//" in target else f"//{target}").hostname or ""
        if kind != "reverse" or not host.endswith(".invalid"):
            raise SettingsError(f"mitmproxy runs with --mode {mode}; start it with --mode {MODE}")
    if wrong := sorted(name for name in FIXED if name in updated and getattr(options, name) != FIXED[name]):
        raise SettingsError(f"the gateway needs {', '.join(wrong)} of mitmproxy as it was")
