"""What would keep every process of a gateway from starting, or must keep them: looked at once, before the first."""

from __future__ import annotations

from gateway.errors import SettingsError
from gateway.settings import Settings, unsupported


def supported(settings: Settings) -> Settings:
    """The settings. Raises SettingsError for what this release does not enforce."""
    if refused := unsupported(settings):
        raise SettingsError("\n".join(refused))
    return settings


async def check(settings: Settings) -> None:
    """Raises SettingsError. It imports only what these settings need: a supervisor has no use for most of it."""
    if settings.mail is not None:
        from gateway.bootstrap.mail import open_postman, read_brand  # noqa: PLC0415  templates and all

        read_brand(settings)
        open_postman(settings)
    files = (settings.rules, settings.geo, settings.products)
    if not any(files) and settings.origin.kind == "file":
        return
    from gateway.bootstrap.files import check_policy  # noqa: PLC0415  it imports all there is
    from gateway.bootstrap.origin import refuse_public_bucket  # noqa: PLC0415  it imports the store's client

    check_policy(settings)
    await refuse_public_bucket(settings)
