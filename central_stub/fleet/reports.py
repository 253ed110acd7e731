"""The last report of each process of each store, in memory, bounded.

Processes of Central that share a database exchange their reports by it (`postgres/reports.py`):
`taken` are those that came here and are still to be told, `merge` takes what others were told.
Nothing is lost if that fails for a while, since each store reports again within a minute. What is
still to be told is bounded, too: it is no more than what is kept.
"""

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet

from central_stub.fleet.report import StoreReport

MOST_PROCESSES = 20_000
FORGET_SECONDS = 7 * 86_400.0
"""A store that was silent for so long is dropped: it was closed, or has another id now."""

MOST_OF_A_STORE = 8
"""Processes of one store id that are kept, so that a store which restarts every minute does not
push others out."""


class NoRoom(Exception):
    """As many processes report as can be kept."""


class Reports:
    """`taken`: the reports that came to this process of Central, and `forgotten`: the stores that
    were dropped here, since whoever shares them emptied both. They stay empty unless somebody
    shares them (`is_shared`)."""

    def __init__(self, most: int = MOST_PROCESSES) -> None:
        self.taken: dict[tuple[str, str], StoreReport] = {}
        self.forgotten: set[str] = set()
        self.is_shared = False
        self._most = most
        self._stores: dict[str, dict[str, StoreReport]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[StoreReport]:
        for processes in self._stores.values():
            yield from processes.values()

    def parts(self, at_once: int) -> Iterator[list[StoreReport]]:
        """Yield the reports of so many stores after the other. What is taken meanwhile may be
        among them or not."""
        ids = list(self._stores)
        for start in range(0, len(ids), at_once):
            held = (self._stores.get(store_id, {}) for store_id in ids[start : start + at_once])
            yield [kept for processes in held for kept in processes.values()]

    @property
    def stores(self) -> int:
        """How many store ids there are."""
        return len(self._stores)

    def take(self, kept: StoreReport) -> None:
        """Keep a report that came here. Raises NoRoom."""
        self._put(kept)
        if self.is_shared:
            self.taken[kept.key] = kept

    def drop_before(self, store_id: str, instant: float) -> None:
        """Drop a store that was forgotten elsewhere, unless it has reported since `instant`."""
        processes = self._stores.get(store_id)
        if processes and all(held.received_at <= instant for held in processes.values()):
            self._count -= len(self._stores.pop(store_id))

    def merge(self, others: Iterable[StoreReport]) -> None:
        """Keep reports that came to other processes of Central, unless newer ones are here.
        Raises NoRoom."""
        for kept in others:
            held = self._stores.get(kept.store_id, {}).get(kept.report.process)
            if held is None or held.received_at < kept.received_at:
                self._put(kept)

    def put_back(
        self, taken: Mapping[tuple[str, str], StoreReport], forgotten: AbstractSet[str]
    ) -> None:
        """Have told later what could not be told, unless it is no longer kept or told anew."""
        for (store_id, process), kept in taken.items():
            if process in self._stores.get(store_id, {}):
                self.taken.setdefault((store_id, process), kept)
        self.forgotten |= forgotten

    def forget(self, store_id: str) -> int:
        """Drop what is kept of a store; return how many processes that were."""
        dropped = self._stores.pop(store_id, {})
        self._count -= len(dropped)
        self.taken = {key: kept for key, kept in self.taken.items() if key[0] != store_id}
        if dropped and self.is_shared:
            self.forgotten.add(store_id)
        return len(dropped)

    def _put(self, kept: StoreReport) -> None:
        # A process that was last heard of before this one started has been replaced by it. If it is
        # the second node of the shop, its next report brings it back.
        store_id, held = kept.store_id, self._stores.get(kept.store_id, {})
        left = {
            name: each
            for name, each in held.items()
            if name == kept.report.process or each.received_at >= kept.started_at
        }
        left[kept.report.process] = kept
        while len(left) > MOST_OF_A_STORE:
            del left[min(left, key=lambda name: left[name].received_at)]
        more = len(left) - len(held)
        if more > 0 and self._count + more > self._most:
            self._make_room(kept)
        self._count += more
        self._stores[store_id] = left
        for name in held.keys() - left.keys():
            self.taken.pop((store_id, name), None)

    def _make_room(self, kept: StoreReport) -> None:
        """Drop the stores that were silent for long, but the one that reports. Raises NoRoom if
        there are none."""
        silent = [
            store_id
            for store_id, processes in self._stores.items()
            if store_id != kept.store_id
            and all(
                kept.received_at - held.received_at > FORGET_SECONDS for held in processes.values()
            )
        ]
        if not silent:
            raise NoRoom(f"the reports of {self._most} processes are kept, and no more")
        for store_id in silent:
            self.forget(store_id)
