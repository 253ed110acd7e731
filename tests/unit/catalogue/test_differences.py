"""What a full sync has changed is told in parts, each product once, while changes go on."""

from __future__ import annotations

import random

import pytest

from store_cache.catalogue import differences
from store_cache.catalogue.catalogue import Catalogue
from store_cache.catalogue.differences import Difference, Differences
from store_cache.model.change import Change

IDS = [f"P{number:02d}" for number in range(30)]


def catalogue_of(rows: dict[str, bytes]) -> Catalogue:
    catalogue = Catalogue()
    catalogue.apply(Change("", rows=rows))
    return catalogue


def difference_of(old: dict[str, bytes], new: dict[str, bytes]) -> dict[str, Difference]:
    pairs = {product_id: (old.get(product_id), new.get(product_id)) for product_id in old | new}
    return {product_id: pair for product_id, pair in pairs.items() if pair[0] != pair[1]}


@pytest.mark.parametrize("seed", range(40))
def test_each_difference_is_told_once_as_it_was(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever changes meanwhile: before a product does, its difference is taken."""
    monkeypatch.setattr(differences, "PART_PRODUCTS", 4)
    chance = random.Random(seed)
    old, new = (
        {product_id: b"%d" % chance.randint(0, 2) for product_id in IDS if chance.random() < share}
        for share in (0.7, chance.choice((0.0, 0.7)))
    )
    shown = catalogue_of(new)
    walk = Differences(catalogue_of(old), shown)
    told: list[tuple[str, Difference]] = []
    parts = 0
    while not walk.is_done:
        changing = chance.sample(IDS, chance.randint(0, 3))
        told += walk.take(changing).items()
        shown.apply(Change("", rows=dict.fromkeys(changing, b"later")))
        told += walk.next_part().items()
        parts += 1
    told += walk.take(IDS).items()

    assert sorted(told) == sorted(difference_of(old, new).items())
    assert parts <= 2 + len(old) // 4 + len(shown) // 4
