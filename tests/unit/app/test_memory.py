"""The garbage collector does not traverse the catalogue."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator

import pytest

from store_cache.app.memory import frozen_heap


@pytest.fixture(autouse=True)
def _collected_again() -> Iterator[None]:
    """Let the garbage of other tests be collected."""
    yield
    gc.unfreeze()


class Knot:
    """Garbage in a cycle, which only the collector frees."""

    def __init__(self) -> None:
        self.itself = self


async def test_a_catalogue_in_place_is_frozen() -> None:
    """Objects are frozen at the start and whenever another catalogue is in place; garbage is freed
    before."""
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
