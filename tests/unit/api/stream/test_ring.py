"""The ring of changes: the last ones, each product's newest, by number."""

from __future__ import annotations

import random

import pytest

from store_cache.api.stream.ring import ChangeRing


def events(ring: ChangeRing, number: int) -> list[tuple[int, str, bytes]]:
    return [(later, product_id, event) for later, (product_id, event) in ring.after(number)]


def test_changes_are_numbered_from_one() -> None:
    """Who has seen nothing gets everything."""
    ring = ChangeRing(4)
    assert ring.holds_all_after(0)
    ring.add("A", b"a")
    ring.add("B", b"b")
    assert events(ring, 0) == [(1, "A", b"a"), (2, "B", b"b")]
    assert events(ring, 1) == [(2, "B", b"b")]
    assert events(ring, 2) == []


def test_a_products_older_change_is_dropped() -> None:
    """Who falls behind gets each product's newest state once."""
    ring = ChangeRing(4)
    for number in range(3):
        ring.add("A", b"%d" % number)
    assert events(ring, 0) == [(3, "A", b"2")]


def test_the_oldest_changes_make_room() -> None:
    """A number that is no longer kept cannot be gone on from."""
    ring = ChangeRing(2)
    for name in "ABC":
        ring.add(name, name.encode())
    assert [ring.holds_all_after(number) for number in range(5)] == [False, True, True, True, False]
    assert events(ring, 1) == [(2, "B", b"B"), (3, "C", b"C")]


def test_a_ring_that_forgot_goes_on_counting() -> None:
    """No number is used twice."""
    ring = ChangeRing(2)
    ring.add("A", b"a")
    ring.forget()
    assert ring.holds_all_after(1)
    assert not ring.holds_all_after(0)
    ring.add("A", b"b")
    assert events(ring, 1) == [(2, "A", b"b")]


@pytest.mark.parametrize("seed", range(10))
def test_it_is_like_a_list_of_all_changes(seed: int) -> None:
    """From every number that is kept, the newest changes of each product come in order."""
    rng = random.Random(seed)
    size = rng.randint(1, 12)
    ring, told = ChangeRing(size), []
    for number in range(1, 200):
        name = rng.choice("ABCDEFG")
        ring.add(name, str(number).encode())
        told.append((number, name))
        begin = rng.randint(max(0, number - size), number)
        newest = {name: number for number, name in told[begin:]}
        expected = sorted((number, name) for name, number in newest.items())
        assert [(n, name) for n, name, _ in events(ring, begin)] == expected
        assert ring.holds_all_after(begin)
