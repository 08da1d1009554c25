"""Whether a verified token may have this file now, as data. Touches nothing: the ledger applies what it describes."""

from __future__ import annotations

from gateway.policy.limits import charges, unenforced
from gateway.policy.model import Allow, Claims, Decision, Deny, DownloadRequest, FileEntry
from gateway.policy.reasons import Reason


def requested_file(claims: Claims, number: int) -> FileEntry | Deny:
    """The file at this place in the token, counted from 1."""
    if not 1 <= number <= len(claims.files):
        return Deny(Reason.FILE_UNKNOWN)
    return claims.files[number - 1]


def decide(claims: Claims, file: FileEntry, request: DownloadRequest) -> Decision:
    """Allow with its charges, or the first reason to deny. What this release cannot enforce, it denies."""
    if claims.ip and not any(request.client_address in network for network in claims.ip):
        return Deny(Reason.TOKEN_IP)
    if claims.account:
        return Deny(Reason.ACCOUNT_REQUIRED)
    if claims.plan is not None:
        return Deny(Reason.TOKEN_CLAIMS, message="The token names a plan, and this gateway has no plans.")
    if names := unenforced(claims.limits):
        return Deny(Reason.TOKEN_CLAIMS, message=f"This gateway does not enforce the limit {names[0]}.")
    if file.key is None:
        return Deny(Reason.TOKEN_CLAIMS, message="This gateway delivers no external files.")
    if request.view:
        return Deny(Reason.VIEW_NOT_ALLOWED)
    return Allow(file.key, charges(claims.limits), claims.expires_at)
