"""What happens when Central's PostgreSQL fails, on the real engine: the table of docs/chain.md."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx
import orjson
import pytest
from pydantic import SecretStr

from central_stub.postgres.temporary import NoPostgres, TemporaryServer
from central_stub.postgres.upkeep import migrate
from central_stub.server import Running, running
from central_stub.settings import Settings
from central_stub.wire import Reply, Request

pytestmark = pytest.mark.timeout(180)

REPORT = {
    "process": "a1",
    "version": "0.1.0",
    "uptimeSeconds": 100.0,
    "state": {"name": "live", "seconds": 90.0},
}
NUMBERS = itertools.count(1)
SETTINGS = {"fsync": "off", "wal_level": "replica"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[TemporaryServer]:
    try:
        started = TemporaryServer(SETTINGS)
    except NoPostgres as problem:
        pytest.skip(str(problem))
    with started:
        yield started


@pytest.fixture
def server(cluster: TemporaryServer) -> Iterator[TemporaryServer]:
    """The primary, which a test may end in any way."""
    yield cluster
    if not cluster.is_running:
        cluster.start()


@pytest.fixture
def replica(server: TemporaryServer) -> Iterator[TemporaryServer]:
    """It follows the primary, from the start of the test on."""
    copy = TemporaryServer(SETTINGS)
    try:
        copy.create_as_replica(server)
        copy.start()
        yield copy
    finally:
        copy.remove()


@dataclass
class Chain:
    """Two processes of Central, which store calls ask in turn."""

    centrals: list[Running]
    sales: int = 0

    async def ask(self, method: str, path: str, body: Any = None, *, at: int = 0) -> Reply:
        sent = b"" if body is None else orjson.dumps(body)
        return await self.centrals[at].reply(Request(method, path, "admin-demo", sent))

    async def create(self) -> None:
        body = {"products": [{"productId": "P1", "available": 100}]}
        assert 200 == (await self.ask("POST", "/v1/admin/products/create", body)).status

    async def sell(self, version: int, key: str, *, at: int = 0) -> Reply:
        update = {"productId": "P1", "delta": -1, "version": version, "idempotencyKey": key}
        return await self.ask("POST", "/v1/inventory/updates", update, at=at)

    async def page(self, *, at: int = 0) -> tuple[str, int, int]:
        """The generation, the head, and the version of P1; asked until it is answered."""
        async with asyncio.timeout(60):
            while True:
                reply = await self.ask("GET", "/v1/inventory", at=at)
                if reply.status == 200:
                    body = orjson.loads(reply.body)
                    (row,) = body["products"]
                    return body["generation"], body["eventOffset"], row["version"]
                await asyncio.sleep(0.1)


@pytest.fixture
async def chain(server: TemporaryServer, request: pytest.FixtureRequest) -> AsyncIterator[Chain]:
    """Both processes know the primary, and the replica if the test has one."""
    name = f"central_{next(NUMBERS)}"
    await asyncio.to_thread(server.query, f"CREATE DATABASE {name}")
    await migrate(server.url(name))
    folders = [server.folder]
    if "replica" in request.fixturenames:
        folders.append(request.getfixturevalue("replica").folder)
    hosts = quote(",".join(map(str, folders)))
    url = f"postgresql://postgres@/{name}?host={hosts}&target_session_attrs=read-write"
    settings = Settings(_env_file=None, port=0, database=SecretStr(url))
    async with AsyncExitStack() as stack:
        chain = Chain([await stack.enter_async_context(running(settings)) for _ in range(2)])
        await chain.create()
        yield chain


def until_caught_up(replica: TemporaryServer, primary: TemporaryServer) -> None:
    """Return when a replica has all that was committed so far."""
    where = primary.query("SELECT pg_current_wal_lsn()")
    ends_at = time.monotonic() + 60
    while replica.query(f"SELECT pg_last_wal_replay_lsn() >= '{where}'") != "t":
        assert time.monotonic() < ends_at
        time.sleep(0.05)


async def test_while_postgresql_is_away_nothing_is_said_that_is_not_known(
    server: TemporaryServer, chain: Chain
) -> None:
    """503 with Retry-After; events that are in memory are answered. Afterwards it goes on by
    itself, in the same generation, and a write that was not answered is applied once. The fleet is
    shown meanwhile."""
    before = await chain.page()
    report = REPORT | {"position": {"generation": before[0], "offset": 0}}
    assert 200 == (await chain.ask("PUT", "/v1/stores/shop-1/report", report)).status
    poll = await chain.ask("GET", "/v1/inventory/events?offset=1")
    await asyncio.to_thread(server.kill)

    refused = [
        await chain.ask("GET", "/v1/inventory/P1"),
        await chain.ask("GET", "/v1/inventory/events?offset=2&wait=20"),
        await chain.sell(1, "k1"),
        await chain.ask("GET", "/health"),
    ]
    remembered = await chain.ask("GET", "/v1/inventory/events?offset=1")
    stores = await chain.ask("GET", "/v1/admin/stores")
    async with httpx.AsyncClient(trust_env=False) as client:
        metrics = await client.get(f"{chain.centrals[0].url}/metrics")
    await asyncio.to_thread(server.start)
    after = await chain.page()
    sold = [await chain.sell(1, "k1", at=at) for at in (0, 1)]

    assert [(503, "1")] * 4 == [(each.status, each.headers["Retry-After"]) for each in refused]
    assert (200, poll.body) == (remembered.status, remembered.body)
    [shop] = orjson.loads(stores.body)["stores"]
    assert ("shop-1", 1, 200) == (shop["storeId"], shop["lag"], metrics.status_code)
    assert before == after
    assert [200, 200] == [each.status for each in sold]
    assert (before[0], 2, 2) == await chain.page(at=1)


async def test_a_write_under_way_survives_a_restart_of_postgresql(
    server: TemporaryServer, chain: Chain
) -> None:
    """It is repeated by Central, and applied once."""
    for number in range(5):
        key, version = f"k{number}", number + 1
        selling = [asyncio.create_task(chain.sell(version, key, at=at)) for at in (0, 1)]
        await asyncio.sleep(0.002 * number)
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        for at, task in enumerate(selling):
            reply = await task
            if reply.status != 200:
                assert reply.status in {500, 503}
                await chain.page(at=at)
                reply = await chain.sell(version, key, at=at)
            assert (200, version + 1) == (reply.status, orjson.loads(reply.body)["newVersion"])
    assert (6, 6) == (await chain.page())[1:]


async def test_a_restored_backup_begins_a_new_generation(
    server: TemporaryServer, chain: Chain
) -> None:
    """The processes that answered what is lost notice it; both show one new name."""
    backup = server.folder / "backup"
    await chain.sell(1, "k1")
    await asyncio.to_thread(server.stop)
    shutil.copytree(server.data, backup)
    await asyncio.to_thread(server.start)
    await chain.page()
    await chain.sell(2, "k2")
    before = await chain.page(at=1)
    await asyncio.to_thread(server.stop)
    shutil.rmtree(server.data)
    backup.rename(server.data)
    server.own_data()
    await asyncio.to_thread(server.start)

    after = [await chain.page(at=at) for at in (0, 1, 0)]

    assert (3, 3) == before[1:]
    assert [(2, 2)] * 3 == [each[1:] for each in after]
    assert before[0] not in {each[0] for each in after}
    assert 1 == len({each[0] for each in after})


async def test_a_replica_with_everything_keeps_the_generation(
    server: TemporaryServer, replica: TemporaryServer, chain: Chain
) -> None:
    """Central finds it by itself, and goes on."""
    await chain.sell(1, "k1")
    before = await chain.page(at=1)
    await asyncio.to_thread(until_caught_up, replica, server)
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(replica.promote)

    assert before == await chain.page()
    assert 200 == (await chain.sell(2, "k2", at=1)).status
    assert (before[0], 3, 3) == await chain.page()


async def test_a_replica_that_lacks_the_end_begins_a_new_generation(
    server: TemporaryServer, replica: TemporaryServer, chain: Chain
) -> None:
    """Also where other sales have taken the lost offsets before a process looks."""
    await chain.sell(1, "k1")
    await asyncio.to_thread(until_caught_up, replica, server)
    await asyncio.to_thread(replica.stop)
    await chain.sell(2, "lost-1")
    await chain.sell(3, "lost-2")
    before = [await chain.page(at=at) for at in (0, 1)]
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(replica.start)
    await asyncio.to_thread(replica.promote)

    after = [await chain.page(at=at) for at in (0, 1, 0)]

    assert [(4, 4)] * 2 == [each[1:] for each in before]
    assert [(2, 2)] * 3 == [each[1:] for each in after]
    assert before[0][0] not in {each[0] for each in after}
    assert 1 == len({each[0] for each in after})
    again = await chain.sell(2, "lost-1", at=1)
    assert (200, 3) == (again.status, orjson.loads(again.body)["newVersion"])
