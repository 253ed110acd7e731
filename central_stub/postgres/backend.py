"""One tenant's ledger in PostgreSQL, as the API asks it.

Each read is one statement, so its head and its rows are of one snapshot. What the feed is asked
comes from the tail, and from the database if it is older than that.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import orjson
import psycopg
from psycopg.rows import TupleRow

from central_stub.backend import (
    Answers,
    Digest,
    FeedPage,
    Moment,
    NotInMemory,
    NotOffered,
    Page,
    Unavailable,
    nothing_changed,
)
from central_stub.catalogue import Row
from central_stub.faults import Fault, SetFault, is_drawn
from central_stub.feed import Event, EventPage
from central_stub.keys import Answer
from central_stub.ledger import Change, Part, PositionGone
from central_stub.postgres.database import CHANNEL, Connection, Database, Seen
from central_stub.postgres.groups import Groups
from central_stub.postgres.stored import read_faults, read_switches
from central_stub.postgres.sums import digits_of, place_of, total
from central_stub.postgres.tail import FORGOTTEN, Tail
from central_stub.rules import Operation, lied
from central_stub.switches import Feature, Switches
from central_stub.wire import Route

CLEANED_ROWS = 1000
"""Old events or keys deleted in one statement."""

MOST_CLEANINGS = 20
"""Statements each second: enough for 20,000 writes a second."""

MOMENT = "SELECT f.generation, f.head, f.products"
OF_TENANT = "WHERE f.tenant = %(tenant)s"
READ_MOMENT = f"{MOMENT} FROM central.feed f {OF_TENANT}"
READ_PRODUCT = f"""
{MOMENT}, p.body FROM central.feed f
LEFT JOIN central.products p ON p.tenant = f.tenant AND p.id = %(id)s {OF_TENANT}
"""
READ_PAGE = f"""
{MOMENT}, p.body FROM central.feed f LEFT JOIN LATERAL (
    SELECT id, body FROM central.products WHERE tenant = f.tenant
    ORDER BY id LIMIT %(limit)s OFFSET %(offset)s
) p ON true {OF_TENANT} ORDER BY p.id
"""
READ_PAGE_AFTER = f"""
{MOMENT}, p.body FROM central.feed f LEFT JOIN LATERAL (
    SELECT id, body FROM central.products WHERE tenant = f.tenant AND id > %(id)s
    ORDER BY id LIMIT %(limit)s
) p ON true {OF_TENANT} ORDER BY p.id
"""
READ_BUCKET = f"""
{MOMENT}, p.body FROM central.feed f LEFT JOIN LATERAL (
    SELECT id, body FROM central.products
    WHERE tenant = f.tenant AND central.bucket_of(place, %(buckets)s) = %(bucket)s
) p ON true {OF_TENANT} ORDER BY p.id
"""
READ_DIGEST = f"""
{MOMENT}, d.* FROM central.feed f LEFT JOIN LATERAL (
    SELECT central.bucket_of(place, %(buckets)s), count(*),
        sum(hash_0), sum(hash_1), sum(hash_2), sum(hash_3)
    FROM central.products WHERE tenant = f.tenant GROUP BY 1
) d ON true {OF_TENANT}
"""
READ_EVENTS = f"""
SELECT f.generation, f.head, f.floor, e.number, e.body FROM central.feed f LEFT JOIN LATERAL (
    SELECT number, body FROM central.events
    WHERE tenant = f.tenant AND number >= greatest(%(offset)s, f.floor)
    ORDER BY number LIMIT %(limit)s
) e ON true {OF_TENANT} ORDER BY e.number
"""
FIND = "SELECT tenant, switches FROM central.feed WHERE name = %(name)s"
OPEN = """
INSERT INTO central.feed (name, generation, switches)
VALUES (%(name)s, %(generation)s, %(switches)s)
ON CONFLICT (name) DO NOTHING RETURNING tenant, switches
"""
SWITCH = f"""
UPDATE central.feed f SET switches = %(switches)s, revision = revision + 1,
    floor = greatest(floor, head - %(limit)s + 1) {OF_TENANT}
"""
STRIKE = """
UPDATE central.faults SET struck = struck + 1
WHERE tenant = %(tenant)s AND number = ANY(%(numbers)s) AND (times IS NULL OR struck < times)
RETURNING number, struck, times
"""
CLEAN_EVENTS = f"""
DELETE FROM central.events WHERE tenant = %(tenant)s AND number IN (
    SELECT e.number FROM central.feed f JOIN central.events e
        ON e.tenant = f.tenant AND e.number < f.floor
    {OF_TENANT} ORDER BY e.number LIMIT {CLEANED_ROWS} FOR UPDATE OF e SKIP LOCKED)
"""
"""By the floor in the database: that of this process may be of a feed that was replaced since."""

CLEAN_KEYS = f"""
DELETE FROM central.keys WHERE tenant = %(tenant)s AND key IN (
    SELECT key FROM central.keys WHERE tenant = %(tenant)s AND answered_at <= %(before)s
    LIMIT {CLEANED_ROWS} FOR UPDATE SKIP LOCKED)
"""
KEYS_EVERY_SECONDS = 10.0

logger = logging.getLogger("central_stub.postgres")


class PostgresBackend:
    """The ledger of the tenant of this name. `switches` are those of a new one, and `explicit` the
    ones that this process sets for an older one, too. `new_name` returns the name of a generation,
    and `draw` a number in [0, 1)."""

    def __init__(
        self,
        database: Database,
        name: str,
        *,
        switches: Switches,
        explicit: frozenset[str] = frozenset(),
        new_name: Callable[[], str],
        draw: Callable[[], float],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.changed: Callable[[], None] = nothing_changed
        self._database = database
        self._name = name
        self._switches = switches
        self._explicit = explicit
        self._new_name = new_name
        self._draw = draw
        self._clock = clock
        self._faults: list[SetFault] = []
        self._tenant = 0
        self._cleaned = ("", 1)
        self._keys_cleaned_at = -KEYS_EVERY_SECONDS
        self._refreshing: asyncio.Task[None] | None = None
        self._is_behind = False

    @property
    def switches(self) -> Switches:
        return self._switches

    @property
    def generation(self) -> str:
        return self._tail.generation

    @property
    def head(self) -> int:
        return self._tail.head

    @property
    def revision(self) -> int:
        return self._tail.changes

    # Its life

    async def start(self) -> None:
        """Create the tenant if it is new, and read the end of its feed. Unavailable, NotOffered."""
        given = self._switches
        _check_offered(given)
        named = {"name": self._name, "generation": self._new_name(), "switches": _dumped(given)}
        read = self._database.read
        found = await read(FIND, named) or await read(OPEN, named) or await read(FIND, named)
        self._tenant, self._switches = found[0][0], read_switches(found[0][1])
        chosen = {name: getattr(given, name) for name in self._explicit}
        if self._switches != self._switches.model_copy(update=chosen):
            await self._set_switches(given, self._explicit)
        self._tail = Tail(
            self._database,
            self._tenant,
            new_name=self._new_name,
            on_revision=self._reload,
            on_change=self._announce,
        )
        self._groups = Groups(self._database, self._tenant, self._tail, lambda: self._switches)
        self._database.follow(self._tenant, self)
        await self._tail.refresh()

    async def prepare_digest(self) -> None:
        """Nothing to do: the hashes are in the database."""

    async def synced(self) -> None:
        """Nothing to wait for: what is visible is on disk."""

    def settle_no_more(self) -> None:
        """Nothing to stop: no event is late."""

    async def close(self) -> None:
        """Wait for the writes that are under way."""
        await self._groups.close()

    def abandon(self) -> None:
        """Nothing to leave behind."""

    def _announce(self) -> None:
        self.changed()

    # What the database says by itself

    def note(self, seen: Seen) -> None:
        """Refresh the tail if a look shows that it lags."""
        if not self._tail.is_as(seen):
            self._refresh_soon()

    def wake(self, epoch: int | None, head: int | None) -> None:
        """Refresh the tail after a notification that tells something new."""
        if not self._tail.reaches(epoch, head):
            self._refresh_soon()

    async def clean(self) -> None:
        """Delete events below the floor and keys that are forgotten, in batches. Unavailable,
        psycopg.Error."""
        below = (self._tail.generation, self._tail.floor)
        if below != self._cleaned and await self._delete(CLEAN_EVENTS):
            self._cleaned = below
        if time.monotonic() - self._keys_cleaned_at >= KEYS_EVERY_SECONDS:
            before = self._clock() - self._switches.key_memory_seconds
            if await self._delete(CLEAN_KEYS, before=before):
                self._keys_cleaned_at = time.monotonic()

    async def _delete(self, statement: str, **values: Any) -> bool:
        """Return whether nothing is left to delete."""
        for _ in range(MOST_CLEANINGS):
            async with self._database.connection() as connection:
                deleted = await connection.execute(statement, {"tenant": self._tenant, **values})
                if deleted.rowcount < CLEANED_ROWS:
                    return True
        return False

    def _refresh_soon(self) -> None:
        """Read what is new; once more if a reading is under way, which may have begun too early."""
        self._is_behind = True
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._refresh())

    async def _refresh(self) -> None:
        while self._is_behind:
            self._is_behind = False
            try:
                await self._tail.refresh()
            except (Unavailable, psycopg.Error) as problem:
                logger.warning("the feed could not be read: %s", problem)

    async def _reload(self) -> None:
        """Read switches and faults."""
        rows = await self._read("SELECT f.switches FROM central.feed f " + OF_TENANT)
        self._switches = read_switches(rows[0][0])
        self._faults = await self.faults()

    # Reading

    async def _read(self, query: str, **values: Any) -> list[TupleRow]:
        """Return the rows of a query that begins with the tenant's row of the feed."""
        rows = await self._database.read(query, {"tenant": self._tenant, **values})
        if not rows:
            raise Unavailable(FORGOTTEN)
        return rows

    async def _read_shown(self, query: str, **values: Any) -> list[TupleRow]:
        """Return a snapshot, once the tail holds what it can show."""
        return await self._tail.read(lambda: self._read(query, **values))

    async def _read_rows(self, query: str, **values: Any) -> tuple[list[Row], Moment]:
        rows = await self._read_shown(query, **values)
        bodies = [body for *_, body in rows if body is not None]
        return list(map(orjson.loads, bodies)), Moment(*rows[0][:3])

    async def moment(self) -> Moment:
        return Moment(*(await self._read_shown(READ_MOMENT))[0])

    async def product(self, product_id: str) -> tuple[Row | None, Moment]:
        rows, moment = await self._read_rows(READ_PRODUCT, id=product_id.encode())
        return (rows[0] if rows else None), moment

    async def page(self, offset: int, limit: int) -> Page:
        rows, moment = await self._read_rows(READ_PAGE, offset=offset, limit=limit)
        return Page(rows, offset + len(rows) < moment.products, moment)

    async def page_after(self, product_id: str | None, limit: int) -> Page:
        after = b"" if product_id is None else product_id.encode()
        rows, moment = await self._read_rows(READ_PAGE_AFTER, id=after, limit=limit + 1)
        return Page(rows[:limit], len(rows) > limit, moment)

    async def everything(self) -> Page:
        rows, moment = await self._read_rows(READ_PAGE_AFTER, id=b"", limit=None)
        return Page(rows, False, moment)

    async def bucket(self, bucket: int, buckets: int) -> Page:
        rows, moment = await self._read_rows(READ_BUCKET, bucket=bucket, buckets=buckets)
        return Page(rows, False, moment)

    async def digest(self, buckets: int) -> Digest:
        found = await self._read_shown(READ_DIGEST, buckets=buckets)
        rows, sums = [0] * buckets, [total(())] * buckets
        for _, _, _, bucket, count, *digits in found:
            if bucket is not None:
                rows[bucket], sums[bucket] = count, total(digits)
        return Digest(rows, sums, Moment(*found[0][:3]))

    # The feed

    async def events(self, offset: int, limit: int, now: float) -> FeedPage:
        if max(offset, 1) >= self._tail.feed.next:
            await self._tail.refresh()
        if max(offset, self._tail.floor) < self._tail.feed.first:
            return await self._older_events(offset, limit)
        return self._from_tail(offset, limit)

    def news(self, offset: int, limit: int, now: float, generation: str) -> FeedPage | None:
        is_older = max(offset, self._tail.floor) < self._tail.feed.first
        if is_older or generation != self._tail.generation:
            raise NotInMemory
        read = self._from_tail(offset, limit)
        return read if read.page.events else None

    def _from_tail(self, offset: int, limit: int) -> FeedPage:
        tail = self._tail
        self._check_floor(offset, tail.floor)
        page = tail.feed.page(max(offset, tail.floor), limit)
        return FeedPage(page, tail.generation, tail.head)

    async def _older_events(self, offset: int, limit: int) -> FeedPage:
        rows = await self._read_shown(READ_EVENTS, offset=offset, limit=limit + 1)
        generation, head, floor = rows[0][:3]
        self._check_floor(offset, floor)
        events: list[Event] = [
            {"offset": number, **orjson.loads(body)}
            for *_, number, body in rows[:limit]
            if number is not None
        ]
        next_offset = events[-1]["offset"] + 1 if events else min(max(offset, floor), head + 1)
        page = EventPage(tuple(events), next_offset, len(rows) > limit)
        return FeedPage(page, generation, head)

    def _check_floor(self, offset: int, floor: int) -> None:
        if max(offset, 1) < floor and self._switches.has(Feature.GONE):
            raise PositionGone(floor)

    # Writing

    async def write(self, operations: Sequence[Operation], now: float) -> Answers:
        return await self._groups.write(operations, now)

    # Administration

    async def faults(self) -> list[SetFault]:
        rows = await self._database.read(
            "SELECT number, fault, struck FROM central.faults WHERE tenant = %(tenant)s "
            "ORDER BY number",
            {"tenant": self._tenant},
        )
        return read_faults(rows)

    async def add_fault(self, fault: Fault) -> SetFault:
        rows = await self._changing(
            """
            WITH feed AS (
                UPDATE central.feed SET revision = revision + 1, last_fault = last_fault + 1
                WHERE tenant = %(tenant)s RETURNING tenant, last_fault
            )
            INSERT INTO central.faults (tenant, number, fault, times)
            SELECT tenant, last_fault, %(fault)s, %(times)s FROM feed RETURNING number
            """,
            fault=fault.model_dump_json(by_alias=True).encode(),
            times=fault.times,
        )
        return SetFault(rows[0][0], fault)

    async def clear_faults(self, number: int | None = None) -> int:
        rows = await self._changing(
            """
            WITH feed AS (
                UPDATE central.feed SET revision = revision + 1 WHERE tenant = %(tenant)s
            )
            DELETE FROM central.faults
            WHERE tenant = %(tenant)s AND number = coalesce(%(number)s, number) RETURNING number
            """,
            number=number,
        )
        return len(rows)

    async def strike(self, route: Route) -> list[Fault]:
        """Return the faults that strike, and count them for all processes. Unavailable,
        OutcomeUnknown."""
        drawn = {e.number: e.fault for e in self._faults if is_drawn(e.fault, route, self._draw)}
        if not drawn:
            return []
        arguments = {"tenant": self._tenant, "numbers": list(drawn)}
        struck = await self._database.change(STRIKE, arguments)
        for number, count, times in struck:
            if count == times:
                await self.clear_faults(number)
        return [drawn[number] for number in sorted(number for number, *_ in struck)]

    async def switch(self, switches: Switches) -> None:
        _check_offered(switches)
        await self._set_switches(switches, Switches.model_fields)
        await self._tail.refresh()

    async def _set_switches(self, switches: Switches, names: Iterable[str]) -> None:
        """Store the switches of these names beside what else is stored, which may be of a newer
        release. Unavailable."""
        async with self._database.alone(self._tenant) as connection:
            found = await connection.execute(
                "SELECT switches FROM central.feed WHERE tenant = %s", (self._tenant,)
            )
            if (row := await found.fetchone()) is None:
                raise Unavailable(FORGOTTEN)
            chosen = switches.model_dump_json(by_alias=True, include=set(names))
            stored = orjson.dumps(orjson.loads(row[0]) | orjson.loads(chosen))
            values = {"switches": stored, "limit": read_switches(stored).event_limit}
            await connection.execute(SWITCH.encode(), values | {"tenant": self._tenant})
            await self._notify(connection)

    async def forget_log(self) -> None:
        await self._alter("UPDATE central.feed SET floor = head + 1 WHERE tenant = %(tenant)s")

    async def forget_keys(self) -> None:
        await self._alter("DELETE FROM central.keys WHERE tenant = %(tenant)s")

    async def begin_generation(self, name: str) -> None:
        await self._alter(
            "DELETE FROM central.events WHERE tenant = %(tenant)s",
            """
            UPDATE central.feed SET generation = %(name)s, epoch = epoch + 1, head = 0, floor = 1,
                lost_until = greatest(lost_until - head, 0) WHERE tenant = %(tenant)s
            """,
            name=name,
        )

    async def lose_next(self, count: int) -> None:
        await self._alter(
            """
            UPDATE central.feed SET lost_until = greatest(lost_until, head) + %(count)s
            WHERE tenant = %(tenant)s
            """,
            count=count,
        )

    async def lie(self, product_id: str, attributes: Row | None) -> None:
        async with self._database.alone(self._tenant) as connection:
            named: dict[str, Any] = {"tenant": self._tenant, "id": product_id.encode()}
            removed = await connection.execute(
                "DELETE FROM central.products WHERE tenant = %(tenant)s AND id = %(id)s "
                "RETURNING body",
                named,
                binary=True,
            )
            held = await removed.fetchone()
            if attributes is not None:
                row = lied(product_id, None if held is None else orjson.loads(held[0]), attributes)
                await self._insert_products(connection, [row])
            more = (attributes is not None) - (held is not None)
            await connection.execute(
                "UPDATE central.feed SET products = products + %(more)s WHERE tenant = %(tenant)s",
                named | {"more": more},
            )

    async def crash(self, loses: Part, count: int) -> None:
        raise NotOffered(
            "crash: a ledger in PostgreSQL saves its log and its stock together; kill the database "
            "or restore it instead"
        )

    async def backup(self) -> dict[str, Any]:
        """Return everything, in one snapshot."""
        named = {"tenant": self._tenant}
        try:
            async with self._database.connection() as connection, connection.transaction():
                await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                feed = await _all(connection, "generation, floor, head", "feed", named)
                products = await _all(connection, "body", "products", named)
                events = await _all(connection, "number, body", "events", named, "number")
                keys = await _all(
                    connection, "key, answered_at, answer", "keys", named, "answered_at"
                )
        except psycopg.OperationalError as error:
            raise Unavailable(str(error)) from error
        generation, floor, head = feed[0]
        return {
            "generation": generation,
            "first": floor,
            "next": head + 1,
            "products": [orjson.loads(body) for (body,) in products],
            "events": [
                {"offset": number, **orjson.loads(body)}
                for number, body in events
                if number >= floor
            ],
            "unnumbered": [],
            "sequence": head,
            "keys": [[key.decode(), at, orjson.loads(answer)] for key, at, answer in keys],
        }

    async def restore(self, backup: Change, generation: str) -> None:
        """Replace everything. Late events of the backup get their offsets at once."""
        events = {event["offset"]: event for event in backup["events"]}
        head = backup["next"] - 1
        for _, event, _ in sorted(backup["unnumbered"]):
            head += 1
            events[head] = event
        keys: list[tuple[str, float, Answer]] = backup["keys"]
        async with self._database.alone(self._tenant) as connection:
            named: dict[str, Any] = {"tenant": self._tenant}
            for table in ("events", "keys", "products"):
                statement = f"DELETE FROM central.{table} WHERE tenant = %(tenant)s"
                await connection.execute(statement.encode(), named)
            await self._insert_products(connection, backup["products"])
            columns = "(tenant, number, body) FROM STDIN"
            async with connection.cursor().copy(f"COPY central.events {columns}".encode()) as copy:
                for number, event in events.items():
                    body = {name: each for name, each in event.items() if name != "offset"}
                    await copy.write_row((self._tenant, number, orjson.dumps(body)))
            columns = "(tenant, key, answered_at, answer) FROM STDIN"
            async with connection.cursor().copy(f"COPY central.keys {columns}".encode()) as copy:
                for key, answered_at, answer in keys:
                    row = (self._tenant, key.encode(), answered_at, orjson.dumps(answer))
                    await copy.write_row(row)
            limit = self._switches.event_limit
            await connection.execute(
                """
                UPDATE central.feed SET generation = %(generation)s, epoch = epoch + 1,
                    head = %(head)s, floor = greatest(%(first)s, %(head)s - %(limit)s + 1),
                    products = %(products)s,
                    lost_until = greatest(lost_until - head, 0) + %(head)s
                WHERE tenant = %(tenant)s
                """,
                named
                | {"generation": generation, "head": head, "first": backup["first"]}
                | {"limit": limit, "products": len(backup["products"])},
            )
            await self._notify(connection)
        await self._tail.refresh()

    async def wipe(self, generation: str) -> None:
        empty: Change = {"first": 1, "next": 1, "products": [], "events": [], "keys": []}
        await self.restore(empty | {"unnumbered": []}, generation)

    async def _insert_products(self, connection: Connection, rows: Sequence[Row]) -> None:
        columns = "(tenant, id, body, place, hash_0, hash_1, hash_2, hash_3) FROM STDIN"
        async with connection.cursor().copy(f"COPY central.products {columns}".encode()) as copy:
            for row in rows:
                product_id = row["productId"]
                named = (self._tenant, product_id.encode(), orjson.dumps(row))
                await copy.write_row((*named, place_of(product_id), *digits_of(row)))

    async def _alter(self, *statements: str, **values: Any) -> None:
        """Change the ledger while no group writes, and tell every process."""
        async with self._database.alone(self._tenant) as connection:
            for statement in statements:
                await connection.execute(statement.encode(), {"tenant": self._tenant, **values})
            await self._notify(connection)
        await self._tail.refresh()

    async def _changing(self, query: str, **values: Any) -> list[TupleRow]:
        """Change switches or faults, and tell every process."""
        rows = await self._database.change(query, {"tenant": self._tenant, **values})
        await self._database.read(
            "SELECT pg_notify(%(channel)s, %(name)s)",
            {"channel": CHANNEL, "name": str(self._tenant)},
        )
        await self._tail.refresh()
        return rows

    async def _notify(self, connection: Connection) -> None:
        await connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, str(self._tenant)))


def _check_offered(switches: Switches) -> None:
    if not switches.has(Feature.ORDER):
        raise NotOffered(
            "without order: PostgreSQL has events in the order of commits; take a ledger in memory "
            "or in a folder instead"
        )


def _dumped(switches: Switches) -> bytes:
    return switches.model_dump_json(by_alias=True).encode()


async def _all(
    connection: Connection, columns: str, table: str, named: dict[str, Any], order: str = "1"
) -> list[TupleRow]:
    statement = f"SELECT {columns} FROM central.{table} WHERE tenant = %(tenant)s ORDER BY {order}"
    cursor = connection.cursor(binary=True)
    await cursor.execute(statement.encode(), named)
    return await cursor.fetchall()
