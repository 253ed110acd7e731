"""A small user of `CacheFiles`, which judges what a start loads.

It keeps the order that `CacheFiles` asks for (durable, then applied, then acknowledged), and
remembers every state that it ever passed to the files.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from copy import deepcopy
from typing import Any

import orjson

from store_cache.catalogue.catalogue import Catalogue
from store_cache.model.change import Change, Override, PendingRefetch, RefetchReason, Tombstone
from store_cache.model.position import Position
from store_cache.storage.directory import Directory
from store_cache.storage.files import CacheFiles, Loaded
from store_cache.storage.journal import JournalRecord

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
    """All that a catalogue holds, for comparison."""
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


def records_of(loaded: Loaded) -> list[dict[str, Any]]:
    """The entries of the key table, in order."""
    return [orjson.loads(line) for part in loaded.writes for line in part.split(b"\n")]


def keys_of(loaded: Loaded) -> list[str]:
    return [record["key"] for record in records_of(loaded)]


async def load(directory: Directory) -> Loaded:
    """What a start finds."""
    return await CacheFiles(directory, store_id="s1", now=lambda: NOW).load()


class SmallStore:
    def __init__(self, directory: Directory) -> None:
        self.files = CacheFiles(directory, store_id="s1", now=lambda: NOW)
        self.held: Catalogue | None = None
        self.keys: dict[str, bytes] = {}
        self.acknowledged: State | None = None
        self.acknowledged_keys: set[str] = set()
        self.states: list[State | None] = [None]
        self.order = asyncio.Lock()

    @property
    def catalogue(self) -> Catalogue:
        assert self.held is not None
        return self.held

    async def start(self) -> Loaded:
        loaded = await self.files.load()
        self.held = loaded.catalogue
        self.keys = {record["key"]: orjson.dumps(record) for record in records_of(loaded)}
        await self.begin(self.held)
        return loaded

    async def begin(self, catalogue: Catalogue | None) -> None:
        self.states.append(state(catalogue))
        await self.files.begin(catalogue, self.encoded())
        self.held = catalogue
        self.acknowledged = state(catalogue)
        self.acknowledged_keys = set(self.keys)

    async def install(self, rows: dict[str, int], *, offset: int) -> None:
        sequence = 0 if self.held is None else self.held.sequence
        await self.begin(installed(rows, sequence=sequence + 1, offset=offset))

    async def record(self, key: str) -> None:
        """Enter a key into the table, then append it."""
        self.keys[key] = orjson.dumps({"key": key, "of": "record"})
        await self.files.append(JournalRecord(key_entry=self.keys[key]))
        self.acknowledged_keys.add(key)

    async def finish(self, key: str) -> None:
        """Append a key, and enter it into the table only then."""
        record = orjson.dumps({"key": key, "of": "finish"})
        await self.files.append(JournalRecord(key_entry=record))
        self.keys[key] = record
        self.acknowledged_keys.add(key)

    async def sell(self, product_id: str, available: int | None, *, key: str = "") -> None:
        """Set the stock of a product, or delete it."""
        async with self.order:
            change = self._sale(product_id, available)
            future = deepcopy(self.catalogue)
            future.apply(change)
            self.states.append(state(future))
            write = orjson.dumps({"key": key, "of": product_id}) if key else None
            if write is not None:
                self.keys[key] = write
            await self.files.append(JournalRecord(change=change, key_entry=write))
            self.catalogue.apply(change)
            self.acknowledged = state(self.catalogue)
            self.acknowledged_keys |= {key} - {""}

    async def compact(self) -> None:
        await self.files.compact(self.encoded)

    def encoded(self) -> Iterator[bytes]:
        """The key table as it is when the first entry is asked for."""
        yield from list(self.keys.values())

    def check(self, loaded: Loaded) -> None:
        """What was loaded is a state that was passed on, no older than the acknowledged one."""
        found = state(loaded.catalogue)
        assert found in self.states
        assert self.states.index(found) >= self.states.index(self.acknowledged)
        assert self.acknowledged_keys <= set(keys_of(loaded)) <= set(self.keys)

    def _sale(self, product_id: str, available: int | None) -> Change:
        assert self.catalogue.position is not None
        sequence = self.catalogue.sequence + 1
        offset = self.catalogue.position.offset + 1
        gone = available is None
        return Change(
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


async def run_script(store: SmallStore) -> None:
    """Begin, append, compact while changes go on, begin again: all that files go through."""
    await store.start()
    await store.record("k0")
    await store.install({"A": 10, "a": 20, "B/1": 30, "Ü": 40, 'q"\\': 50}, offset=7)
    await store.sell("A", 9, key="k1")
    await store.sell("B/1", None)
    await all_of(store.sell("Z", 1, key="k2"), store.record("k3"), store.record("k4"))
    await all_of(
        store.compact(), store.sell("Ü", 39, key="k5"), store.record("k6"), selling(store, "A")
    )
    await store.sell("a", 19)
    await store.compact()
    await store.install({"A": 8, "N": 1}, offset=90)
    await store.sell("N", 0, key="k7")


async def selling(store: SmallStore, product_id: str) -> None:
    for available in range(8, 3, -1):
        await store.sell(product_id, available)


async def all_of(*calls: Coroutine[Any, Any, None]) -> None:
    """Run them concurrently to their ends, then raise the first error, if there was one."""
    for result in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
