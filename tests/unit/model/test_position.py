"""Positions in Central's feed, and the names of feeds that Central does not name."""

from __future__ import annotations

import pytest

from store_cache.model.position import Position, next_local_generation, succeeding_generation


@pytest.mark.parametrize("fingerprint", [None, "6f1a"])
def test_a_position_is_stored_whole(fingerprint: str | None) -> None:
    """[P1] Generation, offset and fingerprint go to disk and come back together."""
    position = Position("g1", 1046, fingerprint)

    assert position == Position.from_json(position.to_json())


@pytest.mark.parametrize(("offset", "last"), [(1046, 1045), (1, 0), (0, 0)])
def test_the_offset_is_the_next_one_wanted(offset: int, last: int) -> None:
    """[P1] The last one that the rows reflect is the one before it; 0 before the first."""
    assert last == Position("g1", offset).last_offset


@pytest.mark.parametrize(
    ("generation", "named"),
    [
        ("g1", "g1"),
        ("local 1", None),
        ("local 12", None),
        ("local-1", "local-1"),
        ("locale", "locale"),
    ],
)
def test_only_the_stores_own_names_are_local(generation: str, named: str | None) -> None:
    """[P1] Central may give its feed any name that a header can carry."""
    position = Position(generation, 5)

    assert (named, named is None) == (position.named, position.is_local)


@pytest.mark.parametrize(
    ("held", "following"),
    [
        (None, "local 1"),
        ("local 1", "local 2"),
        ("local 9", "local 10"),
        ("g1", "local 1"),
        ("local-dev", "local 1"),
    ],
)
def test_a_replaced_feed_without_a_name_gets_another_one(held: str | None, following: str) -> None:
    """[P1] Offsets of the feed before do not count in it."""
    assert following == next_local_generation(held)


def test_a_feed_that_is_named_later_keeps_its_place() -> None:
    """[P1] A new name moves neither offset nor fingerprint."""
    assert Position("g1", 7, "f") == Position("local 1", 7, "f").renamed("g1")


@pytest.mark.parametrize(
    ("held", "named", "following", "label"),
    [
        (None, "g1", "g1", "g1"),
        ("g1", "g2", "g2", "g2"),
        ("g1", "g1", "g1 2", "g1~2"),
        ("g1 2", "g1", "g1 3", "g1~3"),
        ("local 4", "g1", "g1", "g1"),
        ("local 4", None, "local 5", "local~5"),
        ("g1 2", None, "local 1", "local~1"),
    ],
)
def test_a_central_restored_under_its_old_name_is_another_generation(
    held: str | None, named: str | None, following: str, label: str
) -> None:
    """[P1] Answers show the difference, and what Central calls it is still known."""
    found = succeeding_generation(held, named)

    assert (following, label) == (found, Position(found, 1).label)
    assert named == Position(found, 1).named
