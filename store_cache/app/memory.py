"""Keep memory small, and Python's garbage collector from traversing the catalogue.

The sorted order of a catalogue is lists of up to a million ids. Each full collection would traverse
them, 45 ms at a time, and find nothing: they are freed by reference counts.

Loading files leaves free memory between what is kept. The C library keeps it, some 40 bytes for
each remembered key, unless it is told to give it back.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


def freeze_imports() -> None:
    """Exempt what was imported from collection, which loading the files would cause many times."""
    gc.freeze()


@asynccontextmanager
async def frozen_heap(replaced: asyncio.Event) -> AsyncIterator[None]:
    """Exempt all objects from collection: those of now, and of each time that `replaced` is set
    because another catalogue, or more of a search index, is in place.

    Only for a process with a single store: garbage of another one would never be collected.
    """
    replaced.clear()
    _give_back_free_memory()
    gc.freeze()
    freezing = asyncio.create_task(_freeze_each(replaced), name="memory")
    try:
        yield
    finally:
        freezing.cancel()


def _give_back_free_memory() -> None:
    with suppress(OSError, AttributeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)


async def _freeze_each(replaced: asyncio.Event) -> None:
    while True:
        await replaced.wait()
        replaced.clear()
        gc.collect()  # garbage that is frozen is never freed
        gc.freeze()
