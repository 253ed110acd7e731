"""`store-cache serve`, which also notes when each change became visible to reads.

    python -m benchmarks.harness.noting_store FILE

The settings are in the environment, as usual. FILE gets two numbers for each change, as doubles in
the machine's byte order: the moment that the changed row carries, and that at which the row became
visible, both by `observers.now_ms`.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import BinaryIO

import orjson
import uvloop

from benchmarks.harness.observers import STAMP, now_ms
from store_cache.api.parts import StoreParts
from store_cache.app.serve import serve_until_signal
from store_cache.app.settings import load_settings
from store_cache.catalogue.catalogue import Catalogue
from store_cache.catalogue.observer import VisibleChange

NOTE = struct.Struct("dd")


class Notes:
    """Follows the visible catalogue, before the other observers do."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    async def follow(self, store: StoreParts) -> None:
        announcer = store.writer.announcer
        announcer.observers = (self, *announcer.observers)

    def changed(self, _catalogue: Catalogue, change: VisibleChange) -> None:
        visible_at = now_ms()
        for row in change.rows.values():
            if row is not None and (changed_at := orjson.loads(row).get(STAMP)) is not None:
                self._file.write(NOTE.pack(changed_at, visible_at))

    def replaced(self, _old: Catalogue | None, _new: Catalogue) -> None:
        """Nothing is noted of a full sync."""

    def reset(self) -> None:
        """There is nothing to begin anew."""


def visible_moments(file: Path) -> dict[float, float]:
    """Return when each change became visible, by the moment that its row carries."""
    return dict(NOTE.iter_unpack(file.read_bytes()))


def main() -> None:
    with Path(sys.argv[1]).open("wb", buffering=0) as file:
        uvloop.run(serve_until_signal(load_settings(), show_start=Notes(file).follow))


if __name__ == "__main__":
    main()
