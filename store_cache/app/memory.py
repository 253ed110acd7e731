"""Keeps Python's garbage collector from walking over the catalogue.

Knows: that a catalogue's order of ids is lists of a million texts, over which each full collection
would walk, 45 ms at a time, to find nothing: they are freed by reference counts.
Refuses to know: what else the catalogue is.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


@asynccontextmanager
async def left_to_reference_counts(replaced: asyncio.Event) -> AsyncIterator[None]:
    """Have the collector leave alone what is there now, and what is there each time `replaced` is
    set: another catalogue. For a process that holds one store, since what is garbage of another
    one by then would never be collected."""
    replaced.clear()
    gc.freeze()
    settling = asyncio.create_task(_settle_each(replaced), name="memory")
    try:
        yield
    finally:
        settling.cancel()


async def _settle_each(replaced: asyncio.Event) -> None:
    while True:
        await replaced.wait()
        replaced.clear()
        gc.collect()  # garbage that is frozen is kept for ever
        gc.freeze()
