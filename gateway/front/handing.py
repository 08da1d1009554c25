"""Where another program finds the bytes that it is to send: told in headers that only a proxy in front may read.

A signed address is a bearer secret: it stands in these headers alone, and nginx takes them out of the answer.
"""

from __future__ import annotations

from urllib.parse import quote

from gateway.services.gatekeeper import Admitted
from gateway.store_ports import Local, ObjectStore

PARTIAL = 206


class Handing:
    """`redirect`: nginx's internal location, None where nginx moves no bytes."""

    def __init__(self, store: ObjectStore, redirect: str | None) -> None:
        self._store = store
        self._redirect = redirect

    async def to_nginx(self, admitted: Admitted) -> dict[str, str]:
        """The headers by which nginx answers with the file itself. Raises OriginError."""
        told = await self.told(admitted)
        where = f"file/{told['X-Gateway-File']}" if "X-Gateway-File" in told else "bucket"
        return {**told, "X-Accel-Redirect": f"{self._redirect}{where}"}

    async def told(self, admitted: Admitted) -> dict[str, str]:
        """Where the bytes are: `X-Gateway-File`, a path below the folder, percent-encoded; or `X-Gateway-Origin`, a
        signed address, to be asked with the Range and the If-Match that go with it. Raises OriginError.
        """
        located = await self._store.locate(admitted.stored)
        if isinstance(located, Local):
            return {"X-Gateway-File": quote(located.path)}
        told = {"X-Gateway-Origin": located.url, "X-Gateway-If-Match": admitted.stored.etag}
        if admitted.plan.status == PARTIAL:
            told["X-Gateway-Range"] = f"bytes={admitted.plan.start}-{admitted.plan.start + admitted.plan.length - 1}"
        return told
