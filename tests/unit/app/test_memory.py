"""What the garbage collector has to look at."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator

import pytest

from store_cache.app.memory import frozen_heap


@pytest.fixture(autouse=True)
def _collected_again() -> Iterator[None]:
    """Other tests' garbage is not to be kept for ever."""
    yield
    gc.unfreeze()


class Knot:
    """Garbage that only the collector finds."""

    def __init__(self) -> None:
        self.itself = self


async def test_a_catalogue_in_place_is_no_business_of_the_collector() -> None:
    """What is there at the start, and each time that another catalogue is in place, is looked at
    no more; what is garbage by then is not kept."""
    replaced = asyncio.Event()
    async with frozen_heap(replaced):
        at_start = gc.get_freeze_count()
        catalogue = [[str(number)] for number in range(1_000)]
        Knot()
        replaced.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        frozen = gc.get_freeze_count() - at_start
        gc.unfreeze()
        knots = sum(isinstance(each, Knot) for each in gc.get_objects())

    assert at_start > 0
    assert frozen >= len(catalogue)
    assert (knots, replaced.is_set()) == (0, False)
