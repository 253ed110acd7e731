"""The ledger of this process, in memory or in a folder, as a backend.

No method waits, except `start`, `synced`, `prepare_digest` and `close`: each is done when it
returns to the event loop, so that requests never see each other half done.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from central_stub.backend import (
    Answers,
    Digest,
    FeedPage,
    Moment,
    Page,
    nothing_changed,
)
from central_stub.catalogue import Row
from central_stub.faults import Fault, Faults, SetFault
from central_stub.ledger import Change, Ledger, Part
from central_stub.rules import Operation
from central_stub.storage import MemoryStorage, Storage, StorageError
from central_stub.switches import Switches
from central_stub.wire import Route

HASH_SLICE = 500
"""Rows hashed at a time for a digest: about 10 ms during which no request is answered."""

logger = logging.getLogger("central_stub")


class LocalBackend:
    """One ledger, its faults, and the storage that makes its changes durable."""

    def __init__(
        self,
        ledger: Ledger,
        faults: Faults,
        storage: Storage | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.changed: Callable[[], None] = nothing_changed
        self.ledger = ledger
        self.storage = storage or MemoryStorage()
        self._faults = faults
        self._clock = clock
        self._announced = ledger.revision
        self._timer: asyncio.TimerHandle | None = None
        self._settling: asyncio.Task[None] | None = None
        self._settles = True

    @property
    def switches(self) -> Switches:
        return self.ledger.switches

    @property
    def generation(self) -> str:
        return self.ledger.generation

    @property
    def head(self) -> int:
        return self.ledger.head

    @property
    def revision(self) -> int:
        return self.ledger.revision

    # Its life

    async def start(self) -> None:
        """Nothing to do: it was opened before."""

    async def prepare_digest(self) -> None:
        """Hash the rows of a digest in slices, so that other requests are answered in between."""
        ids = self.ledger.unhashed()
        for start in range(0, len(ids), HASH_SLICE):
            self.ledger.hash_rows(ids[start : start + HASH_SLICE])
            await asyncio.sleep(0)

    async def synced(self) -> None:
        """Wait until all changes are on disk, and wake held polls if there were any."""
        await self.storage.synced()
        if self._announced != self.ledger.revision:
            self._announce()

    def settle_no_more(self) -> None:
        self._settles = False
        if self._timer is not None:
            self._timer.cancel()

    async def close(self) -> None:
        await self.storage.close()

    def abandon(self) -> None:
        self.storage.abandon()

    def _announce(self) -> None:
        """Wake held polls, and set the timer for the next late event."""
        self._announced = self.ledger.revision
        self.changed()
        if self._timer is not None:
            self._timer.cancel()
        due_at = self.ledger.due_at
        if due_at is not None and self._settles:
            delay = max(0.0, due_at - self._clock())
            self._timer = asyncio.get_running_loop().call_later(delay, self._start_settling)

    def _start_settling(self) -> None:
        self._settling = asyncio.create_task(self._settle())

    async def _settle(self) -> None:
        self.ledger.settle(self._clock())
        try:
            await self.storage.synced()
        except StorageError:
            logger.exception("late events are not published: the storage failed")
            return
        self._announce()

    # Reading

    def _moment(self) -> Moment:
        return Moment(self.ledger.generation, self.ledger.head, len(self.ledger))

    async def moment(self) -> Moment:
        return self._moment()

    async def product(self, product_id: str) -> tuple[Row | None, Moment]:
        return self.ledger.read(product_id), self._moment()

    async def page(self, offset: int, limit: int) -> Page:
        rows = self.ledger.page(offset, limit)
        return Page(rows, offset + len(rows) < len(self.ledger), self._moment())

    async def page_after(self, product_id: str | None, limit: int) -> Page:
        rows = self.ledger.page_after(product_id, limit)
        more = bool(rows) and bool(self.ledger.page_after(rows[-1]["productId"], 1))
        return Page(rows, more, self._moment())

    async def everything(self) -> Page:
        return Page(self.ledger.everything(), False, self._moment())

    async def bucket(self, bucket: int, buckets: int) -> Page:
        return Page(self.ledger.bucket(bucket, buckets), False, self._moment())

    async def digest(self, buckets: int) -> Digest:
        rows, sums = self.ledger.digest(buckets)
        return Digest(rows, sums, self._moment())

    async def events(self, offset: int, limit: int, now: float) -> FeedPage:
        page = self.ledger.events(offset, limit, now)
        return FeedPage(page, self.ledger.generation, self.ledger.head)

    def news(self, offset: int, limit: int, now: float, generation: str) -> FeedPage | None:
        page = self.ledger.events(offset, limit, now)
        if not page.events and generation == self.ledger.generation:
            return None
        return FeedPage(page, self.ledger.generation, self.ledger.head)

    # Writing

    async def write(self, operations: Sequence[Operation], now: float) -> Answers:
        answers = [self.ledger.write(each, now) for each in operations]
        return Answers(answers, self.ledger.generation)

    # Administration

    async def faults(self) -> list[SetFault]:
        return self._faults.everything()

    async def add_fault(self, fault: Fault) -> SetFault:
        return self._faults.add(fault)

    async def clear_faults(self, number: int | None = None) -> int:
        return self._faults.clear(number)

    async def strike(self, route: Route) -> list[Fault]:
        return self._faults.strike(route)

    async def switch(self, switches: Switches) -> None:
        self.ledger.switch(switches)

    async def forget_log(self) -> None:
        self.ledger.forget_log()

    async def forget_keys(self) -> None:
        self.ledger.forget_keys()

    async def begin_generation(self, name: str) -> None:
        self.ledger.begin_generation(name)

    async def lose_next(self, count: int) -> None:
        self.ledger.lose_next(count)

    async def lie(self, product_id: str, attributes: Row | None) -> None:
        self.ledger.lie(product_id, attributes)

    async def crash(self, loses: Part, count: int) -> None:
        self.ledger.crash(loses, count)

    async def backup(self) -> dict[str, Any]:
        return self.ledger.backup()

    async def restore(self, backup: Change, generation: str) -> None:
        self.ledger.restore(backup, generation)

    async def wipe(self, generation: str) -> None:
        self.ledger.wipe(generation)
