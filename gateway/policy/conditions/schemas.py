"""Pieces of JSON Schema (2020-12) that conditions are described with; the whole is policy.rules_schema."""

from __future__ import annotations

from collections.abc import Mapping

Schema = Mapping[str, object]

WHEN: Schema = {"$ref": "#/$defs/when"}
ANY_TEXT: Schema = {"type": ["string", "number", "boolean"]}
"""Every scalar is a text to the gateway, whatever YAML makes of it: `order: 10001` needs no quotes."""
TEXT: Schema = {**ANY_TEXT, "minLength": 1}


def values_of(value: Schema) -> Schema:
    """One value, the name of a list, or a list of both."""
    one = {"anyOf": [value, {"$ref": "#/$defs/list_name"}]}
    return {"anyOf": [*one["anyOf"], {"type": "array", "minItems": 1, "items": one}]}
