"""What the events of one request say of it: enough to decide the request again, and nothing secret."""

from __future__ import annotations

from gateway.policy.model import (
    NETWORK_TYPES,
    Allow,
    Claims,
    Deny,
    Device,
    DownloadRequest,
    FileEntry,
    Place,
    StoredObject,
)

UNKNOWN = "unknown"


def describe(
    request: DownloadRequest,
    *,
    claims: Claims | None = None,
    file: FileEntry | None = None,
    device: Device | None = None,
    stored: StoredObject | None = None,
    asked: int | None = None,
    place: Place | None = None,
    decision: Allow | Deny | None = None,
) -> dict[str, str]:
    """Event fields, by the names of docs/events.md; what is not known is left out. `asked` in body bytes."""
    fields: dict[str, str | None] = {
        "request.id": request.request_id,
        "front": request.front,
        "account": None if request.account is None else request.account.customer_id,
        "http.request.method": request.method,
        "http.request.range": request.range,
        "client.address": str(request.client_address),
        "client.network": request.client_network,
        "user_agent.original": request.user_agent,
        "campaign": request.campaign,
        "file.use": "view" if request.view else "download",
    }
    if claims is not None:
        fields |= _of_claims(claims)
    if file is not None:
        fields |= {"file.key": file.recorded, "file.id": file.recorded_id}
    if device is not None:
        fields["device.id"] = device.id
        fields["device.cookie"] = device.cookie if device.cookie != device.id else None
    if stored is not None:
        fields |= {"file.size": str(stored.size), "file.etag": stored.etag}
    if asked is not None:
        fields["bytes.asked"] = str(asked)
    if place is not None:
        fields |= _of_place(place)
    if decision is not None:
        fields |= {"rule": decision.rule, "would_deny": ",".join(decision.would_deny)}
        fields["plan"] = decision.plan or fields.get("plan")
        if isinstance(decision, Allow):
            fields |= {"limits": str(decision.limits), "limits.waived": ",".join(decision.waived)}
            fields["plan.guests"] = ",".join(decision.guests)
    return {name: value for name, value in fields.items() if value}


def _of_claims(claims: Claims) -> dict[str, str | None]:
    return {
        "token.id": claims.token_id,
        "order.id": claims.order_id,
        "customer.id": claims.customer_id,
        "plan": claims.plan,
        "tier": claims.tier,
        "token.plan": claims.plan,
        "token.limits": str(claims.limits),
        "token.account": "true" if claims.account else None,
        "token.issued_at": _number(claims.issued_at),
        "token.expires_at": str(claims.expires_at),
    }


def _number(number: int | None) -> str | None:
    return None if number is None else str(number)


def _of_place(place: Place) -> dict[str, str | None]:
    if not place.version:
        return {}
    types = sorted(place.network, key=NETWORK_TYPES.index) if place.network is not None else [UNKNOWN]
    return {
        "geo.version": place.version,
        "geo.country.iso_code": place.country or UNKNOWN,
        "geo.continent.code": place.continent,
        "geo.region.iso_code": place.region,
        "geo.city.name": place.city,
        "as.number": str(place.asn) if place.asn is not None else None,
        "client.network.type": ",".join(types),
    }
