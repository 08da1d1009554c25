"""`gateway mitm`: the gateway as a plugin of mitmproxy, in an environment of mitmproxy's own."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import sys
from pathlib import Path

import click

from gateway.cli.options import config_option
from gateway.cli.output import log_to_stderr, read_settings
from gateway.errors import GatewayError

LOG = logging.getLogger("gateway.cli")
ENVIRONMENT = ".venv-mitm"
WEB_PORT = 8081


@click.command(epilog="Example: gateway mitm --config config/gateway.yaml")
@config_option
@click.option("--web", is_flag=True, help="Show every flow in mitmweb on this machine, to look; it keeps them all.")
@click.option(
    "--web-port", type=click.IntRange(1, 65535), default=WEB_PORT, show_default=True, help="Where mitmweb listens."
)
def mitm(config: Path | None, web: bool, web_port: int) -> None:
    """Run the gateway inside mitmproxy, in front of the bucket, until SIGTERM or Ctrl-C; a second one does not wait for
    running downloads. It listens where the setting `listen` says.
    """
    if importlib.util.find_spec("mitmproxy") is None:
        _run_where_mitmproxy_is()
    from gateway.bootstrap.starting import check, supported  # noqa: PLC0415  mitmproxy is not everywhere
    from gateway.mitm.promises import fit  # noqa: PLC0415  only where mitmproxy is
    from gateway.settings import notes  # noqa: PLC0415  not before the environment is the right one

    log_to_stderr("gateway")
    try:
        settings = fit(supported(read_settings(config)))
        asyncio.run(check(settings))
        for note in notes(settings):
            LOG.warning("%s", note)
        from gateway.mitm.proxy import run  # noqa: PLC0415  it imports mitmproxy: what is wrong above is said sooner

        asyncio.run(run(settings, click.echo, web_port=web_port if web else None))
    except GatewayError as error:
        raise click.ClickException(str(error)) from error


def _run_where_mitmproxy_is() -> None:
    """Become the same command in mitmproxy's environment."""
    beside = Path(sys.prefix).parent / ENVIRONMENT
    program = beside / "bin" / "gateway"
    if not program.exists() or beside == Path(sys.prefix):
        raise click.ClickException(f"mitmproxy is not here, nor in {beside}: run `make setup-mitm`")
    os.execv(program, [str(program), *sys.argv[1:]])  # noqa: S606  no shell is wanted
