"""Reads tokens: what is genuine is remembered, and what is not is counted against its network.

Law: no answer to a genuine token depends on who failed beside it.
"""

from __future__ import annotations

import time
from collections import OrderedDict

from gateway.policy.keys import KeySet
from gateway.policy.model import Claims, Deny, DownloadRequest
from gateway.policy.reasons import Reason
from gateway.policy.tokens import parse, timely
from gateway.services.throttle import Throttle

TOKENS_CACHED = 4096


class TokenReader:
    """One per worker."""

    def __init__(self, keys: KeySet, issuer: str, throttle: Throttle) -> None:
        self._keys = keys
        self._issuer = issuer
        self._throttle = throttle
        self._tokens: OrderedDict[str, Claims] = OrderedDict()

    def read(self, token: str) -> Claims | Deny:
        """The claims of a genuine token whose time has begun (it may be expired), without touching anything."""
        claims = self._tokens.get(token)
        if claims is None:
            parsed = parse(token, self._keys, self._issuer)
            if isinstance(parsed, Deny):
                return parsed
            claims = self._tokens[token] = parsed
            if len(self._tokens) > TOKENS_CACHED:
                self._tokens.popitem(last=False)
        return timely(claims, int(time.time())) or claims

    def read_for(self, request: DownloadRequest) -> Claims | Deny:
        """The same; `throttled` in place of what is wrong with it where its network has failed too often."""
        claims = self.read(request.token)
        if not isinstance(claims, Deny) or claims.reason is Reason.TOKEN_NOT_YET:
            return claims
        return self._throttle.instead(claims, request.client_network)
