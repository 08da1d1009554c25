"""Where another program finds the bytes that it is to send: told in headers that only a proxy in front may read.

A signed address is a bearer secret: it stands in these headers alone, and nginx takes them out of the answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote

from gateway.services.gatekeeper import Admitted
from gateway.store_ports import Local

PARTIAL = 206
NGINX_KEEPS = frozenset({"Accept-Ranges", "Cache-Control", "Content-Disposition"})
_NO_HEADER = re.compile(r"[\x00-\x1f\x7f]|^ | $")
"""What a header cannot say: blanks at its ends are not part of it (RFC 9110 §5.5), so it would name another file."""


class Handing:
    """`redirect`: nginx's internal location, None where nginx moves no bytes."""

    def __init__(self, redirect: str | None) -> None:
        self._redirect = redirect

    def to_nginx(self, admitted: Admitted, headers: Mapping[str, str]) -> dict[str, str]:
        """The headers by which nginx answers with the file itself, made of those of our own answer.

        nginx keeps those of NGINX_KEEPS whatever it comes to send: on a refusal they would be wrong, beside its own
        they would stand twice. So it is told them under names that it does not keep.
        """
        told = self.told(admitted)
        told |= {f"X-Gateway-{name}" if name in NGINX_KEEPS else name: value for name, value in headers.items()}
        where = f"file/{told['X-Gateway-File']}" if "X-Gateway-File" in told else "bucket"
        return {**told, "X-Accel-Redirect": f"{self._redirect}{where}"}

    @staticmethod
    def told(admitted: Admitted) -> dict[str, str]:
        """Where the bytes are: `X-Gateway-File`, a path below the folder, percent-encoded, and `X-Gateway-Path`, the
        same as it is, where a header can say it; or `X-Gateway-Origin`, a signed address, to be asked with the Range
        and the If-Match that go with it.
        """
        plan = admitted.plan
        located = admitted.located
        if isinstance(located, Local):
            plain = {} if _NO_HEADER.search(located.path) else {"X-Gateway-Path": located.path}
            return {"X-Gateway-File": quote(located.path), **plain}
        if located is None or admitted.request.method == "HEAD":
            return {}  # It would be the whole download, and HEAD counts nothing.
        told = {"X-Gateway-Origin": located.url, "X-Gateway-If-Match": admitted.stored.etag}
        if plan.status == PARTIAL:
            told["X-Gateway-Range"] = f"bytes={plan.start}-{plan.start + plan.length - 1}"
        return told
