"""Connections to PostgreSQL: a pool, one that listens, and a look every second.

A notification is a hint: it may be lost with its connection. So all tenants are also looked at
every second, and after each new connection.

Errors:
    DatabaseError       the database cannot be used at start; the message says why
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple, Protocol

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from central_stub.backend import Unavailable
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

_KEEPALIVES = {
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}

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
    try:
        given = conninfo_to_dict(url)
        usual: Mapping[str, Any] = {"connect_timeout": CONNECT_SECONDS, **_KEEPALIVES}
        options = {name: value for name, value in usual.items() if name not in given}
        return await AsyncConnection.connect(url, autocommit=True, **options)
    except psycopg.Error as error:
        raise DatabaseError(f"{words(error)}; see CENTRAL_STUB_DATABASE") from error


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
        self._pool = AsyncConnectionPool[Connection](
            url,
            kwargs={"autocommit": True, "connect_timeout": CONNECT_SECONDS, **_KEEPALIVES},
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
        """Return the rows of one statement, which is one snapshot. Unavailable."""
        for remaining in reversed(range(TRIES)):
            try:
                async with self.connection() as connection:
                    cursor = connection.cursor(binary=True)
                    await cursor.execute(query.encode(), arguments)
                    return await cursor.fetchall()
            except psycopg.Error as error:
                if not is_unable(error):
                    raise
                has_none = isinstance(error, PoolTimeout | PoolClosed)
                if has_none or not remaining or not is_lost(error):
                    raise Unavailable(words(error)) from error
        raise AssertionError("the last try returns or raises")

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[Connection]:
        """Lend a connection in a transaction during which no group writes. Unavailable."""
        try:
            async with self.connection() as connection, connection.transaction():
                await connection.execute("LOCK TABLE central.products IN EXCLUSIVE MODE")
                yield connection
        except psycopg.Error as error:
            if is_unable(error):
                raise Unavailable(words(error)) from error
            raise

    async def _count(self, _: Connection) -> None:
        self.connections += 1

    # What others do

    async def _listen(self) -> None:
        while True:
            try:
                async with await connect(self._url) as connection:
                    await connection.execute(f"LISTEN {CHANNEL}".encode())
                    self._wake_all()
                    async for notification in connection.notifies():
                        self._heard(notification.payload)
            except (DatabaseError, psycopg.Error) as error:
                logger.warning("not listening: %s", error)
            await asyncio.sleep(random.uniform(0.2, LOOK_SECONDS))

    def _heard(self, payload: str) -> None:
        tenant, *where = payload.split()
        follower = self._followers.get(int(tenant))
        if follower is not None:
            epoch, head = (int(where[0]), int(where[1])) if where else (None, None)
            follower.wake(epoch, head)

    def _wake_all(self) -> None:
        for follower in self._followers.values():
            follower.wake(None, None)

    async def _look(self) -> None:
        query = "SELECT tenant, generation, epoch, head, floor, revision FROM central.feed"
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                for tenant, *seen in await self.read(query, {}):
                    follower = self._followers.get(tenant)
                    if follower is not None:
                        follower.note(Seen(*seen))
                        await follower.clean()
            except (Unavailable, psycopg.Error) as error:
                logger.warning("nothing could be looked at: %s", error)
