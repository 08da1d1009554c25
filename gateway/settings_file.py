"""The settings file, and what `${…}` in it stands for: variables of the environment and files with secrets.

Mistakes are collected, not raised; a message never repeats a value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path

from gateway.document import Mistakes, Node, join, short, short_name
from gateway.yaml_file import Bounds, decode, mapping, read_bounded
from gateway.yaml_file import parse as parse_yaml

BOUNDS = Bounds("settings", size=256 * 1024, nodes=20_000)

_REFERENCE = re.compile(r"\$\$\{|\$\{([^}\n]*)\}?")
# Braces mean something to YAML inside [ ] and { }, so references are hidden from it behind private-use characters.
_VISIBLE = re.compile(r"\$\{[^}\n]*\}")
_HIDDEN = re.compile("\ue000([0-9]{1,6})\ue001")


def read_file(path: Path, mistakes: Mistakes) -> Node | None:
    """The file's tree, a mapping without what was reported as a mistake; None where nothing of it can be used."""
    try:
        data = read_bounded(path, BOUNDS.size)
    except OSError as error:
        mistakes.add(str(path), "", f"cannot be read ({error.strerror}); name a readable file with --config")
        return None
    if len(data) > BOUNDS.size:
        mistakes.add(str(path), "", f"is larger than {BOUNDS.size // 1024} KiB; settings are smaller than that")
        return None
    text = decode(data, path, mistakes)
    return None if text is None else mapping(parse(text, lambda line: f"{path}:{line}", mistakes), mistakes)


def parse(text: str, source: Callable[[int], str], mistakes: Mistakes, key: str = "") -> Node | None:
    """The tree of a YAML text, None where it is broken; an empty text is an empty mapping. `source` names a line."""
    hidden: dict[int, str] = dict(enumerate(_VISIBLE.findall(text)))
    numbers = count()

    def shown(scalar: str) -> str:
        return _HIDDEN.sub(lambda found: hidden.get(int(found[1]), found[0]), scalar)

    covered = _VISIBLE.sub(lambda _: f"\ue000{next(numbers)}\ue001", text)
    return parse_yaml(covered, source, mistakes, BOUNDS, key=key, shown=shown)


def substitute(node: Node, environ: Mapping[str, str], mistakes: Mistakes, key: str = "") -> Node:
    """The tree with `${NAME}` and `${file:PATH}` replaced (`$${` is a literal `${`), nulls reported and taken out."""
    if isinstance(node.value, dict):
        children = {name: substitute(child, environ, mistakes, join(key, name)) for name, child in node.value.items()}
        return replace(node, value={name: child for name, child in children.items() if child.value is not None})
    if isinstance(node.value, list):
        items = [substitute(child, environ, mistakes, join(key, index)) for index, child in enumerate(node.value)]
        return replace(node, value=items)
    if node.value is None:
        mistakes.add(node, key, "has no value; give it one or remove the line")
        return node
    try:
        return replace(node, value=_REFERENCE.sub(lambda found: _referenced(found, environ), node.value))
    except _Refused as error:
        mistakes.add(node, key, str(error))
        return replace(node, value=None)


def references(node: Node) -> Iterator[str]:
    """The environment variables that the tree reads with `${NAME}`."""
    if isinstance(node.value, str):
        yield from (found[1] for found in _REFERENCE.finditer(node.value) if found[1])
    elif node.value is not None:
        for child in node.value.values() if isinstance(node.value, dict) else node.value:
            yield from references(child)


class _Refused(Exception):
    """A reference that leads nowhere; the text says what would be right."""


def _referenced(found: re.Match[str], environ: Mapping[str, str]) -> str:
    name = found[1]
    if name is None:
        return "${"
    if not found[0].endswith("}") or not name:
        raise _Refused("has a ${ that is not closed or empty; write ${NAME}, ${file:PATH}, or $${ for a literal ${")
    if name.startswith("file:"):
        return _secret_file(name.removeprefix("file:"))
    if not environ.get(name):
        state = "empty" if name in environ else "not set"
        raise _Refused(f"reads the variable {short_name(name)}, which is {state}; set it, or use ${{file:PATH}}")
    return environ[name]


def _secret_file(path: str) -> str:
    try:
        data = read_bounded(Path(path), BOUNDS.size)
        text = data.decode()
    except OSError as error:
        raise _Refused(f"reads the file {short(path)}: {error.strerror}; name a readable file") from None
    except ValueError:
        raise _Refused(f"reads the file {short(path)}, which is no UTF-8 text; store text in it") from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text or len(data) > BOUNDS.size:
        state = "too large" if text else "empty"
        raise _Refused(f"reads the file {short(path)}, which is {state}; put only the value in it")
    return text
