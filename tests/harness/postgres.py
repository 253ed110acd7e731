"""A PostgreSQL of the test session, and Central's ledger in it as tests use the one in memory.

The server is started once for each process of tests, without fsync: no test with it is about
durability. A ledger of its own is a new tenant, a database of its own a copy of a template.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest

from central_stub.backend import Backend
from central_stub.catalogue import Row
from central_stub.central import Api, Held
from central_stub.faults import Fault
from central_stub.feed import EventPage
from central_stub.keys import Answer
from central_stub.postgres.backend import PostgresBackend
from central_stub.postgres.database import Database
from central_stub.postgres.temporary import QUICK, NoPostgres, TemporaryServer
from central_stub.postgres.upkeep import migrate
from central_stub.rules import Creation, Deletion, Operation, Setting, Update
from central_stub.switches import Switches
from central_stub.tenants import AccessKeys
from central_stub.wire import Reply, Request, Route

Result = TypeVar("Result")
TEMPLATE = "template_central"
SHARED = "shared"


class Loop:
    """An event loop in a thread of its own, for tests that wait for nothing themselves."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def call(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@dataclass
class Postgres:
    """The server, and the database in which each ledger is a tenant."""

    server: TemporaryServer
    loop: Loop
    database: Database
    numbers: Iterator[int]

    def backend(self, switches: Switches, new_name: Callable[[], str]) -> PostgresBackend:
        """Return the ledger of a new tenant."""
        backend = PostgresBackend(
            self.database,
            f"tenant-{next(self.numbers)}",
            switches=switches,
            new_name=new_name,
            draw=lambda: 0.5,
        )
        self.loop.call(backend.start())
        return backend

    def empty_database(self) -> str:
        """Return the address of a database that is emptied each time: faster than a new one, for
        who changes only rows."""
        self.server.query(
            "TRUNCATE central.feed, central.products, central.events, central.keys, central.faults,"
            " central.reports RESTART IDENTITY",
            SHARED,
        )
        return self.server.url(SHARED)

    def new_database(self) -> str:
        """Return the address of a new database, with the newest schema."""
        name = f"central_{next(self.numbers)}"
        self.server.query(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
        return self.server.url(name)


@contextmanager
def a_postgres() -> Iterator[Postgres]:
    """Start a server; skip the test where it is not installed."""
    try:
        server = TemporaryServer(QUICK)
    except NoPostgres as problem:
        pytest.skip(str(problem))
    loop = Loop()
    try:
        with server:
            server.query(f"CREATE DATABASE {TEMPLATE}")
            loop.call(migrate(server.url(TEMPLATE)))
            for name in ("ledgers", SHARED):
                server.query(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
            database = Database(server.url("ledgers"))
            loop.call(database.open())
            try:
                yield Postgres(server, loop, database, itertools.count(1))
            finally:
                loop.call(database.close())
    finally:
        loop.end()


class BlockingLedger:
    """A ledger behind any backend, with the methods of `Ledger`."""

    def __init__(self, loop: Loop, backend: Backend) -> None:
        self._call = loop.call
        self._backend = backend

    def __len__(self) -> int:
        return self._call(self._backend.moment()).products

    @property
    def head(self) -> int:
        return self._call(self._backend.moment()).head

    @property
    def next_offset(self) -> int:
        return self.head + 1

    @property
    def generation(self) -> str:
        return self._call(self._backend.moment()).generation

    def read(self, product_id: str) -> Row | None:
        return self._call(self._backend.product(product_id))[0]

    def page(self, offset: int, limit: int) -> list[Row]:
        most = min(limit, self._backend.switches.page_limit)
        return self._call(self._backend.page(offset, most)).rows

    def page_after(self, product_id: str | None, limit: int) -> list[Row]:
        most = min(limit, self._backend.switches.page_limit)
        return self._call(self._backend.page_after(product_id, most)).rows

    def everything(self) -> list[Row]:
        return self._call(self._backend.everything()).rows

    def bucket(self, bucket: int, buckets: int) -> list[Row]:
        return self._call(self._backend.bucket(bucket, buckets)).rows

    def digest(self, buckets: int) -> tuple[list[int], list[str]]:
        digest = self._call(self._backend.digest(buckets))
        return digest.rows, digest.sums

    def events(self, offset: int, limit: int, now: float) -> EventPage:
        return self._call(self._backend.events(offset, limit, now)).page

    def update(self, update: Update, now: float) -> Answer:
        return self._write(update, now)

    def create(self, attributes: Row, now: float) -> Answer:
        return self._write(Creation(attributes), now)

    def set(self, attributes: Row, now: float) -> Answer:
        return self._write(Setting(attributes), now)

    def delete(self, product_id: str, now: float) -> Answer:
        return self._write(Deletion(product_id), now)

    def write_all(self, operations: Sequence[Operation], now: float) -> list[Answer]:
        return self._call(self._backend.write(operations, now)).answers

    def _write(self, operation: Operation, now: float) -> Answer:
        return self.write_all([operation], now)[0]

    def lose_next(self, count: int) -> None:
        self._call(self._backend.lose_next(count))

    def lie(self, product_id: str, attributes: Row | None) -> None:
        self._call(self._backend.lie(product_id, attributes))

    def forget_log(self) -> None:
        self._call(self._backend.forget_log())

    def forget_keys(self) -> None:
        self._call(self._backend.forget_keys())

    def begin_generation(self, name: str) -> None:
        self._call(self._backend.begin_generation(name))

    def backup(self) -> dict[str, Any]:
        return self._call(self._backend.backup())

    def restore(self, backup: dict[str, Any], generation: str) -> None:
        self._call(self._backend.restore(backup, generation))

    def wipe(self, generation: str) -> None:
        self._call(self._backend.wipe(generation))


class BlockingCentral:
    """The API in front of any backend, with the methods of `Central`."""

    def __init__(self, loop: Loop, backend: Backend, api: Api) -> None:
        self._loop = loop
        self._backend = backend
        self._api = api

    def answer(self, request: Request, now: float) -> Reply | Held:
        return self._loop.call(self._api.reply(request, now))

    def release(self, held: Held, now: float) -> Reply:
        return self._loop.call(self._api.end(held, now))

    def poll(self, held: Held, now: float) -> Reply | None:
        async def poll() -> Reply | None:
            return self._api.poll(held, now)

        return self._loop.call(poll())

    def strike(self, route: Route) -> list[Fault]:
        return self._loop.call(self._backend.strike(route))


def a_central(
    postgres: Postgres, switches: Switches, keys: AccessKeys, new_name: Callable[[], str]
) -> tuple[BlockingCentral, BlockingLedger]:
    """Return a Central on a ledger of its own, and that ledger."""
    backend = postgres.backend(switches, new_name)
    api = Api(backend, keys=keys, new_name=new_name)
    loop = postgres.loop
    return BlockingCentral(loop, backend, api), BlockingLedger(loop, backend)
