"""Reports to Central: when they are sent, what they say, and that they disturb nothing."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx
import orjson
import pytest

from store_cache.central.client import CentralClient
from store_cache.central.failures import ExchangeBroken, Unreachable
from store_cache.fleet.report import LARGEST_BYTES
from tests.harness.central import LedgerTransport
from tests.harness.clock import Clock
from tests.harness.faulty_directory import FaultyDirectory
from tests.harness.store import RunningStore, a_store
from tests.harness.virtual_time import in_virtual_time

FIRST = 5.0
"""Seconds after the start of the first report: chance is always a half."""

MINUTE = 60.0
CHANGE = 2.5

Answer = Callable[[], httpx.Response]


class Central(LedgerTransport):
    """Notes when each report came, by the loop's clock, and its body. `answer`: what it says in
    place of taking the report; it may raise."""

    def __init__(self, *product_ids: str) -> None:
        super().__init__(Clock(), *product_ids)
        self.reports: list[tuple[float, dict[str, Any]]] = []
        self.paths: list[str] = []
        self.answer: Answer | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        target = request.url.raw_path.decode()
        if not target.startswith("/v1/stores/"):
            return await super().handle_async_request(request)
        body = await request.aread()
        assert len(body) <= LARGEST_BYTES
        now = asyncio.get_running_loop().time()
        self.paths.append(f"{request.method} {target}")
        self.reports.append((now, orjson.loads(body)))
        if self.answer is not None:
            return self.answer()
        return await super().handle_async_request(request)

    @property
    def told_at(self) -> list[float]:
        return [round(time, 3) for time, _ in self.reports]

    @property
    def last(self) -> dict[str, Any]:
        return self.reports[-1][1]


@asynccontextmanager
async def reporting(
    central: Central | None = None, **settings: Any
) -> AsyncIterator[tuple[RunningStore, Central]]:
    central = central or Central()
    given = {"fleet_report": True} | settings
    async with a_store(central=central, **given) as store:
        yield store, central


def answering(status: int, **headers: str) -> Answer:
    return lambda: httpx.Response(status, json={"code": "no"}, headers=headers)


def failing(error: Exception) -> Answer:
    def fail() -> httpx.Response:
        raise error

    return fail


@in_virtual_time
async def test_a_store_reports_soon_after_its_start_and_then_each_minute() -> None:
    """[B7] The states that it passes through while it starts are no reports of their own."""
    async with reporting() as (_, central):
        await asyncio.sleep(FIRST + 2 * MINUTE + 1)

        assert [FIRST - CHANGE, FIRST - CHANGE + MINUTE, FIRST - CHANGE + 2 * MINUTE] == (
            central.told_at
        )
        assert {"PUT /v1/stores/store-s1/report"} == set(central.paths)


@in_virtual_time
async def test_a_report_says_how_the_store_is() -> None:
    async with reporting(offline_writes="queue") as (store, central):
        await store.until("live")
        central.sell()
        await asyncio.sleep(FIRST + MINUTE)
        report = central.last

        assert "live" == report["state"]["name"]
        assert {"generation": "g-1", "offset": central.ledger.head} == report["position"]
        assert 3 == report["products"]
        assert "" == report["problem"]
        assert report["refused"] is None
        assert ["first start"] == report["lastFullSync"]["reasons"]
        assert report["lastFullSync"]["success"]
        assert {"queued", "sending", "inDoubt", "parked", "oldestSeconds"} == set(report["outbox"])
        assert 0 <= report["ageSeconds"] <= 20
        assert MINUTE <= report["uptimeSeconds"] <= FIRST + MINUTE


@in_virtual_time
async def test_a_change_of_the_state_is_reported_at_once_if_it_lasts() -> None:
    """The line breaks, which cannot be told; its return is, before the minute is over."""
    async with reporting() as (store, central):
        await store.until("live")
        await asyncio.sleep(FIRST)
        central.cut()
        await asyncio.sleep(MINUTE / 3)
        assert "fallback" == store.state
        central.is_cut = False
        taken = len(central.reports)
        await store.until("live")
        back_at = asyncio.get_running_loop().time()
        await asyncio.sleep(CHANGE + 0.1)

        assert "live" == central.last["state"]["name"]
        assert len(central.reports) > taken
        assert back_at <= central.told_at[-1] <= back_at + CHANGE


@in_virtual_time
async def test_many_changes_are_few_reports() -> None:
    """However often the state changes, there are some seconds between two reports."""
    async with reporting() as (store, central):
        await store.until("live")
        await asyncio.sleep(FIRST)
        for _ in range(30):
            central.failing = "events"
            central.wake()
            store.parts.runner.ask_anew()
            await asyncio.sleep(1.0)
            central.failing = None
            store.parts.runner.wake_after_failure()
            await asyncio.sleep(1.0)

        gaps = [b - a for a, b in zip(central.told_at, central.told_at[1:], strict=False)]
        assert len(gaps) >= 3
        assert min(gaps) >= 4.99


@in_virtual_time
@pytest.mark.parametrize("status", [404, 405])
async def test_a_central_that_takes_none_is_asked_once_an_hour(
    status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """[B7] Whatever the store's state does meanwhile; the log says so once, which is no warning."""
    caplog.set_level(logging.INFO)
    async with reporting() as (store, central):
        central.answer = answering(status)
        await store.until("live")
        await asyncio.sleep(MINUTE)
        central.cut()
        await asyncio.sleep(MINUTE)
        central.is_cut = False
        await asyncio.sleep(3 * 3600.0)

        gaps = [b - a for a, b in zip(central.told_at, central.told_at[1:], strict=False)]
        assert [3600.0, 3600.0, 3600.0] == gaps[:3]
        central.answer = None
        await asyncio.sleep(3600.0 + 3 * MINUTE)
        assert MINUTE == central.told_at[-1] - central.told_at[-2]
        said = [each for each in caplog.records if "fleet report" in each.message]
        assert ["INFO"] == [each.levelname for each in said]


@in_virtual_time
@pytest.mark.parametrize(
    "answer",
    [
        answering(500),
        answering(503, **{"Retry-After": "600"}),
        answering(429, **{"Retry-After": "600", "X-RateLimit-Limit": "1"}),
        answering(401),
        answering(403),
        answering(404),
        answering(400),
        answering(302, Location="/elsewhere"),
        failing(httpx.ReadError("reset")),
        failing(httpx.ReadTimeout("silent")),
    ],
    ids=["500", "503", "429", "401", "403", "404", "400", "302", "broken", "silent"],
)
async def test_how_central_answers_a_report_says_nothing_of_the_line(answer: Answer) -> None:
    """[B7] The store stays live and healthy, its feed goes on, and its limit is untouched."""
    async with reporting() as (store, central):
        await store.until("live")
        central.answer = answer
        await asyncio.sleep(FIRST + 2 * MINUTE)

        assert central.reports
        assert "live" == store.state
        assert "healthy" == store.parts.status.health()["status"]
        assert store.parts.status.sync_status()["errorMessage"] == ""
        client = store.parts.runner._central
        assert client.rate_limit.limit is None  # type: ignore[attr-defined]
        assert asyncio.get_running_loop().time() > client.rate_limit.paused_until  # type: ignore[attr-defined]
        central.sell()
        await asyncio.sleep(1.0)
        assert central.ledger.head == store.status["eventSync"]["lastEventOffset"]


@in_virtual_time
async def test_a_refused_connection_is_a_failure_of_the_line() -> None:
    """[B4] [B7] Whatever it was for: the next write would meet it, too."""
    async with reporting() as (store, central):
        await store.until("live")
        central.answer = failing(httpx.ConnectError("nobody listens there"))
        await asyncio.sleep(FIRST)
        await asyncio.sleep(MINUTE)

        assert "cannot be reached" in store.parts.status.sync_status()["errorMessage"]
        assert "open" == store.status["writes"]["breaker"]


@in_virtual_time
async def test_a_report_that_is_answered_ends_the_failure_of_the_one_before() -> None:
    """[B4] Also if the store asks Central for nothing else: its feed comes over NATS."""
    async with reporting() as (store, central):
        await store.until("live")
        client = cast("CentralClient", store.parts.runner._central)
        client.problem = ""
        central.answer = failing(httpx.ConnectError("nobody listens there"))
        with pytest.raises(Unreachable):
            await client.report("S1", {})
        assert client.problem
        central.answer = answering(503)
        with pytest.raises(ExchangeBroken):
            await client.report("S1", {})
        assert "" == client.problem
        client.problem = "the feed is broken"
        central.answer = answering(204)
        await client.report("S1", {})
        assert "the feed is broken" == client.problem


@in_virtual_time
async def test_a_change_of_the_state_does_not_come_before_central_asked_for() -> None:
    """[B7] A store whose state comes and goes would report every five seconds to a Central that
    limits it."""
    async with reporting() as (store, central):
        central.answer = answering(429, **{"Retry-After": "300"})
        await store.until("live")
        await asyncio.sleep(FIRST)
        [first] = central.told_at
        central.cut()
        await asyncio.sleep(MINUTE)
        central.is_cut = False
        await asyncio.sleep(330.0 - MINUTE)

        assert [first, first + 330.0] == central.told_at


@in_virtual_time
async def test_a_hanging_report_holds_up_nothing() -> None:
    """[B7] It is given up after ten seconds; events go on being applied meanwhile."""
    async with reporting() as (store, central):
        await store.until("live")
        hang, hung = asyncio.Event(), []
        inner = central.handle_async_request

        async def hanging(request: httpx.Request) -> httpx.Response:
            if request.method == "PUT":
                hung.append(request)
                await hang.wait()
            return await inner(request)

        central.handle_async_request = hanging  # type: ignore[method-assign]
        await asyncio.sleep(FIRST)
        for _ in range(3):
            central.sell()
            await asyncio.sleep(0.5)
            assert central.ledger.head == store.status["eventSync"]["lastEventOffset"]
        await asyncio.sleep(MINUTE + 11.0)
        assert len(hung) == 2
        assert "live" == store.state


@in_virtual_time
async def test_what_was_refused_of_centrals_data_is_told() -> None:
    """An event that cannot be read, with its offset and the reason."""
    async with reporting() as (store, central):
        await store.until("live")
        central.nameless.add(central.ledger.head + 1)
        central.sell()
        await asyncio.sleep(FIRST + MINUTE)
        refused = central.last["refused"]

        assert ("event", 4) == (refused["what"], refused["offset"])
        assert refused["reason"]
        assert 0 < refused["secondsAgo"] <= FIRST + MINUTE


@in_virtual_time
async def test_an_unreadable_answer_is_told_once_central_can_be_read_again() -> None:
    async with reporting() as (store, central):
        await store.until("live")
        await asyncio.sleep(FIRST)
        inner = central.handle_async_request

        async def odd(request: httpx.Request) -> httpx.Response:
            if b"events" in request.url.raw_path:
                return httpx.Response(200, json={"events": 7})
            return await inner(request)

        central.handle_async_request = odd  # type: ignore[method-assign]
        central.wake()
        await asyncio.sleep(MINUTE)
        central.handle_async_request = inner  # type: ignore[method-assign]
        await store.until("live")
        await asyncio.sleep(MINUTE)

        assert "answer" == central.last["refused"]["what"]
        assert "cannot be read" in central.last["refused"]["reason"]


@in_virtual_time
async def test_a_catalogue_that_was_refused_is_told() -> None:
    """[F5] Central has lost most products: the store keeps its own."""
    products = [f"P-{number}" for number in range(20)]
    async with reporting(Central(*products), snapshot_min_percent=90) as (store, central):
        await store.until("live")
        for product_id in products[:10]:
            central.ledger.lie(product_id, None)
        store.parts.runner.request_full_sync("a test")
        await asyncio.sleep(2 * MINUTE)
        refused = central.last["refused"]

        assert "catalogue" == refused["what"]
        assert "10" in refused["reason"]
        assert not central.last["lastFullSync"]["success"]


@in_virtual_time
async def test_each_process_has_an_id_of_its_own() -> None:
    """It begins anew with a start, as the uptime does."""
    directory, central = FaultyDirectory(), Central()
    chance = random.Random(3)
    for _ in range(2):
        async with a_store(directory, central=central, chance=chance.random, fleet_report=True):
            await asyncio.sleep(2 * MINUTE)

    first, second = central.reports[0][1], central.last
    assert first["process"] != second["process"]
    assert second["uptimeSeconds"] <= 2 * MINUTE


@in_virtual_time
async def test_a_central_with_a_limit_gets_few_reports() -> None:
    """Reports are the least urgent: under a limit of ten a minute, the feed goes on."""
    async with reporting() as (store, central):
        client = store.parts.runner._central
        await store.until("live")
        client.rate_limit.limited(0.0, 1.0)  # type: ignore[attr-defined]
        client.rate_limit._limit = 10  # type: ignore[attr-defined]
        for number in range(120):
            central.create(f"N-{number}")
            await asyncio.sleep(5.0)

        assert 2 <= len(central.reports) <= 12
        assert store.status["eventSync"]["lastEventOffset"] >= central.ledger.head - 12


@in_virtual_time
async def test_switched_off_it_tells_nothing() -> None:
    async with reporting(fleet_report=False) as (store, central):
        await store.until("live")
        await asyncio.sleep(3 * 3600.0)

        assert store.parts.report is None
        assert [] == central.reports
