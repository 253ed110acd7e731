"""The end of the feed, in memory: what polls are answered from.

Rules
- Who asks beyond the tail first reads the row of the feed. So a process that lags never looks like
  a feed that went backwards, and an empty answer is true when it is given.
- What was read over a new connection is answered only when the tail has been compared after it.
- An answer goes out only when the tail holds every event that it can show. So whatever a client was
  told, this process can compare.
- A head below the tail's, or another event at the tail's end, means that the database lost what
  this process has answered: a restored backup, or a replica that lacked the end. A new generation
  begins, unless the epoch says that events were taken back on purpose.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

import orjson
import psycopg
from psycopg.rows import TupleRow

from central_stub.backend import Unavailable
from central_stub.feed import Event, Feed
from central_stub.postgres.database import CHANNEL, Database, Seen
from central_stub.postgres.errors import words

TAIL_EVENTS = 5000
"""Held in memory, for each tenant: some 5 MB. Older ones are read from the database."""

READ = f"""
SELECT f.generation, f.epoch, f.head, f.floor, f.revision, e.number, e.body
FROM central.feed f LEFT JOIN LATERAL (
    SELECT number, body FROM central.events
    WHERE tenant = f.tenant AND number >= greatest(%(known)s::bigint, f.head - {TAIL_EVENTS} + 1)
    ORDER BY number LIMIT {TAIL_EVENTS}
) e ON true
WHERE f.tenant = %(tenant)s
"""

BEGIN_GENERATION = """
WITH renamed AS (
    UPDATE central.feed SET generation = %(new)s, epoch = epoch + 1
    WHERE tenant = %(tenant)s AND generation = %(old)s AND epoch = %(epoch)s RETURNING tenant
)
SELECT pg_notify(%(channel)s, tenant::text) FROM renamed
"""

logger = logging.getLogger("central_stub.postgres")


FORGOTTEN = "the database no longer knows this tenant"


class Where(NamedTuple):
    """Where a feed is: its name, its last offset, and the first that is still held."""

    generation: str
    epoch: int
    head: int
    floor: int


class Tail:
    """The tail of one tenant's feed. `new_name` returns a name that no generation has had;
    `on_revision` is called when switches or faults changed, and
    `on_change` when a poll may have an answer."""

    def __init__(
        self,
        database: Database,
        tenant: int,
        *,
        new_name: Callable[[], str],
        on_revision: Callable[[], Awaitable[None]],
        on_change: Callable[[], None],
    ) -> None:
        self.generation = ""
        self.floor = 1
        self.feed = Feed()
        self.changes = 0
        self._epoch = -1
        self._revision = -1
        self._compared = -1  # how many connections there had been
        self._database = database
        self._tenant = tenant
        self._new_name = new_name
        self._on_revision = on_revision
        self._on_change = on_change
        self._reading: asyncio.Task[None] | None = None
        self._next_reading: asyncio.Task[None] | None = None

    @property
    def head(self) -> int:
        return self.feed.next - 1

    def is_as(self, seen: Seen) -> bool:
        """Return whether the database holds nothing that the tail does not know."""
        held = (self.generation, self._epoch, self.head, self.floor, self._revision)
        return held == tuple(seen)

    def reaches(self, epoch: int | None, head: int | None) -> bool:
        """Return whether a notification tells nothing new."""
        return epoch == self._epoch and head is not None and head <= self.head

    async def refresh(self) -> None:
        """Return when the tail holds what was committed before this call. Unavailable.

        All who call while a reading is under way share the next one.
        """
        if self._next_reading is None:
            self._next_reading = asyncio.create_task(self._read_after(self._reading))
        await asyncio.shield(self._next_reading)

    async def read(self, read: Callable[[], Awaitable[list[TupleRow]]]) -> list[TupleRow]:
        """Return what `read` does, once the tail holds the events that it can show. Each of its
        rows begins with the generation and the head. Unavailable."""
        while True:
            known, name = self.head, self.generation
            rows = await read()
            generation, head = rows[0][:2]
            went_backwards = generation == name and head < known
            if self._is_compared and not went_backwards:
                if self.generation != generation or self.head < head:
                    await self.refresh()
                return rows
            await self.refresh()

    async def append(self, feed: Where, events: Sequence[Event]) -> None:
        """Return when the tail holds what this process has committed: `events` are the last ones of
        the feed, or there are none. Unavailable."""
        is_same = feed[:2] == (self.generation, self._epoch) and self._is_compared
        if is_same and not events and feed.head <= self.head:
            return
        first = feed.head - len(events) + 1
        if not is_same or first != self.feed.next:
            await self.refresh()
            return
        for offset, event in enumerate(events, start=first):
            self.feed.append(offset, event)
        self.floor = max(self.floor, feed.floor)
        self._trim()
        self._changed()

    @property
    def _is_compared(self) -> bool:
        """Whether what the tail holds was compared since the last new connection."""
        return self._compared == self._database.connections

    # Reading

    async def _read_after(self, reading: asyncio.Task[None] | None) -> None:
        if reading is not None:
            await asyncio.wait((reading,))
        self._reading, self._next_reading = self._next_reading, None
        while not await self._read():
            pass

    async def _read(self) -> bool:
        """Read once; return whether the tail is then what was committed."""
        known, connections = self.head, self._database.connections
        rows = await self._database.read(READ, {"tenant": self._tenant, "known": known})
        if not rows:
            raise Unavailable(FORGOTTEN)
        seen, events = Seen(*rows[0][:5]), _events(rows)
        if (self.generation, self._epoch) != (seen.generation, seen.epoch):
            self._begin(seen)
            return False
        if self._went_backwards(seen, known, events.get(known)):
            await self._begin_generation(seen)
            return False
        if seen.revision != self._revision:
            await self._on_revision()
            self._revision = seen.revision
            self._changed()
        self._take(seen, events)
        self._compared = connections
        return self._is_compared

    def _begin(self, seen: Seen) -> None:
        """Forget what another generation or epoch held."""
        self.generation, self._epoch = seen.generation, seen.epoch
        self.feed.refill(1, 1, [])
        self._changed()

    def _went_backwards(self, seen: Seen, known: int, event: Event | None) -> bool:
        if seen.head < known:
            return True
        held = self.feed.event(known)
        return held is not None and known >= seen.floor and event != held

    def _take(self, seen: Seen, events: dict[int, Event]) -> None:
        """Add what is new; own events may have been appended meanwhile."""
        changed = self.floor != seen.floor or seen.head > self.head
        first = max(seen.head - TAIL_EVENTS + 1, seen.floor)
        if first > self.feed.next or self.feed.next == 1:
            held = [each for offset, each in events.items() if offset >= first]
            self.feed.refill(first, max(seen.head + 1, first), held)
        else:
            for offset in range(self.feed.next, seen.head + 1):
                if offset in events:
                    self.feed.append(offset, events[offset])
            self.feed.next = max(self.feed.next, seen.head + 1)
        self.floor = seen.floor
        self._trim()
        if changed:
            self._changed()

    def _trim(self) -> None:
        self.feed.trim(TAIL_EVENTS)

    async def _begin_generation(self, seen: Seen) -> None:
        new = self._new_name()
        logger.warning(
            "the database lost events that were answered, up to offset %d: generation %s begins",
            self.head,
            new,
        )
        await begin_generation(self._database, self._tenant, seen, new)

    def _changed(self) -> None:
        self.changes += 1
        self._on_change()


async def begin_generation(database: Database, tenant: int, seen: Seen, new: str) -> None:
    """Name the feed anew, unless another process has done that already. Unavailable."""
    values: dict[str, Any] = {"tenant": tenant, "channel": CHANNEL, "new": new}
    values |= {"old": seen.generation, "epoch": seen.epoch}
    try:
        await database.read(BEGIN_GENERATION, values)
    except psycopg.Error as error:
        raise Unavailable(words(error)) from error


def _events(rows: Sequence[TupleRow]) -> dict[int, Event]:
    return {
        number: {"offset": number, **orjson.loads(body)}
        for *_, number, body in rows
        if number is not None
    }
