"""The comparison finds differences."""

from __future__ import annotations

from typing import Any

import pytest

from tests.golden.compare import differences

RECORDED = {"status": 200, "body": {"products": [{"version": 1, "price": 1.0}], "name": "a"}}


def test_equal_values_have_no_differences() -> None:
    """No line is yielded."""
    assert [] == list(differences(RECORDED, {**RECORDED}))


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"status": 201, "body": RECORDED["body"]}, " > status: is 201, was 200"),
        (RECORDED | {"body": {"products": [], "name": "a"}}, " > body > products: has 0 items"),
        (RECORDED | {"more": 1}, " > more: is new, 1"),
        ({"status": 200}, " > body: is missing"),
        (dict(reversed(RECORDED.items())), ": the order is ['body', 'status']"),
        (
            RECORDED | {"body": {"products": [{"version": 1.0, "price": 1.0}], "name": "a"}},
            " > body > products > 0 > version: is 1.0, was 1",
        ),
    ],
)
def test_each_difference_is_named(found: dict[str, Any], said: str) -> None:
    """By the path to the field, with both values; 1 and 1.0 are not the same bytes."""
    lines = list(differences(RECORDED, found))

    assert 1 == len(lines)
    assert lines[0].startswith(said)
