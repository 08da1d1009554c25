"""mitmproxy with the plugin, as `gateway mitm` runs it: one process, which ends by letting downloads finish."""

from __future__ import annotations

import asyncio
import logging
import signal
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from mitmproxy import options
from mitmproxy.tools.dump import DumpMaster

from gateway.errors import SettingsError
from gateway.mitm import promises, shown
from gateway.mitm.opening import open_door
from gateway.mitm.plugin import Plugin
from gateway.policy.reasons import Reason
from gateway.services.faults import log_loop_fault
from gateway.settings import Settings
from gateway.settings_sections import TlsSettings

log = logging.getLogger(__name__)

LOOK = 0.1


async def run(settings: Settings, announce: Callable[[str], None], *, web_port: int | None = None) -> None:
    """Serve until SIGTERM or SIGINT; a second one does not wait for downloads. `web_port`: of mitmweb, 0 for any.

    Raises SettingsError.
    """
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(log_loop_fault)
    # It would log request lines that it cannot read, tokens and all.
    logging.getLogger("mitmproxy").setLevel(logging.WARNING)
    stop, hurry = asyncio.Event(), asyncio.Event()

    def told_to_stop() -> None:
        (hurry if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told_to_stop)
    with tempfile.TemporaryDirectory(prefix="gateway-mitm-") as folder:
        async with open_door(settings) as opened:
            loop.add_signal_handler(signal.SIGHUP, opened.reload.set)
            plugin = Plugin(opened.door, tls=settings.tls is not None)
            master = _master(settings, Path(folder), web_port)
            master.addons.chain = [master.addons.register(plugin), *master.addons.chain]
            server = master.addons.get("proxyserver")
            plugin.use(server.connections)
            running = asyncio.create_task(_until_done(master))
            try:
                announce(await _listening(running, master, server, settings))
                await _first(running, stop)
                if not stop.is_set():
                    raise SettingsError("mitmproxy has ended by itself; what it says stands above")
                opened.door.draining = True
                master.options.update(server=False)
                await _drained(plugin, settings.drain, hurry)
            finally:
                await plugin.stop_all(Reason.DRAINING.text)
                plugin.close()
                master.shutdown()
                await asyncio.wait({running}, timeout=5)


def _master(settings: Settings, folder: Path, web_port: int | None) -> Any:
    made = options.Options(
        mode=[promises.MODE],
        listen_host=settings.listen.host,
        listen_port=settings.listen.port,
        confdir=str(folder),
    )
    if web_port is None:
        master = DumpMaster(made, with_termlog=False, with_dumper=False)
    else:
        from mitmproxy.tools.web import app  # noqa: PLC0415  only to look
        from mitmproxy.tools.web.master import WebMaster  # noqa: PLC0415  only to look

        app.flow_to_json = shown.redacting(app.flow_to_json)
        app.handlers = shown.without_contents(app.handlers)
        master = WebMaster(made, with_termlog=False)
        made.update(web_host="127.0.0.1", web_port=web_port, web_open_browser=False)
    promises.fix(made, settings.origin.read_timeout)
    if settings.tls is not None:
        made.update(certs=[str(_pem(settings.tls, folder))])
    return master


def _pem(tls: TlsSettings, folder: Path) -> Path:
    """Key and chain in one file, as mitmproxy wants them."""
    path = folder / "server.pem"
    path.touch(mode=0o600)
    try:
        path.write_bytes(tls.key.read_bytes() + b"\n" + tls.certificate.read_bytes())
    except OSError as error:
        raise SettingsError(f"tls: cannot read {error.filename}: check the path and its permissions") from None
    return path


async def _until_done(master: Any) -> None:
    """mitmproxy ends itself by SystemExit where it could not start, which would end the whole loop."""
    with suppress(SystemExit):
        await master.run()


async def _listening(running: asyncio.Task[None], master: Any, server: Any, settings: Settings) -> str:
    """One line on where it listens. Raises SettingsError."""
    while not server.listen_addrs():
        if running.done():
            raise SettingsError(f"mitmproxy cannot listen on {settings.listen}; what it says stands above")
        await asyncio.sleep(0.01)
    scheme = "https" if settings.tls else "http"
    line = "listening on " + ", ".join(f"{scheme}://{_at(*address[:2])}" for address in server.listen_addrs())
    return f"{line}, mitmweb on {master.web_url}" if hasattr(master, "web_url") else line


def _at(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def _first(running: asyncio.Task[None], stop: asyncio.Event) -> None:
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()


async def _drained(plugin: Plugin, seconds: float, hurry: asyncio.Event) -> None:
    if plugin.live:
        log.info("stopping: %d downloads may finish, for %.0f s", plugin.live, seconds)
    looks = round(seconds / LOOK)
    while plugin.live and looks and not hurry.is_set():
        looks -= 1
        with suppress(TimeoutError):
            await asyncio.wait_for(hurry.wait(), LOOK)
    if plugin.live:
        log.warning("%d downloads are cut; their buyers can resume them", plugin.live)
