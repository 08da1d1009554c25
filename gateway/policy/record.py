"""What the events of one request say of it: enough to decide the request again, and nothing secret."""

from __future__ import annotations

from gateway.policy.model import Claims, Device, DownloadRequest, FileEntry, StoredObject


def describe(
    request: DownloadRequest,
    *,
    claims: Claims | None = None,
    file: FileEntry | None = None,
    device: Device | None = None,
    stored: StoredObject | None = None,
    asked: int | None = None,
) -> dict[str, str]:
    """Event fields, by the names of docs/events.md; what is not known is left out. `asked` in body bytes."""
    fields: dict[str, str | None] = {
        "request.id": request.request_id,
        "front": request.front,
        "http.request.method": request.method,
        "http.request.range": request.range,
        "client.address": str(request.client_address),
        "client.network": request.client_network,
        "user_agent.original": request.user_agent,
        "campaign": request.campaign,
        "file.use": "view" if request.view else "download",
    }
    if claims is not None:
        fields |= {
            "token.id": claims.token_id,
            "order.id": claims.order_id,
            "customer.id": claims.customer_id,
            "plan": claims.plan,
            "tier": claims.tier,
        }
    if file is not None:
        fields["file.key"] = file.identity
    if device is not None:
        fields["device.id"] = device.id
    if stored is not None:
        fields |= {"file.size": str(stored.size), "file.etag": stored.etag}
    if asked is not None:
        fields["bytes.asked"] = str(asked)
    return {name: value for name, value in fields.items() if value}
