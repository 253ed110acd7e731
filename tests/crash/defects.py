"""Safeguards taken out of the product, one at a time: kills that do not notice prove nothing.

Knows: how the product would look without each. Refuses to know: how that is noticed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from store_cache.app.keeper import Keeper
from store_cache.core.catalogue import Catalogue
from store_cache.core.change import Change
from store_cache.edges.archive import Archive
from store_cache.edges.journal import Journal


def show_first() -> None:
    """A change is visible before it is on disk (D2)."""

    async def make(
        self: Keeper, catalogue: Catalogue, change: Change, write: bytes | None = None
    ) -> None:
        numbered = None if change.is_empty else change.numbered(catalogue.sequence + 1)
        if numbered is not None:
            catalogue.make(numbered)
        await self._append(numbered, write)

    setattr(Keeper, "_make", make)  # noqa: B010 - a method, as mypy rightly says


def note_nothing() -> None:
    """Attempts, and answers that change no stock, are in memory alone (W1)."""

    async def note(_: Keeper, __: bytes) -> None:
        """Nothing reaches the disk."""

    setattr(Keeper, "note", note)  # noqa: B010


def sweep_first() -> None:
    """Older files go before the new ones are there (D3)."""
    write_pair = Archive._write_pair

    async def sweep_and_write(
        self: Archive, number: int, catalogue: Catalogue | None, writes: Iterable[bytes]
    ) -> tuple[Journal, int]:
        await self._retention.sweep(number)
        return await write_pair(self, number, catalogue, writes)

    setattr(Archive, "_write_pair", sweep_and_write)  # noqa: B010


DEFECTS: dict[str, Callable[[], None]] = {
    "show-first": show_first,
    "note-nothing": note_nothing,
    "sweep-first": sweep_first,
}
