"""A store in small around an archive: what it was told, what it acknowledged, what it holds.

Knows: the order that the archive asks of its user (durable, then made, then acknowledged), and
every state that was ever offered to it, to judge what is loaded again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from typing import Any

import orjson

from store_cache.catalogue.catalogue import Catalogue
from store_cache.model.change import Change, Override, PendingRefetch, RefetchReason, Tombstone
from store_cache.model.position import Position
from store_cache.storage.directory import Directory
from store_cache.storage.files import CacheFiles, Loaded

State = tuple[Any, ...]
NOW = 1_700_000_000.0


def row(product_id: str, available: int, version: int = 1) -> bytes:
    fields = {"productId": product_id, "name": "Cup", "available": available, "version": version}
    return orjson.dumps(fields)


def installed(rows: dict[str, int], *, sequence: int = 1, offset: int = 1) -> Catalogue:
    """A catalogue as a full sync leaves it."""
    catalogue = Catalogue()
    catalogue.fill((i, row(i, available)) for i, available in rows.items())
    catalogue.index()
    catalogue.position = Position("g1", offset, "f")
    catalogue.sequence = sequence
    return catalogue


def state(catalogue: Catalogue | None) -> State | None:
    """All that a catalogue holds, to be compared."""
    if catalogue is None:
        return None
    return (
        catalogue.sequence,
        catalogue.position,
        catalogue.in_sync_at,
        dict(catalogue.rows),
        list(catalogue.ids()),
        dict(catalogue.tombstones),
        dict(catalogue.overrides),
        dict(catalogue.pending_refetches),
        dict(catalogue.incarnations),
        catalogue.bytes_held,
    )


class SmallStore:
    def __init__(self, folder: Directory) -> None:
        self.files = CacheFiles(folder, now=lambda: NOW)
        self.catalogue: Catalogue | None = None
        self.keys: dict[str, bytes] = {}
        self.acknowledged: State | None = None
        self.acknowledged_keys: set[str] = set()
        self.states: list[State | None] = [None]
        self.order = asyncio.Lock()

    async def start(self) -> Loaded:
        loaded = await self.files.load()
        self.catalogue = loaded.catalogue
        self.keys = {record["key"]: orjson.dumps(record) for record in loaded.writes}
        await self.begin(self.catalogue)
        return loaded

    async def begin(self, catalogue: Catalogue | None) -> None:
        self.states.append(state(catalogue))
        await self.files.begin(catalogue, self.encoded())
        self.catalogue = catalogue
        self.acknowledged = state(catalogue)
        self.acknowledged_keys = set(self.keys)

    async def install(self, rows: dict[str, int], *, offset: int) -> None:
        held = self.catalogue.sequence if self.catalogue is not None else 0
        await self.begin(installed(rows, sequence=held + 1, offset=offset))

    async def finish(self, key: str) -> None:
        """Keep first, and enter into the table only then."""
        record = orjson.dumps({"key": key, "of": "finish"})
        await self.files.append(write=record)
        self.keys[key] = record
        self.acknowledged_keys.add(key)

    async def note(self, key: str) -> None:
        self.keys[key] = orjson.dumps({"key": key, "of": "note"})
        await self.files.append(write=self.keys[key])
        self.acknowledged_keys.add(key)

    async def sell(self, product_id: str, available: int | None, *, key: str = "") -> None:
        async with self.order:
            change = self._planned(product_id, available)
            write = orjson.dumps({"key": key, "of": product_id}) if key else None
            if write is not None:
                self.keys[key] = write
            await self.files.append(change=change, write=write)
            assert self.catalogue is not None
            self.catalogue.apply(change)
            self.acknowledged = state(self.catalogue)
            self.acknowledged_keys |= {key} - {""}

    async def compact(self) -> None:
        assert self.catalogue is not None
        await self.files.compact(self.catalogue, self.encoded)

    def encoded(self) -> Iterator[bytes]:
        """The key table as it is when the first entry is asked for."""
        yield from list(self.keys.values())

    def check(self, loaded: Loaded) -> None:
        """What was loaded is a state that was offered, not older than what was acknowledged."""
        found = state(loaded.catalogue)
        assert found in self.states
        assert self.states.index(found) >= self.states.index(self.acknowledged)
        keys = {record["key"] for record in loaded.writes}
        assert self.acknowledged_keys <= keys <= set(self.keys)

    def _planned(self, product_id: str, available: int | None) -> Change:
        assert self.catalogue is not None
        assert self.catalogue.position is not None
        sequence = self.catalogue.sequence + 1
        offset = self.catalogue.position.offset + 1
        gone = available is None
        change = Change(
            "sold",
            sequence=sequence,
            position=Position("g1", offset, f"f{offset}"),
            rows={product_id: None if available is None else row(product_id, available, sequence)},
            tombstones={product_id: Tombstone(offset, sequence, NOW) if gone else None},
            overrides={product_id: None if gone else Override(sequence, NOW)},
            pending_refetches={
                product_id: PendingRefetch(RefetchReason.ORDER, NOW, NOW) if gone else None
            },
            incarnations={product_id: NOW} if gone else {},
            in_sync_at=NOW + sequence,
        )
        self._foresee(change)
        return change

    def _foresee(self, change: Change) -> None:
        assert self.catalogue is not None
        future = Catalogue()
        future.fill(self.catalogue.rows.items())
        future.index()
        for part in ("tombstones", "overrides", "pending_refetches", "incarnations"):
            getattr(future, part).update(getattr(self.catalogue, part))
        future.position = self.catalogue.position
        future.in_sync_at = self.catalogue.in_sync_at
        future.sequence = self.catalogue.sequence
        future.apply(change)
        self.states.append(state(future))


async def run_script(store: SmallStore) -> None:
    """Begin, appends, a fold while changes go on, begin again: all that files go through."""
    await store.start()
    await store.note("k0")
    await store.install({"A": 10, "a": 20, "B/1": 30, "Ü": 40, 'q"\\': 50}, offset=7)
    await store.sell("A", 9, key="k1")
    await store.sell("B/1", None)
    await all_of(store.sell("Z", 1, key="k2"), store.note("k3"), store.note("k4"))
    await all_of(store.compact(), store.sell("Ü", 39, key="k5"), store.note("k6"), selling(store, "A"))
    await store.sell("a", 19)
    await store.compact()
    await store.install({"A": 8, "N": 1}, offset=90)
    await store.sell("N", 0, key="k7")


async def selling(store: SmallStore, product_id: str) -> None:
    for available in range(8, 3, -1):
        await store.sell(product_id, available)


async def all_of(*calls: Coroutine[Any, Any, None]) -> None:
    """Run them at once and to their ends; then the first error, if there was one."""
    for result in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
