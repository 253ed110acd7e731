"""Somebody sets the clock of the shop's machine."""

import asyncio

import pytest

from store_cache.catalogue.apply import AHEAD_SECONDS
from store_cache.model.change import Doubt
from store_cache.model.event import Event, Kind
from store_cache.model.position import Position
from store_cache.model.product import read_row
from tests.harness.shelf import Clock, Shelf
from tests.harness.virtual_time import run


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


class SetBack(Clock):
    """The clock of a process that began when it was an hour behind."""

    def steady(self) -> float:
        return super().steady() - 3600


def test_what_is_ahead_grows_old_though_the_clock_was_set_back_before_a_start() -> None:
    """[W7] A product still ahead a minute after the start is read again, and not in an hour."""
    ahead = read_row(b'{"productId":"P-1","available":9,"version":7}')

    async def story() -> None:
        shelf = await Shelf().filled()
        seen = shelf.keeper.seen("P-1")
        await shelf.keeper.take_reading("P-1", ahead, seen=seen, doubt=Doubt.ORDER)
        left = Shelf(shelf.disk.after_kill(), clock=SetBack(), central=shelf.central)
        await left.keeper.open()
        await asyncio.sleep(AHEAD_SECONDS)
        await left.keeper.note_in_step()

        assert ["P-1"] == left.keeper.left_behind()

    run(story())
