"""The clock of the machine is set while the store remembers times."""

import asyncio

import pytest

from store_cache.catalogue.apply import OVERRIDE_SECONDS
from store_cache.model.change import RefetchReason
from store_cache.model.event import Event, Kind
from store_cache.model.position import Position
from store_cache.model.product import read_row
from tests.harness.cache import Cache
from tests.harness.clock import Clock
from tests.harness.virtual_time import in_virtual_time


@pytest.mark.parametrize("set_by_seconds", [3600.0, -3600.0])
@in_virtual_time
async def test_setting_the_clock_brings_no_deleted_product_back(set_by_seconds: float) -> None:
    """[V2] A refetch found the product deleted, and the feed, which is behind, then brings the
    creation of that incarnation: the product stays deleted, whatever the clock says."""
    row = read_row(b'{"productId":"P-1","available":9,"version":1}')
    cache = await Cache().filled()
    await cache.writer.note_in_sync()
    known = cache.writer.known_state("P-1")
    await cache.writer.apply_refetch("P-1", None, known=known, reason=RefetchReason.ORDER)
    cache.clock.set_by_seconds = set_by_seconds
    await cache.writer.note_in_sync()
    offset = cache.catalogue.position.offset if cache.catalogue.position else 0
    began = Event(offset, Kind.CREATED, "P-1", 1, row.body, "f")
    await cache.writer.apply_events([began], Position("g-1", offset + 1, "f"))

    assert None is cache.row("P-1")


class SetBack(Clock):
    """The clock of a process that started while it was an hour behind."""

    def steady(self) -> float:
        return super().steady() - 3600


@in_virtual_time
async def test_overrides_expire_though_the_clock_was_set_back_before_a_start() -> None:
    """[W7] An override that is left a minute after the start is refetched then, not in an hour."""
    ahead = read_row(b'{"productId":"P-1","available":9,"version":7}')
    cache = await Cache().filled()
    known = cache.writer.known_state("P-1")
    await cache.writer.apply_refetch("P-1", ahead, known=known, reason=RefetchReason.ORDER)
    left = Cache(cache.disk.after_kill(), clock=SetBack(), central=cache.central)
    await left.writer.open()
    await asyncio.sleep(OVERRIDE_SECONDS)
    await left.writer.note_in_sync()

    assert ["P-1"] == left.writer.stale_overrides()
