"""Connections to PostgreSQL: a pool, one that listens, and a look every second.

A notification is a hint: it may be lost with its connection. So all tenants are also looked at
every second, and after each new connection.

Errors:
    DatabaseError       the database cannot be used at start; the message says why
"""

import asyncio
import logging
import os
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any, NamedTuple, Protocol

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from central_stub.backend import OutcomeUnknown, Unavailable
from central_stub.cancellation import is_cancelled
from central_stub.postgres import schema
from central_stub.postgres.errors import is_lost, is_unable, words
from central_stub.storage import StorageError

CHANNEL = "central"
LOOK_SECONDS = 1.0
MOST_CONNECTIONS = 8
"""Of one process, beside the one that listens."""

CONNECT_SECONDS = 2
CONNECTION_SECONDS = 2.0
"""How long a request waits for a connection before it is answered with 503."""

TRIES = MOST_CONNECTIONS + 2
"""After a restart of the server each connection of the pool fails once."""

LOCK_SECONDS = 3.0
"""How long a statement waits for a lock: then what asked for it is answered with 503."""

IDLE_SECONDS = 10.0
"""How long a transaction may wait for its process, which holds locks meanwhile. A process computes
for some milliseconds between the two exchanges of a group."""

LOST = "the database was lost while this was changed: see whether it was"

_USUAL = {
    "connect_timeout": CONNECT_SECONDS,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
_SERVER_KEEPALIVES = {
    "tcp_keepalives_idle": 5,
    "tcp_keepalives_interval": 2,
    "tcp_keepalives_count": 3,
}
"""By which the server notices a machine that vanished, and gives its locks back."""

_LOOK = "SELECT tenant, generation, epoch, head, floor, revision FROM central.feed"
_EXCLUDE = "SELECT pg_advisory_xact_lock(%s::integer, %s::integer)"

WRITERS = 4_027_301
"""Any number that no other program locks in this database: each group of a tenant holds it and the
tenant's number shared, and whoever must be alone holds both exclusively. A lock of the table would
wait for VACUUM, and every group behind it."""

logger = logging.getLogger("central_stub.postgres")

Connection = AsyncConnection[TupleRow]


class DatabaseError(StorageError):
    """The database cannot be used; the message says why and what to do."""


class Seen(NamedTuple):
    """The row of the feed, as a look sees it."""

    generation: str
    epoch: int
    head: int
    floor: int
    revision: int


class Follower(Protocol):
    """A tenant that is told what happens in the database."""

    def note(self, seen: Seen) -> None: ...
    def wake(self, epoch: int | None, head: int | None) -> None: ...
    async def clean(self) -> None: ...


async def connect(url: str) -> Connection:
    """Return a connection of its own, with keepalives. DatabaseError."""
    arguments = _arguments(url, _SERVER_KEEPALIVES)
    try:
        return await AsyncConnection.connect(url, autocommit=True, **arguments)
    except psycopg.Error as error:
        raise DatabaseError(f"{words(error)}; see CENTRAL_STUB_DATABASE") from error


def _arguments(url: str, session: Mapping[str, int]) -> dict[str, Any]:
    """Return the parameters of a connection that an address lacks. `session`: settings of the
    server for it; those that the address or PGOPTIONS names win. DatabaseError."""
    try:
        given = conninfo_to_dict(url)
    except psycopg.Error as error:
        raise DatabaseError(f"{words(error)}; see CENTRAL_STUB_DATABASE") from error
    options = [f"-c {name}={value}" for name, value in session.items()]
    named = given.get("options") or os.environ.get("PGOPTIONS", "")
    usual = {name: value for name, value in _USUAL.items() if name not in given}
    return usual | {"options": " ".join([*options, str(named)]).strip()}


class Database:
    """One database for all tenants of a process.

    `connections`: how many of the pool there have been. A database that lost what it held, by a
    restored backup or a failover, has lost its connections before; so what is read after a new one
    is compared first (`tail`).
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self.connections = 0
        self._followers: dict[int, Follower] = {}
        self._tasks: list[asyncio.Task[None]] = []
        limits = {
            "lock_timeout": round(LOCK_SECONDS * 1000),
            "idle_in_transaction_session_timeout": round(IDLE_SECONDS * 1000),
        }
        self._pool = AsyncConnectionPool[Connection](
            url,
            kwargs={"autocommit": True, **_arguments(url, _SERVER_KEEPALIVES | limits)},
            min_size=1,
            max_size=MOST_CONNECTIONS,
            timeout=CONNECTION_SECONDS,
            reconnect_timeout=1.0,  # then the next request tries again
            configure=self._count,
            open=False,
        )

    async def open(self) -> None:
        """Check the schema, and begin to listen. DatabaseError, SchemaError."""
        connection = await connect(self._url)
        async with connection:
            await schema.check(connection)
        await self._pool.open()
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._look())]

    async def close(self) -> None:
        """Close all connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        await self._pool.close(timeout=1.0)

    def follow(self, tenant: int, follower: Follower) -> None:
        """Tell a follower from now on what happens to its tenant."""
        self._followers[tenant] = follower

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Lend a connection in autocommit mode. An error leaves no transaction open."""
        async with self._pool.connection() as connection:
            try:
                yield connection
            except psycopg.errors.ReadOnlySqlTransaction:
                # The server has become a replica: the next connection finds the new primary.
                await connection.close()
                raise
            finally:
                if not connection.closed and connection.info.transaction_status.name != "IDLE":
                    with suppress(psycopg.Error):
                        await connection.rollback()

    async def read(self, query: str, arguments: Mapping[str, Any]) -> list[TupleRow]:
        """Return the rows of one statement, which is one snapshot. Unavailable.

        It is repeated if the connection is lost, so it must change nothing, or be of no effect the
        second time.
        """
        for remaining in reversed(range(TRIES)):
            try:
                async with self.connection() as connection:
                    return await _rows(connection, query, arguments)
            except psycopg.Error as error:
                _check_may_repeat(error, remaining)
        raise AssertionError("the last try returns or raises")

    async def change(self, query: str, arguments: Mapping[str, Any]) -> list[TupleRow]:
        """Change something by one statement, and return its rows. Other connections are tried until
        one begins a transaction; then it is sent, once. Unavailable, OutcomeUnknown."""
        for remaining in reversed(range(TRIES)):
            is_begun = False
            try:
                async with self.connection() as connection, connection.transaction():
                    is_begun = True
                    return await _rows(connection, query, arguments)
            except psycopg.Error as error:
                if is_begun and is_lost(error):
                    raise OutcomeUnknown(LOST) from error
                _check_may_repeat(error, remaining)
        raise AssertionError("the last try returns or raises")

    @asynccontextmanager
    async def alone(self, tenant: int) -> AsyncIterator[Connection]:
        """Lend a connection in a transaction during which no group of the tenant writes.
        Unavailable."""
        try:
            async with self.connection() as connection, connection.transaction():
                await connection.execute(_EXCLUDE, (WRITERS, tenant))
                yield connection
        except psycopg.Error as error:
            if is_unable(error):
                raise Unavailable(words(error)) from error
            raise

    async def _count(self, _: Connection) -> None:
        self.connections += 1

    # What others do

    async def _listen(self) -> None:
        while not is_cancelled():
            try:
                async with await connect(self._url) as connection:
                    await connection.execute(f"LISTEN {CHANNEL}".encode())
                    self._wake_all()
                    while not is_cancelled():
                        await self._hear(connection)
            except (DatabaseError, psycopg.Error) as error:
                logger.warning("not listening: %s", error)
            except Exception:
                logger.exception("not listening")
            await asyncio.sleep(random.uniform(0.2, LOOK_SECONDS))

    async def _hear(self, connection: Connection) -> None:
        """Take what is notified within a second."""
        async with aclosing(connection.notifies(timeout=LOOK_SECONDS)) as notifications:
            async for notification in notifications:
                self._heard(notification.payload)

    def _heard(self, payload: str) -> None:
        """Wake the tenant that a notification names; all of them if it names none, since anybody
        who may connect may notify."""
        try:
            tenant, *where = map(int, payload.split())
        except ValueError:
            logger.warning("a notification was not understood: %.80r", payload)
            return self._wake_all()
        epoch, head = (*where, None, None)[:2]
        if (follower := self._followers.get(tenant)) is not None:
            follower.wake(epoch, head)
        return None

    def _wake_all(self) -> None:
        for follower in self._followers.values():
            follower.wake(None, None)

    async def _look(self) -> None:
        while not is_cancelled():
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.look()
            except (Unavailable, psycopg.Error) as error:
                logger.warning("nothing could be looked at: %s", error)
            except Exception:
                logger.exception("nothing could be looked at")

    async def look(self) -> None:
        """Tell every tenant where its feed is; then have each delete what is old. Unavailable."""
        for tenant, *seen in await self.read(_LOOK, {}):
            if (follower := self._followers.get(tenant)) is not None:
                follower.note(Seen(*seen))
        for tenant, follower in list(self._followers.items()):
            try:
                await follower.clean()
            except (Unavailable, psycopg.Error) as error:
                logger.warning("what is old of tenant %d is not deleted: %s", tenant, error)


async def _rows(connection: Connection, query: str, arguments: Mapping[str, Any]) -> list[TupleRow]:
    cursor = connection.cursor(binary=True)
    await cursor.execute(query.encode(), arguments)
    return await cursor.fetchall()


def _check_may_repeat(error: psycopg.Error, remaining: int) -> None:
    """Return if another connection may serve, and tries remain. Raises the error, Unavailable."""
    if not is_unable(error):
        raise error
    has_none = isinstance(error, PoolTimeout | PoolClosed)
    if has_none or not remaining or not is_lost(error):
        raise Unavailable(words(error)) from error
