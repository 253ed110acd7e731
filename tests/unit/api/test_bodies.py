"""The bodies of reads."""

from __future__ import annotations

import orjson
import pytest

from store_cache.api.content import bodies
from tests.harness.fake_store import FakeStore, product

HELD = ("PROD-001", "PROD-002", "PROD-003")


@pytest.mark.parametrize(
    "asked",
    [
        (),
        ("PROD-002",),
        ("PROD-999",),
        ("PROD-003", "PROD-001"),
        ("PROD-003", "PROD-998", "PROD-001", "PROD-999"),
        ("PROD-998", "PROD-999"),
    ],
    ids=len,
)
def test_a_basket_is_answered_in_the_order_asked(asked: tuple[str, ...]) -> None:
    """Whether all, some or none of the ids are held."""
    fake = FakeStore(product(one) for one in HELD)
    body, tag = bodies.basket(fake.held, asked)
    rows = [fake.held.rows[one] for one in asked if one in HELD]
    missing = [one for one in asked if one not in HELD]

    assert {"products": [*map(orjson.loads, rows)], "missing": missing} == orjson.loads(body)
    assert tag == bodies.weak_tag(rows, *missing)
