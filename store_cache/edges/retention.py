"""Which files stay in the folder, once newer ones replace them.

Knows: what is left over, what is kept aside for people, and how much of that (promise 8).
Refuses to know: whether the newer files are safe; whoever calls has seen to that.
"""

from __future__ import annotations

import re

from store_cache.edges.folder import Folder

LIVE = re.compile(r"(snapshot|journal)-(\d+)\.jsonl")
KEPT = re.compile(r".+\.damaged-(\d+)")

KEPT_FILES = 5
KEPT_BYTES = 1024**3


class Retention:
    """Removes and puts aside. What it cannot remove does no harm but takes room: that fails
    nothing, is said in `problem`, and is tried again with the next sweep."""

    def __init__(self, folder: Folder) -> None:
        self.problem: str | None = None
        self.aside: dict[str, str] = {}
        """Damaged files and the names to keep them under."""
        self._folder = folder

    async def sweep_unfinished(self) -> None:
        """Remove what was being written when a process or an attempt ended; it may be large."""
        try:
            for name in await self._folder.names():
                if name.endswith(".new"):
                    await self._folder.remove(name)
        except OSError as problem:
            self._note(problem)

    async def sweep(self, number: int) -> None:
        """Let go of every file that those of `number` replace, and keep the damaged ones aside:
        at most 5 files and 1 GiB, the oldest go first."""
        try:
            for name in await self._folder.names():
                await self._let_go(name, number)
            await self._trim()
        except OSError as problem:
            self._note(problem)
        else:
            self.problem = None

    async def _let_go(self, name: str, number: int) -> None:
        live = LIVE.fullmatch(name)
        if name in self.aside:
            await self._folder.rename(name, self.aside[name])
            del self.aside[name]
        elif name.endswith(".new") or (live and int(live[2]) < number):
            await self._folder.remove(name)

    async def _trim(self) -> None:
        room = KEPT_BYTES
        for place, name in enumerate(kept_aside(await self._folder.names()).values()):
            room -= await self._folder.size(name)
            if place >= KEPT_FILES or room < 0:
                await self._folder.remove(name)

    def _note(self, problem: OSError) -> None:
        self.problem = f"old files could not be removed from DATA_DIR: {problem}"


def kept_aside(names: list[str]) -> dict[int, str]:
    """The files that are kept aside, newest first, by their numbers."""
    kept = {int(match[1]): name for name in names if (match := KEPT.fullmatch(name))}
    return dict(sorted(kept.items(), reverse=True))
