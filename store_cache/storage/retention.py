"""Which files stay in the directory once newer ones replace them (promise 8)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from store_cache.storage.directory import Directory
from store_cache.storage.names import parse_names

QUARANTINED_FILES = 5
QUARANTINED_BYTES = 1024**3
"""How much is kept of damaged files."""


class Retention:
    """Removes replaced files and quarantines damaged ones.

    A file that cannot be removed does no harm but takes room. So nothing here raises OSError:
    `problem` says what failed, and the next sweep tries again.

    `quarantine` maps the names of damaged files to the names under which they are to be kept.
    """

    def __init__(self, directory: Directory) -> None:
        self.problem = ""
        self.quarantine: dict[str, str] = {}
        self._directory = directory

    async def sweep_unfinished(self) -> None:
        """Remove unfinished snapshots, which may be large, of an earlier process or attempt."""
        failed: list[OSError] = []
        with _collecting(failed):
            for name, file in parse_names(await self._directory.names()).items():
                if file.is_unfinished:
                    with _collecting(failed):
                        await self._directory.remove(name)
        if failed:
            self.problem = _describe(failed)

    async def sweep(self, number: int) -> None:
        """Remove what the files of `number` replace, and quarantine damaged files.

        The oldest quarantined files are removed, so that at most 5 files and 1 GiB are kept. Call
        this only when the files of `number` are durable.
        """
        failed: list[OSError] = []
        with _collecting(failed):
            for name, file in parse_names(await self._directory.names()).items():
                with _collecting(failed):
                    if name in self.quarantine:
                        await self._directory.rename(name, self.quarantine[name])
                        del self.quarantine[name]
                    elif file.is_unfinished or (file.is_live and file.number < number):
                        await self._directory.remove(name)
            await self._trim_quarantine(failed)
        self.problem = _describe(failed) if failed else ""

    async def _trim_quarantine(self, failed: list[OSError]) -> None:
        files = parse_names(await self._directory.names()).items()
        quarantined = [(file.quarantine, name) for name, file in files if file.quarantine]
        room = QUARANTINED_BYTES
        for count, (_, name) in enumerate(sorted(quarantined, reverse=True)):
            room -= await self._directory.size(name)
            if count >= QUARANTINED_FILES or room < 0:
                with _collecting(failed):
                    await self._directory.remove(name)


@contextmanager
def _collecting(failed: list[OSError]) -> Iterator[None]:
    """Go on after a failure: one file that cannot be removed must not keep the others."""
    try:
        yield
    except OSError as problem:
        failed.append(problem)


def _describe(failed: list[OSError]) -> str:
    return f"old files could not be removed from DATA_DIR: {failed[0]}"
