"""Somebody sets the clock of the shop's machine."""

import pytest

from store_cache.core.change import Doubt
from store_cache.core.event import Event, Kind
from store_cache.core.position import Position
from store_cache.core.product import read_row
from tests.app.shelf import Shelf
from tests.edges.virtual_time import run


@pytest.mark.parametrize("set_by_seconds", [3600.0, -3600.0])
def test_a_clock_that_is_set_brings_no_ended_life_back(set_by_seconds: float) -> None:
    """[V2] A reading said that the product is gone, and the feed, which is behind, tells of how a
    life of it began that has ended by then: it stays gone, whatever the clock says."""
    row = read_row(b'{"productId":"P-1","available":9,"version":1}')

    async def story() -> None:
        shelf = await Shelf().filled()
        await shelf.keeper.note_in_step()
        seen = shelf.keeper.seen("P-1")
        await shelf.keeper.take_reading("P-1", None, seen=seen, doubt=Doubt.ORDER)
        shelf.clock.set_by_seconds = set_by_seconds
        await shelf.keeper.note_in_step()
        offset = shelf.catalogue.position.offset if shelf.catalogue.position else 0
        began = Event(offset, Kind.CREATED, "P-1", 1, row.body, "f")
        await shelf.keeper.keep_events([began], Position("g-1", offset + 1, "f"))

        assert None is shelf.row("P-1")

    run(story())
