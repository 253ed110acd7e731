"""Processes of Central on one database show the same fleet, whichever a store has told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
import orjson
import psycopg
import pytest

from central_stub.fleet.reports import Reports
from central_stub.postgres.database import Database
from central_stub.postgres.reports import SharedReports
from central_stub.server import running
from central_stub.settings import read_settings
from tests.harness.background import in_background
from tests.harness.postgres import Postgres
from tests.unit.central_stub.test_fleet import kept, report

NOW = 1_750_000_000.0


@asynccontextmanager
async def databases(url: str, count: int) -> AsyncIterator[list[Database]]:
    async with AsyncExitStack() as stack:
        opened = [Database(url) for _ in range(count)]
        for each in opened:
            await each.open()
            stack.push_async_callback(each.close)
        yield opened


def shown(reports: Reports) -> dict[tuple[str, str], float]:
    return {each.key: round(each.received_at, 1) for each in reports}


async def test_each_process_shows_what_any_was_told(postgres: Postgres) -> None:
    """By the clock of the one that shows it: another's may be wrong by an hour."""
    async with databases(postgres.empty_database(), 2) as (one, two):
        first, second = Reports(), Reports()
        right = SharedReports(one, "", first, lambda: NOW)
        wrong = SharedReports(two, "", second, lambda: NOW + 3600.0)
        other = SharedReports(two, "acme", Reports(), lambda: NOW)
        first.take(kept("shop-1", NOW, lag=3))
        second.take(kept("shop-2", NOW + 3600.0, lag=None))
        for _ in range(2):
            for each in (right, wrong, other):
                await each.look()

        assert {"shop-1": 3, "shop-2": None} == {each.store_id: each.lag for each in first}
        assert all(abs(NOW - each.received_at) < 5.0 for each in first)
        assert {"shop-1": 3, "shop-2": None} == {each.store_id: each.lag for each in second}
        assert all(abs(NOW + 3600.0 - each.received_at) < 5.0 for each in second)
        assert 0 == len(other._reports)


async def test_a_store_that_goes_on_is_heard_of_again(postgres: Postgres) -> None:
    async with databases(postgres.empty_database(), 2) as (one, two):
        now = NOW
        first, second = Reports(), Reports()
        here = SharedReports(one, "", first, lambda: now)
        there = SharedReports(two, "", second, lambda: now)
        for _ in range(3):
            first.take(kept("shop-1", now))
            await here.look()
            await there.look()
            await asyncio.sleep(0.01)

        [seen] = second
        assert abs(now - seen.received_at) < 5.0


async def test_a_start_reads_what_was_reported_before(postgres: Postgres) -> None:
    """So a store that has been silent since stays known."""
    async with databases(postgres.empty_database(), 2) as (one, two):
        first, second = Reports(), Reports()
        here = SharedReports(one, "", first, lambda: NOW)
        for number in range(300):
            first.take(kept(f"shop-{number}", NOW - 900.0))
        await here.look()
        await SharedReports(two, "", second, lambda: NOW).look()

        assert 300 == len(second)
        assert all(880.0 < NOW - each.received_at < 920.0 for each in second)


async def test_a_store_that_was_forgotten_is_forgotten_everywhere(postgres: Postgres) -> None:
    """Unless it reports again."""
    async with databases(postgres.empty_database(), 2) as (one, two):
        first, second = Reports(), Reports()
        here = SharedReports(one, "", first, lambda: NOW)
        there = SharedReports(two, "", second, lambda: NOW)
        first.take(kept("shop-1", NOW - 60.0))
        await here.look()
        await there.look()
        second.forget("shop-1")
        await there.look()
        await here.look()

        assert (0, 0) == (len(first), len(second))
        first.take(kept("shop-1", NOW))
        await here.look()
        await there.look()
        assert {"shop-1"} == {each.store_id for each in second}


async def test_reports_wait_while_the_database_is_away(postgres: Postgres) -> None:
    """They are kept here, and told when it is back."""
    async with databases(postgres.empty_database(), 1) as (only,):
        reports = Reports()
        shared = SharedReports(only, "", reports, lambda: NOW)
        reports.take(kept("shop-1", NOW))
        async with only.connection() as connection:
            await connection.execute("ALTER TABLE central.reports RENAME TO away")
            with pytest.raises(psycopg.Error):
                await shared.look()
            assert 1 == len(reports.taken)
            await connection.execute("ALTER TABLE central.away RENAME TO reports")
        await shared.look()
        rows = await only.read("SELECT store_id FROM central.reports", {})
        assert [("shop-1",)] == [tuple(row) for row in rows]


async def test_reports_for_which_there_is_no_room_do_not_end_the_sharing(
    postgres: Postgres,
) -> None:
    """They are left out; what comes here is told on, and who is known already is heard of."""
    async with databases(postgres.empty_database(), 2) as (one, two):
        first, second = Reports(), Reports(most=2)
        here = SharedReports(one, "", first, lambda: NOW)
        there = SharedReports(two, "", second, lambda: NOW)
        second.take(kept("shop-0", NOW - 90.0))
        for number in range(4):
            first.take(kept(f"shop-{number}", NOW - 10.0 * number))
        await here.look()
        async with in_background(there.run()):
            async with asyncio.timeout(20):
                while len(second) < 2 or second.taken:  # noqa: ASYNC110 (this loop's)
                    await asyncio.sleep(0.01)
            second.take(kept("shop-0", NOW))
            async with asyncio.timeout(20):
                while second.taken:  # noqa: ASYNC110 (this loop's)
                    await asyncio.sleep(0.01)
        await here.look()

        assert 2 == len(second)
        assert NOW == max(each.received_at for each in first if each.store_id == "shop-0")


async def test_two_served_centrals_show_one_fleet(postgres: Postgres) -> None:
    settings = read_settings(_env_file=None, port=0, database=postgres.empty_database())
    async with (
        running(settings) as one,
        running(settings) as two,
        httpx.AsyncClient(headers={"X-API-Key": "admin-demo"}, trust_env=False) as client,
    ):
        url = f"{one.url}/v1/stores/shop-1/report"
        assert 200 == (await client.put(url, content=orjson.dumps(report()))).status_code
        async with asyncio.timeout(20):
            while True:
                fleet = (await client.get(f"{two.url}/v1/admin/stores")).json()
                if fleet["stores"]:
                    break
                await asyncio.sleep(0.05)
        assert ["shop-1"] == [each["storeId"] for each in fleet["stores"]]
