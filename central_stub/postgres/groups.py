"""The writer: requests that arrive together share one transaction.

Order of locks: the tenant's writers, shared; products by id, then keys by key, then the row of the
feed, which is held until the commit is on disk. So offsets are dense and in the order of commits,
and no two groups wait for each other; where they do all the same (a product created twice at once,
the same key on two products), PostgreSQL ends one, and the group is repeated whole. A lock that is
not given in time, as of a process that vanished in the middle of a group, is 503 for the group. If
PostgreSQL refuses anything else, the group is split, so that only the culprit fails.

If the connection is lost after the group was sent, it may have been committed. Updates are then
repeated, since their keys tell; what has no key is answered as unknown.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import psycopg
from psycopg import AsyncCursor, AsyncPipeline
from psycopg.rows import TupleRow
from psycopg_pool import PoolClosed, PoolTimeout

from central_stub.backend import Answers, OutcomeUnknown, Unavailable
from central_stub.catalogue import Row
from central_stub.feed import Event
from central_stub.keys import Answer
from central_stub.postgres.database import CHANNEL, WRITERS, Connection, Database
from central_stub.postgres.effects import Asked, Effects, effects_of
from central_stub.postgres.errors import RIVALS, is_lost, is_unable, words
from central_stub.postgres.sums import digits_of, place_of
from central_stub.postgres.tail import FORGOTTEN, Tail, Where
from central_stub.rules import Operation, Update
from central_stub.switches import Switches

MOST_OPERATIONS = 500
"""In one group. A request with more is a group of its own."""

PATIENCE_SECONDS = 5.0
"""How long a group is repeated after the connection was lost."""

MOST_RIVALRIES = 20

JOIN_WRITERS = "SELECT pg_advisory_xact_lock_shared(%(writers)b::integer, %(tenant)b::integer)"
LOCK_PRODUCTS = """
SELECT id, body FROM central.products WHERE tenant = %(tenant)b AND id = ANY(%(ids)b)
ORDER BY id FOR UPDATE
"""
FIND_KEYS = """
SELECT key, answered_at, answer FROM central.keys WHERE tenant = %(tenant)b AND key = ANY(%(keys)b)
"""
READ_FEED = "SELECT generation, epoch, head, floor FROM central.feed WHERE tenant = %(tenant)b"
FORGET_KEYS = "DELETE FROM central.keys WHERE tenant = %(tenant)b AND key = ANY(%(keys)b)"
CHANGE_PRODUCTS = """
UPDATE central.products p SET body = n.body, hash_0 = n.h0, hash_1 = n.h1, hash_2 = n.h2,
    hash_3 = n.h3
FROM unnest(%(ids)b::bytea[], %(bodies)b::bytea[], %(h0)b::integer[], %(h1)b::integer[],
    %(h2)b::integer[], %(h3)b::integer[]) AS n (id, body, h0, h1, h2, h3)
WHERE p.tenant = %(tenant)b AND p.id = n.id
"""
CREATE_PRODUCTS = """
INSERT INTO central.products (tenant, id, body, place, hash_0, hash_1, hash_2, hash_3)
SELECT %(tenant)b, n.* FROM unnest(%(ids)b::bytea[], %(bodies)b::bytea[], %(places)b::bigint[],
    %(h0)b::integer[], %(h1)b::integer[], %(h2)b::integer[], %(h3)b::integer[])
    AS n (id, body, place, h0, h1, h2, h3)
ORDER BY n.id
"""
REMOVE_PRODUCTS = "DELETE FROM central.products WHERE tenant = %(tenant)b AND id = ANY(%(ids)b)"
KEEP_KEYS = """
INSERT INTO central.keys (tenant, key, answered_at, answer)
SELECT %(tenant)b, n.* FROM unnest(%(keys)b::bytea[], %(times)b::double precision[],
    %(answers)b::bytea[]) AS n (key, answered_at, answer)
ORDER BY n.key
"""
PUBLISH = """
WITH feed AS (
    UPDATE central.feed SET head = head + %(count)b, products = products + %(products)b,
        floor = greatest(floor, head + %(count)b - %(limit)b + 1)
    WHERE tenant = %(tenant)b RETURNING generation, epoch, head, floor, lost_until
), written AS (
    INSERT INTO central.events (tenant, number, body)
    SELECT %(tenant)b, feed.head - %(count)b + n.place, n.body
    FROM feed, unnest(%(bodies)b::bytea[]) WITH ORDINALITY AS n (body, place)
    WHERE feed.head - %(count)b + n.place > feed.lost_until
)
SELECT generation, epoch, head, floor, lost_until,
    pg_notify(%(channel)b, %(name)b || ' ' || epoch || ' ' || head)
FROM feed
"""


logger = logging.getLogger("central_stub.postgres")


@dataclass(slots=True, eq=False)
class Job:
    """A request that waits for its answers."""

    asked: Asked
    answered: asyncio.Future[Answers]

    @property
    def has_keys(self) -> bool:
        return all(isinstance(each, Update) for each in self.asked.operations)


@dataclass(frozen=True, slots=True)
class Found:
    """What there was before a group: its products, the answers to its keys, keys whose time is up,
    and where the feed was."""

    rows: dict[str, Row]
    answers: dict[str, Answer]
    forgotten: list[bytes]
    feed: Where


@dataclass(slots=True)
class Committed:
    """What a transaction did, and where the feed was after it."""

    effects: Effects
    feed: Where
    has_gaps: bool = False


@dataclass(slots=True)
class Attempt:
    """`is_sent`: the transaction may have been committed."""

    is_sent: bool = False


class Groups:
    """The writer of one tenant. `switches` returns those of this moment."""

    def __init__(
        self, database: Database, tenant: int, tail: Tail, switches: Callable[[], Switches]
    ) -> None:
        self._database = database
        self._tenant = tenant
        self._tail = tail
        self._switches = switches
        self._waiting: list[Job] = []
        self._worker: asyncio.Task[None] | None = None
        self._answering: set[asyncio.Task[None]] = set()

    async def write(self, operations: Sequence[Operation], now: float) -> Answers:
        """Apply operations or refuse them, in one transaction. Unavailable, OutcomeUnknown."""
        answered: asyncio.Future[Answers] = asyncio.get_running_loop().create_future()
        self._waiting.append(Job(Asked(operations, now), answered))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await answered

    async def close(self) -> None:
        """Wait for what is under way."""
        if self._worker is not None:
            await asyncio.wait((self._worker,))
        if self._answering:
            await asyncio.wait(self._answering)

    async def _work(self) -> None:
        while self._waiting:
            group = self._take_group()
            try:
                await self._commit(group)
            except Exception as problem:  # noqa: BLE001 - each request raises it, and is answered
                _fail(group, problem)

    def _take_group(self) -> list[Job]:
        count, operations = 0, 0
        for job in self._waiting:
            operations += len(job.asked.operations)
            if count and operations > MOST_OPERATIONS:
                break
            count += 1
        group, self._waiting = self._waiting[:count], self._waiting[count:]
        return group

    # One group

    async def _commit(self, group: list[Job]) -> None:
        """Commit a group, or its parts, and have each request answered."""
        loop = asyncio.get_running_loop()
        ends_at, rivalries, is_unknown = loop.time() + PATIENCE_SECONDS, 0, False
        while group:
            attempt = Attempt()
            try:
                async with self._database.connection() as connection:
                    committed = await self._attempt(connection, group, attempt)
            except RIVALS as error:
                rivalries += 1
                if rivalries > MOST_RIVALRIES:
                    raise Unavailable(words(error)) from error
                await asyncio.sleep(random.uniform(0, 0.005))
            except psycopg.Error as error:
                if not is_unable(error):
                    return await self._split(group, error)
                if attempt.is_sent and is_lost(error):
                    is_unknown = True
                    _fail([job for job in group if not job.has_keys], OutcomeUnknown(UNKNOWN))
                    group = [job for job in group if job.has_keys]
                if not (is_unknown or _may_pass(error)) or loop.time() > ends_at:
                    problem = OutcomeUnknown(UNKNOWN) if is_unknown else Unavailable(words(error))
                    return _fail(group, problem)
                await asyncio.sleep(random.uniform(0.01, 0.1))
            else:
                return self._answer_soon(group, committed)
        return None

    async def _split(self, group: list[Job], error: psycopg.Error) -> None:
        """Have only the request fail that the database does not take."""
        if len(group) == 1:
            logger.error("a request is refused by the database: %s", error)
            return _fail(group, OutcomeUnknown(f"this is refused: {words(error)}"))
        middle = len(group) // 2
        await self._commit(group[:middle])
        return await self._commit(group[middle:])

    async def _attempt(
        self, connection: Connection, group: list[Job], attempt: Attempt
    ) -> Committed:
        """Commit a group in two exchanges with the server: what is there, and what to change."""
        switches = self._switches()
        async with connection.pipeline() as pipeline:
            await connection.execute("BEGIN")
            await connection.execute(JOIN_WRITERS, {"writers": WRITERS, "tenant": self._tenant})
            found = await self._find(connection, pipeline, group, switches)
            asked = [job.asked for job in group]
            effects = effects_of(asked, found.rows, found.answers, switches)
            attempt.is_sent = True
            if found.forgotten:
                named = {"tenant": self._tenant, "keys": found.forgotten}
                await connection.execute(FORGET_KEYS, named)
            created = await self._change_products(connection, effects, found.rows)
            await self._keep_keys(connection, effects)
            published = await self._publish(connection, effects, created, switches)
            await connection.execute("COMMIT")
            await pipeline.sync()
            if published is None:
                return Committed(effects, found.feed)
            *where, lost_until, _ = _one(await published.fetchone())
        feed = Where(*where)
        return Committed(effects, feed, has_gaps=feed.head - len(effects.events) < lost_until)

    async def _find(
        self, connection: Connection, pipeline: AsyncPipeline, group: list[Job], switches: Switches
    ) -> Found:
        """Lock the products that a group names, and read what is known of them and of its keys."""
        operations = [each for job in group for each in job.asked.operations]
        ids = {each.product_id.encode() for each in operations}
        keys = {each.idempotency_key.encode() for each in operations if isinstance(each, Update)}
        named = {"tenant": self._tenant, "ids": sorted(ids), "keys": sorted(keys)}
        products = await connection.execute(LOCK_PRODUCTS, named, binary=True)
        known = await connection.execute(FIND_KEYS, named, binary=True)
        # After the products, so that the head is no older than what is seen of them.
        feed = await connection.execute(READ_FEED, named, binary=True)
        # Only after a sync does the server's limit for an idle transaction hold.
        await pipeline.sync()
        rows = {id_.decode(): orjson.loads(body) for id_, body in await products.fetchall()}
        oldest = min(job.asked.now for job in group) - switches.key_memory_seconds
        answers: dict[str, Answer] = {}
        forgotten: list[bytes] = []
        for key, answered_at, answer in await known.fetchall():
            if answered_at > oldest:
                answers[key.decode()] = orjson.loads(answer)
            else:
                forgotten.append(key)
        return Found(rows, answers, forgotten, Where(*_one(await feed.fetchone())))

    async def _publish(
        self, connection: Connection, effects: Effects, created: int, switches: Switches
    ) -> AsyncCursor[TupleRow] | None:
        """Give the events their offsets, and tell every process; nothing if there are none."""
        if not effects.events:
            return None
        values = {
            "tenant": self._tenant,
            "bodies": [orjson.dumps(each) for each in effects.events],
            "count": len(effects.events),
            "products": created,
            "limit": switches.event_limit,
            "channel": CHANNEL,
            "name": str(self._tenant),
        }
        return await connection.execute(PUBLISH, values, binary=True)

    async def _change_products(
        self, connection: Connection, effects: Effects, held: dict[str, Row]
    ) -> int:
        """Return by how many products there are more afterwards."""
        changed = {i: row for i, row in effects.rows.items() if row is not None and i in held}
        created = {i: row for i, row in effects.rows.items() if row is not None and i not in held}
        removed = [i.encode() for i, row in effects.rows.items() if row is None and i in held]
        if changed:
            await connection.execute(CHANGE_PRODUCTS, self._columns(changed))
        if created:
            places = [place_of(each) for each in created]
            await connection.execute(CREATE_PRODUCTS, self._columns(created) | {"places": places})
        if removed:
            await connection.execute(REMOVE_PRODUCTS, {"tenant": self._tenant, "ids": removed})
        return len(created) - len(removed)

    def _columns(self, rows: dict[str, Row]) -> dict[str, Any]:
        digits = [digits_of(row) for row in rows.values()]
        return {
            "tenant": self._tenant,
            "ids": [each.encode() for each in rows],
            "bodies": [orjson.dumps(row) for row in rows.values()],
            **{f"h{place}": [each[place] for each in digits] for place in range(4)},
        }

    async def _keep_keys(self, connection: Connection, effects: Effects) -> None:
        kept = effects.keys.values()
        if kept:
            columns = {
                "tenant": self._tenant,
                "keys": [each.key.encode() for each in kept],
                "times": [each.answered_at for each in kept],
                "answers": [orjson.dumps(each.answer) for each in kept],
            }
            await connection.execute(KEEP_KEYS, columns)

    # Answering

    def _answer_soon(self, group: list[Job], committed: Committed) -> None:
        """Answer when the tail holds the events, while the next group is under way."""
        task = asyncio.create_task(self._answer(group, committed))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _answer(self, group: list[Job], committed: Committed) -> None:
        events: list[Event] = committed.effects.events
        try:
            if committed.has_gaps:
                await self._tail.refresh()
            else:
                await self._tail.append(committed.feed, events)
        except Unavailable:
            return _fail(group, OutcomeUnknown(UNKNOWN))
        except Exception:
            logger.exception("a group was committed, and the feed could not be read after it")
            return _fail(group, OutcomeUnknown(UNREAD))
        for job, answers in zip(group, committed.effects.answers, strict=True):
            if not job.answered.done():
                job.answered.set_result(Answers(answers, self._tail.generation))
        return None


UNKNOWN = "the database was lost while this was written: repeat it with the same key"
UNREAD = "this was written, and the feed could not be read after it: repeat it with the same key"


def _one(row: TupleRow | None) -> TupleRow:
    if row is None:
        raise Unavailable(FORGOTTEN)
    return row


def _may_pass(error: psycopg.Error) -> bool:
    """Return whether only this connection was dead, and another may live."""
    return is_lost(error) and not isinstance(error, PoolTimeout | PoolClosed)


def _fail(group: Sequence[Job], problem: Exception) -> None:
    for job in group:
        if not job.answered.done():
            job.answered.set_exception(problem)
