"""The plugin where mitmproxy itself was started by somebody else: `mitmdump -s …/addon.py --set gateway_config=…`."""

from __future__ import annotations

import logging
import os
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from mitmproxy import ctx
from mitmproxy.tools.dump import DumpMaster

from gateway.bootstrap.starting import check as check_start
from gateway.bootstrap.starting import supported
from gateway.errors import GatewayError, SettingsError
from gateway.mitm import promises
from gateway.mitm.opening import open_door
from gateway.mitm.plugin import Plugin
from gateway.policy.reasons import Reason
from gateway.services.faults import describe
from gateway.settings import Settings, load

log = logging.getLogger(__name__)


class Alone(Plugin):
    """Opens its services when mitmproxy runs, and settles when it is done. Without them all is refused."""

    def __init__(self) -> None:
        super().__init__()
        self._closing = AsyncExitStack()

    def load(self, loader: Any) -> None:
        """mitmproxy learns of the addon."""
        loader.add_option("gateway_config", str, "", "The settings file of the gateway.")
        # It would log request lines that it cannot read, tokens and all.
        logging.getLogger("mitmproxy").setLevel(logging.WARNING)

    async def running(self) -> None:
        """mitmproxy is up. An error logged here ends it with status 1."""
        try:
            self.use(ctx.master.addons.get("proxyserver").connections)
            if not isinstance(ctx.master, DumpMaster):
                raise SettingsError("start it with mitmdump: others show signed addresses; to look, gateway mitm --web")
            promises.check(ctx.options)
            if not ctx.options.gateway_config:
                raise SettingsError("name the settings file: --set gateway_config=config/gateway.yaml")
            settings = promises.fit(supported(_read(ctx.options.gateway_config)))
            promises.fix(ctx.options, settings.origin.read_timeout)
            await check_start(settings)
            opened = await self._closing.enter_async_context(open_door(settings))
        except BaseException as error:  # noqa: BLE001  mitmproxy goes on where a hook raises, and hangs where one is cancelled
            log.error("gateway: %s", error if isinstance(error, GatewayError) else describe(error))
            return
        self.door = opened.door

    async def done(self) -> None:
        """mitmproxy ends, at once: what runs is cut, and settled."""
        await self.stop_all(Reason.DRAINING.text)
        self.close()
        await self._closing.aclose()


class Loader:
    """What a script loads. mitmproxy loads it again when the file is touched, while the plugin stays as it is: first in
    the chain, so that nobody sees a flow before its secrets are out of sight.
    """

    name = "download-gateway-loader"

    def load(self, loader: Any) -> None:
        """Put the plugin into mitmproxy, once."""
        addons = loader.master.addons
        if addons.get(Plugin.name) is None:
            addons.chain = [addons.register(Alone()), *addons.chain]


def _read(config: str) -> Settings:
    return load(Path(config).expanduser(), os.environ)
