"""What a YAML file may cost before it is refused, whatever it says."""

from __future__ import annotations

import pytest

from gateway.document import Mistakes
from gateway.yaml_file import Bounds, parse

BOUNDS = Bounds("rules", 0, nodes=12, depth=3, aliases=2)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("a: [1, 2, 3, 4, 5, 6, 7, 8]", ""),
        ("a: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]", "more than 12 values"),
        ("a: &a [1, 2]\nb: [*a]", ""),
        ("a: &a [1, 2, 3]\nb: [*a, *a]", "more than 12 values, aliases expanded"),
        ("a: &a 1\nb: [*a, *a]", ""),
        ("a: &a 1\nb: [*a, *a, *a]", "more than 2 aliases"),
        ("a: [[1]]", ""),
        ("a: [[[1]]]", "deeper than 3 levels"),
        ("a: !!python/object:os.system 1", "has a tag"),
        ("a: 1\n---\nb: 1", "second document"),
        ("a: 1\na: 2", "is there twice"),
    ],
)
def test_a_file_is_bounded_before_it_is_built(text: str, wrong: str) -> None:
    mistakes = Mistakes()
    parse(text, lambda line: f"f:{line}", mistakes, BOUNDS)
    assert (wrong in mistakes.report()) if wrong else not mistakes.keys
