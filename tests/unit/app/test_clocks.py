"""Somebody sets the clock of the shop's machine."""

import asyncio

import pytest

from store_cache.catalogue.apply import OVERRIDE_SECONDS
from store_cache.model.change import RefetchReason
from store_cache.model.event import Event, Kind
from store_cache.model.position import Position
from store_cache.model.product import read_row
from tests.harness.shelf import Clock, Shelf
from tests.harness.virtual_time import in_virtual_time


@pytest.mark.parametrize("set_by_seconds", [3600.0, -3600.0])
@in_virtual_time
async def test_a_clock_that_is_set_brings_no_ended_life_back(set_by_seconds: float) -> None:
    """[V2] A reading said that the product is gone, and the feed, which is behind, tells of how a
    life of it began that has ended by then: it stays gone, whatever the clock says."""
    row = read_row(b'{"productId":"P-1","available":9,"version":1}')
    shelf = await Shelf().filled()
    await shelf.writer.note_in_sync()
    known = shelf.writer.known_state("P-1")
    await shelf.writer.apply_refetch("P-1", None, known=known, reason=RefetchReason.ORDER)
    shelf.clock.set_by_seconds = set_by_seconds
    await shelf.writer.note_in_sync()
    offset = shelf.catalogue.position.offset if shelf.catalogue.position else 0
    began = Event(offset, Kind.CREATED, "P-1", 1, row.body, "f")
    await shelf.writer.apply_events([began], Position("g-1", offset + 1, "f"))

    assert None is shelf.row("P-1")


class SetBack(Clock):
    """The clock of a process that began when it was an hour behind."""

    def steady(self) -> float:
        return super().steady() - 3600


@in_virtual_time
async def test_what_is_ahead_grows_old_though_the_clock_was_set_back_before_a_start() -> None:
    """[W7] A product still ahead a minute after the start is read again, and not in an hour."""
    ahead = read_row(b'{"productId":"P-1","available":9,"version":7}')
    shelf = await Shelf().filled()
    known = shelf.writer.known_state("P-1")
    await shelf.writer.apply_refetch("P-1", ahead, known=known, reason=RefetchReason.ORDER)
    left = Shelf(shelf.disk.after_kill(), clock=SetBack(), central=shelf.central)
    await left.writer.open()
    await asyncio.sleep(OVERRIDE_SECONDS)
    await left.writer.note_in_sync()

    assert ["P-1"] == left.writer.stale_overrides()
