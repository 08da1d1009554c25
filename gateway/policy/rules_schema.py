"""The JSON Schema (2020-12) of a rules file, made from what reads one, so that editors complete and explain it.

Law: it refuses nothing that the gateway takes; what it cannot see, `gateway rules check` does.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping

from gateway.policy.conditions import CONDITIONS
from gateway.policy.conditions.schemas import TEXT, WHEN, Schema
from gateway.policy.limits import BY_NAME, LIMIT_MAX
from gateway.policy.rules_reader import DAY_PATTERN, MESSAGE_MAX, MODES, NAME_MAX, RENEWALS_MAX
from gateway.policy.ruleset import Action
from gateway.policy.units import DURATION_PATTERN, RATE_PATTERN, parse_duration, parse_rate

ABOUT: Mapping[Action, str] = {
    "allow": "The file may be had, within the limits. Later rules are not asked.",
    "deny": "The file is refused. Later rules are not asked.",
    "require_account": "Refused unless the buyer has signed in. Later rules are asked.",
    "limit": "These limits hold as well. Later rules are asked.",
}
"""What each action does, in a sentence or two."""

_MODES: Mapping[str, str] = {
    "enforce": "The rule holds, as it does where no mode is written.",
    "observe": "The rule changes nothing; events say whom it would have refused.",
}
_NUMBER: Schema = {
    "anyOf": [
        {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX},
        {"type": "string", "pattern": "^[1-9][0-9]{0,17}$"},
    ]
}
_DURATION: Schema = {"type": "string", "pattern": f"^{DURATION_PATTERN}$", "examples": ["72h", "30d"]}
_RATE: Schema = {"type": "string", "pattern": f"^{RATE_PATTERN}$", "examples": ["2MB/s"]}
_LIST_ENTRY: Schema = {**TEXT, "minLength": 0, "pattern": "^([^$]|$)"}


def rules_schema() -> Schema:
    """The whole schema, to be printed as JSON."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Rules of a download gateway",
        "description": "Who may download what, from where, how often and how fast.",
        **_mapping(
            {
                "version": {"description": "The version of this grammar.", "enum": [1, "1"]},
                "plans": _named(
                    "Limits by name. A link names its plan when it is made.",
                    _mapping({"valid_for": _valid_for(), "view": _view(), **_for_guests(), **_limits()}),
                ),
                "default_plan": {"description": "The plan of links that name none.", **TEXT},
                "lists": _named("Values by name, used as $name.", _list()),
                "rules": {
                    "description": "In order: the first allow or deny that matches decides, the others add up.",
                    "type": "array",
                    "minItems": 1,
                    "items": {"$ref": "#/$defs/rule"},
                },
                "otherwise": _words("What no rule decided.", {name: ABOUT[name] for name in ("allow", "deny")}),
            },
            required=("version", "otherwise"),
        ),
        "$defs": {
            "rule": _rule(),
            "when": {
                "description": "All of these must hold; a list means any of its values.",
                **_mapping(
                    {key: {"description": inspect.getdoc(kind), **kind.schema()} for key, kind in CONDITIONS.items()},
                    at_least=1,
                ),
            },
            "list_name": {"type": "string", "pattern": r"^\$"},
        },
    }


def _rule() -> Schema:
    limit = {"limit": {"description": ABOUT["limit"], **_mapping(_limits(), at_least=1)}}
    thens = _words("What then happens.", {name: text for name, text in ABOUT.items() if name != "limit"})
    return {
        **_mapping(
            {
                "name": {"description": "A name of its own, which events show.", **TEXT, "maxLength": NAME_MAX},
                "when": WHEN,
                "then": {"anyOf": [thens, _mapping(limit, required=("limit",))]},
                "message": {"description": "What a denied buyer is told.", **TEXT, "maxLength": MESSAGE_MAX},
                "mode": _words("Whether the rule is enforced.", {name: _MODES[name] for name in MODES}),
                "since": {
                    "description": "The day from which it stands here; `gateway rules check` tells old trials by it.",
                    "type": "string",
                    "pattern": f"^{DAY_PATTERN}$",
                },
            },
            required=("name", "when", "then"),
        ),
        "if": {"required": ["message"]},
        "then": {"properties": {"then": {"const": "deny"}}},
    }


def _list() -> Schema:
    path = {"description": "A file with one value a line, # for comments; from this file's folder on.", **TEXT}
    values = {"type": "array", "minItems": 1, "items": _LIST_ENTRY}
    return {"anyOf": [values, _LIST_ENTRY, _mapping({"file": path}, required=("file",))]}


def _limits() -> Mapping[str, Schema]:
    forms: Mapping[object, Schema] = {None: _NUMBER, parse_duration: _DURATION, parse_rate: _RATE}
    return {name: {"description": kind.about, **forms.get(kind.parse, TEXT)} for name, kind in BY_NAME.items()}


def _valid_for() -> Schema:
    return {"description": "The longest time from a link's making to its end.", **_DURATION}


def _view() -> Schema:
    return {"description": "Whether ?view=1 shows a file in the browser.", "enum": [True, False, "true", "false"]}


def _for_guests() -> Mapping[str, Schema]:
    return {
        "bind_ip": _words("Where the link works.", {"order": "Only in the network that the order came from."}),
        "new_device": _words(
            "What a device after the first one needs.", {"code": "A code, mailed to the order's own address."}
        ),
        "renewals": {
            "description": "How often the buyer may have a used-up link renewed without asking anybody.",
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": RENEWALS_MAX},
                {"type": "string", "pattern": "^[1-9][0-9]?$|^100$"},
            ],
        },
    }


def _words(about: str, words: Mapping[str, str]) -> Schema:
    return {"description": about, "oneOf": [{"const": word, "description": text} for word, text in words.items()]}


def _named(about: str, member: Schema) -> Schema:
    return {"description": about, "type": "object", "minProperties": 1, "additionalProperties": member}


def _mapping(members: Mapping[str, Schema], required: tuple[str, ...] = (), at_least: int = 0) -> Schema:
    """A mapping of these members and no others."""
    found: dict[str, object] = {"type": "object", "properties": dict(members), "additionalProperties": False}
    if required:
        found["required"] = list(required)
    if at_least:
        found["minProperties"] = at_least
    return found
