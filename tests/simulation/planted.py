"""Defects that are planted in the store to show that the simulation can see them.

Each stands for a kind that an earlier simulation could not see: rows that were ahead of the feed
were exempt from its checks, its writes changed nothing beside the stock, it gave a store as long as
that store waited, had no catalogue of more than one chunk, and hardly ever repeated what was
settled.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from store_cache.catalogue import apply
from store_cache.catalogue.catalogue import PointInTimeView
from store_cache.catalogue.change_set import ChangeSet
from store_cache.model.event import Event
from store_cache.model.product import is_same_state
from store_cache.model.stock import StockAnswer
from store_cache.storage import snapshot
from store_cache.sync import backoff
from store_cache.sync.states import Sleep
from store_cache.writes.idempotency import Attempt, KeyTable
from tests.removals.removal import Patch, Removals
from tests.simulation.loop import PROCESS
from tests.simulation.simulation import FIRST_OF_SECOND_NODE

planted = Removals()


@planted("W6", "")
def stock_of_answers(patch: Patch) -> None:
    """The answer to a write is shown with one piece too many until its event comes."""
    set_stock = apply._set_stock

    def one_more(change_set: ChangeSet, row: bytes, answer: StockAnswer) -> None:
        patch.act()
        set_stock(change_set, row, replace(answer, new_quantity=answer.new_quantity + 1))

    patch.replace(apply, "_set_stock", one_more)


@planted("W7", "")
def attributes_of_events(patch: Patch) -> None:
    """The event of a write whose answer is shown already does not complete the row."""
    update = apply._update

    def ignored(change_set: ChangeSet, event: Event, body: bytes) -> None:
        override, row = change_set.override(event.product_id), change_set.row(event.product_id)
        is_own = override is not None and override.version == event.version
        if is_own and row is not None and is_same_state(body, row):
            patch.act()
            change_set.drop_override(event.product_id)
        else:
            update(change_set, event, body)

    patch.replace(apply, "_update", ignored)


@planted("B1", "", needs="outage")
def endless_waits(patch: Patch) -> None:
    """After five failures in a row the store leaves Central alone for hours."""
    pause_after = backoff.pause_after

    def for_hours(health: Any, *others: Any) -> Sleep:
        if not health.fell_back:
            return pause_after(health, *others)
        patch.act()
        return Sleep(7200.0)

    patch.replace(backoff, "pause_after", for_hours)


@planted("D1", "")
def chunks_of_snapshots(patch: Patch) -> None:
    """A snapshot holds the first chunk of rows alone, and counts no others."""
    summary, sections = snapshot._summary, snapshot._sections

    def counted(view: PointInTimeView) -> dict[str, Any]:
        return summary(view) | {"rows": min(view.count, snapshot.CHUNK_LINES)}

    def first_alone(
        view: PointInTimeView | None, writes: Iterable[bytes]
    ) -> Iterator[tuple[str, list[bytes]]]:
        found: set[str] = set()
        for kind, lines in sections(view, writes):
            if kind == "rows" and kind in found:
                patch.act()
                continue
            found.add(kind)
            yield kind, lines

    patch.replace(snapshot, "_summary", counted)
    patch.replace(snapshot, "_sections", first_alone)


@planted("W1", "", needs="forget_keys kill")
def settled_keys_in_snapshots(patch: Patch) -> None:
    """New files do not hold what became of writes, which the next process does not know then."""
    encoded = KeyTable.encoded

    def open_alone(self: KeyTable) -> Iterator[bytes]:
        for entry in encoded(self):
            if b'"applied":' in entry or b'"refused":' in entry:
                patch.act()
            else:
                yield entry

    patch.replace(KeyTable, "encoded", open_alone)


@planted("W1", "", needs="nodes")
def keys_of_nodes(patch: Patch) -> None:
    """The second node of a shop sends each write under a key of its own."""
    central_key = Attempt.central_key

    def own(self: Attempt, store_id: str) -> str:
        key = central_key(self, store_id)
        if PROCESS.get() < FIRST_OF_SECOND_NODE:
            return key
        patch.act()
        return f"{key}~0"

    patch.replace(Attempt, "central_key", own)
