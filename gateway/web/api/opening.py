"""The API for these settings; what it works with is imported and opened when somebody calls it."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from gateway.settings import Settings
from gateway.web.api.office import IDLE, Offices
from gateway.web.api.routes import Api

if TYPE_CHECKING:
    from gateway.bootstrap.desk import Office


def open_api(settings: Settings, *, idle: float = IDLE) -> Api:
    """`idle`: seconds without a call after which everything is closed again."""

    def imports() -> None:
        from gateway.bootstrap.desk import import_all  # noqa: PLC0415  the supervisor has no use for it before

        import_all(settings)

    def opening() -> AbstractAsyncContextManager[Office]:
        from gateway.bootstrap.desk import open_office  # noqa: PLC0415  likewise

        return open_office(settings)

    return Api(Offices(imports, opening, idle=idle))
