"""Which files stay in the folder, once newer ones replace them.

Knows: what is left over, what is kept aside for people, and how much of that (promise 8).
Refuses to know: whether the newer files are safe; whoever calls has seen to that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from store_cache.storage.directory import Directory

LIVE = re.compile(r"(snapshot|journal)-(\d+)\.jsonl")
KEPT = re.compile(r".+\.damaged-(\d+)")

KEPT_FILES = 5
KEPT_BYTES = 1024**3


class Retention:
    """Removes and puts aside. What it cannot remove does no harm but takes room: that fails
    nothing, is said in `problem`, and is tried again with the next sweep."""

    def __init__(self, folder: Directory) -> None:
        self.problem: str | None = None
        self.aside: dict[str, str] = {}
        """Damaged files and the names to keep them under."""
        self._folder = folder

    async def sweep_unfinished(self) -> None:
        """Remove what was being written when a process or an attempt ended; it may be large."""
        failed: list[OSError] = []
        with _noting(failed):
            for name in await self._folder.names():
                if name.endswith(".new"):
                    with _noting(failed):
                        await self._folder.remove(name)
        if failed:
            self.problem = _said(failed)

    async def sweep(self, number: int) -> None:
        """Let go of every file that those of `number` replace, and keep the damaged ones aside:
        at most 5 files and 1 GiB, the oldest go first."""
        failed: list[OSError] = []
        with _noting(failed):
            for name in await self._folder.names():
                with _noting(failed):
                    await self._let_go(name, number)
            await self._trim(failed)
        self.problem = _said(failed) if failed else None

    async def _let_go(self, name: str, number: int) -> None:
        live = LIVE.fullmatch(name)
        if name in self.aside:
            await self._folder.rename(name, self.aside[name])
            del self.aside[name]
        elif name.endswith(".new") or (live and int(live[2]) < number):
            await self._folder.remove(name)

    async def _trim(self, failed: list[OSError]) -> None:
        room = KEPT_BYTES
        for place, name in enumerate(kept_aside(await self._folder.names()).values()):
            room -= await self._folder.size(name)
            if place >= KEPT_FILES or room < 0:
                with _noting(failed):
                    await self._folder.remove(name)


@contextmanager
def _noting(failed: list[OSError]) -> Iterator[None]:
    """One file that cannot be removed keeps no other from going, or the disk would fill up."""
    try:
        yield
    except OSError as problem:
        failed.append(problem)


def _said(failed: list[OSError]) -> str:
    return f"old files could not be removed from DATA_DIR: {failed[0]}"


def kept_aside(names: list[str]) -> dict[int, str]:
    """The files that are kept aside, newest first, by their numbers."""
    kept = {int(match[1]): name for name in names if (match := KEPT.fullmatch(name))}
    return dict(sorted(kept.items(), reverse=True))
