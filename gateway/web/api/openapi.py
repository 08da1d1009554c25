"""The description of the API (OpenAPI 3.1), made from the table of calls and their models: it cannot drift."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from http import HTTPStatus

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from gateway import __version__
from gateway.web.api.asking import Nothing
from gateway.web.api.call import Call
from gateway.web.api.calls import CALLS, ROOT
from gateway.web.api.reading import KEY, KEY_PATTERN, TOKEN_ID_PATTERN

Members = dict[str, object]

_REFERENCE = "#/components/schemas/{model}"
_EVERY_CALL = (400, 401, 403, 503)
_WITH_BODY = (408, 413, 415, 422)
_ROLES = {
    "read-only": "Every role may call it.",
    "support": "For the roles support and ops.",
    "ops": "For the role ops.",
}
_PROBLEM: Members = {
    "type": "object",
    "title": "Problem",
    "description": "A refusal (RFC 9457). Programs go by `reason`, people by `detail`.",
    "required": ["type", "title", "status", "detail", "reason", "request_id"],
    "properties": {
        "type": {"type": "string", "const": "about:blank"},
        "title": {"type": "string", "examples": ["Not Found"]},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string"},
        "reason": {"type": "string", "examples": ["link.unknown"]},
        "request_id": {"type": "string"},
    },
}


def describe_api() -> Members:
    """The whole document."""
    models = {model for call in CALLS for model in (call.body, call.answer) if model is not Nothing or call.takes_body}
    ordered = sorted(models, key=lambda model: model.__name__)
    _, schemas = models_json_schema([(model, "validation") for model in ordered], ref_template=_REFERENCE)
    paths: dict[str, Members] = {}
    for call in CALLS:
        paths.setdefault(f"{ROOT}{call.path}", {})[call.method.lower()] = _operation(call)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "download-gateway",
            "version": __version__,
            "summary": "Links and orders, for the shop's own people and programs.",
            "description": "Served on the management listener. Every call takes a bearer token; times are RFC 3339.",
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}],
        "tags": [{"name": "links"}, {"name": "orders"}],
        "paths": paths,
        "components": {
            "schemas": {**schemas["$defs"], "Problem": _PROBLEM},
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The token of one of management.users, or management.token.",
                }
            },
        },
    }


def _operation(call: Call) -> Members:
    operation: Members = {
        "operationId": call.name,
        "tags": [call.path.split("/")[1]],
        "summary": call.summary,
        "description": _ROLES[call.role],
        "parameters": list(_parameters(call)),
        "responses": dict(_responses(call)),
    }
    if call.takes_body:
        content: Members = {"schema": _reference(call.body)}
        if call.example:
            content["example"] = call.example
        operation["requestBody"] = {"required": call.needs_body, "content": {"application/json": content}}
    return operation


def _parameters(call: Call) -> Iterator[Members]:
    if "{token_id}" in call.path:
        yield _parameter("token_id", "path", {"type": "string", "pattern": TOKEN_ID_PATTERN}, required=True)
    if "{order_id}" in call.path:
        bounds = {"type": "string", "minLength": 1, "maxLength": 255, "examples": ["main-10001"]}
        yield _parameter("order_id", "path", bounds, required=True)
    if call.query is not Nothing:
        schema = call.query.model_json_schema()
        for name, each in schema["properties"].items():
            yield _parameter(name, "query", each, required=name in schema.get("required", ()))
    if call.keyed:
        bounds = {"type": "string", "pattern": KEY_PATTERN}
        about = "The same key of the same user gives the same link, for a day."
        yield {**_parameter(KEY, "header", bounds, required=False), "description": about}


def _parameter(name: str, where: str, schema: Mapping[str, object], *, required: bool) -> Members:
    return {"name": name, "in": where, "required": required, "schema": schema}


def _responses(call: Call) -> Iterator[tuple[str, Members]]:
    success: Members = {
        "description": call.summary,
        "content": {"application/json": {"schema": _reference(call.answer)}},
    }
    if call.status == HTTPStatus.CREATED:
        success["headers"] = {"Location": {"description": "Where it is.", "schema": {"type": "string"}}}
    yield str(call.status), success
    refused = {*_EVERY_CALL, *call.refuses, *(_WITH_BODY if call.takes_body else ())}
    if "{" in call.path:
        refused.add(404)
    for status in sorted(refused):
        answer: Members = {
            "description": HTTPStatus(status).phrase,
            "content": {"application/problem+json": {"schema": {"$ref": _REFERENCE.format(model="Problem")}}},
        }
        if status == HTTPStatus.UNAUTHORIZED:
            answer["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}}}
        yield str(status), answer


def _reference(model: type[BaseModel]) -> Members:
    return {"$ref": _REFERENCE.format(model=model.__name__)}
