"""The status documents, the state by name, and the age.

The whole sync status in many situations is in tests/golden/answers.
"""

from __future__ import annotations

import asyncio
import logging
import math
from datetime import UTC, datetime
from typing import Any

import pytest

from store_cache.api.content.clock import short_duration
from store_cache.api.content.defects import DEFECT_SECONDS
from store_cache.api.content.documents import Health
from store_cache.api.content.status import DOUBTFUL_SHOWN, megabytes, resident_bytes
from store_cache.model.change import PendingRefetch, RefetchReason
from store_cache.writes.write import Adjustment, Write, WriteError
from tests.harness.central import LedgerTransport
from tests.harness.clock import NOON, Clock
from tests.harness.faulty_directory import FaultyDirectory
from tests.harness.store import RunningStore, a_store
from tests.harness.virtual_time import in_virtual_time

CHECKS = ("catalogue", "central", "freshness", "writes", "disk")


def since(store: RunningStore) -> str:
    return str(store.status["state"]["since"])


def moment(seconds: float) -> str:
    """Return the moment so many seconds after the start, to the millisecond."""
    at = datetime.fromtimestamp(NOON + round(seconds, 3), UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03}Z"


# -- the documents -----------------------------------------------------------------------------


@in_virtual_time
async def test_the_statistics_of_the_cache() -> None:
    """[P1] The fields of the contract, with sizes in megabytes and a readable uptime."""
    async with a_store() as store:
        await store.until("live")
        await asyncio.sleep(5430.0)
        stats: dict[str, Any] = dict(store.parts.status.cache_stats())
        memory = stats.pop("memoryUsage")

        assert {
            "totalProducts": 3,
            "cacheSize": "0.0MB",
            "lastSyncTime": store.status["lastSyncTime"],
            "lastEventOffset": 3,
            "initializedAt": moment(0),
            "uptime": "1h30m30s",
        } == stats
        assert {"allocated", "inUse"} == set(memory)
        assert "0.0MB" == memory["inUse"]


@in_virtual_time
async def test_a_healthy_store_says_so() -> None:
    """[B3] Every check is ok, and no request goes to Central."""
    async with a_store() as store:
        await store.until("live")
        asked = len(store.central.asked)
        health = store.parts.status.health()

        assert {
            "status": "healthy",
            "service": "store-cache",
            "version": "0.1.0",
            "timestamp": moment(0.001),
            "uptime": "0.0s",
            "checks": {name: {"status": "ok"} for name in CHECKS},
        } == health
        assert asked == len(store.central.asked)


@in_virtual_time
async def test_each_problem_degrades_its_own_check() -> None:
    """[B3] [D5] First there is no catalogue and no Central, then the disk is full. Each check that
    fails names its cause."""
    central = LedgerTransport(Clock())
    central.cut()
    async with a_store(central=central) as store:
        await asyncio.sleep(60.0)
        first = store.parts.status.health()
        central.is_cut = False
        await store.until("live")
        store.disk.room = 0
        central.sell("P-1")
        await asyncio.sleep(1.0)
        second = store.parts.status.health()

    assert ("degraded", "degraded") == (first["status"], second["status"])
    assert {"catalogue", "central", "freshness", "writes"} == _degraded(first)
    assert "cannot be reached" in first["checks"]["central"]["problem"]
    assert {"disk"} == _degraded(second)
    assert "No space left" in second["checks"]["disk"]["problem"]


@in_virtual_time
async def test_writes_that_fail_while_the_feed_lives_degrade_the_health() -> None:
    """[B4] W4: two of 24 sales wait for their timeout, and further ones only as the probe; the open
    breaker and writes in doubt are named, until a sale is answered."""
    async with a_store() as store:
        await store.until("live")
        store.central.failing = "updates"
        seconds = []
        for number in range(24):
            store.central.sell("P-2", 1)
            seconds.append(await _fail(store, Write("P-1", -1, 1, f"sale-{number}")))
            await asyncio.sleep(0.1)
        open_breaker = store.parts.status.health()
        status = store.status
        await asyncio.sleep(120.0)
        store.central.failing = None
        answer = await store.parts.forwarder.update(Write("P-3", -1, 1, "another"))
        in_doubt = store.parts.status.health()
        for number in range(24):
            await store.parts.forwarder.update(Write("P-1", -1, 1, f"sale-{number}"))
        settled = store.parts.status.health()

    assert 200 == answer.status
    assert 2 == sum(each > 5.0 for each in seconds)
    assert sum(each == 0.0 for each in seconds) > 15
    assert {"writes"} == _degraded(open_breaker) - {"central"}
    assert "breaker of writes is open" in open_breaker["checks"]["writes"]["problem"]
    assert open_breaker["checks"]["writes"]["problem"] == status["writes"]["problem"]
    assert {"writes"} == _degraded(in_doubt)
    assert "no known outcome" in in_doubt["checks"]["writes"]["problem"]
    assert "healthy" == settled["status"]


@in_virtual_time
async def test_a_defect_that_recurs_is_named_until_it_is_gone_for_a_minute() -> None:
    """[P4] [B4] The sync fails each time it begins again: status and health name the type of the
    error and its message, and nothing of it is taken for a problem of Central."""

    def fail() -> None:
        raise RuntimeError("an index out of range")

    async with a_store() as store:
        await store.until("live")
        update = store.parts.runner.on_advance
        store.parts.runner.on_advance = fail
        store.central.sell("P-1")
        await asyncio.sleep(3600.0)
        failing, status = store.parts.status.health(), store.status
        store.parts.runner.on_advance = update
        await asyncio.sleep(DEFECT_SECONDS - 2.0)
        soon = store.parts.status.health()
        await asyncio.sleep(2.0)
        later = store.parts.status.health()

        named = "event sync met a defect of the store, please report it: "
        assert named + "RuntimeError: an index out of range" == status["errorMessage"]
        assert {"program", "freshness"} == _degraded(failing)
        assert status["errorMessage"] == failing["checks"]["program"]["problem"]
        assert {"program"} == _degraded(soon)
        assert "healthy" == later["status"]
        assert "" == store.status["errorMessage"]
        assert "program" not in later["checks"]


async def _fail(store: RunningStore, write: Write) -> float:
    """Send a write that fails; how many seconds that took."""
    began_at = asyncio.get_running_loop().time()
    with pytest.raises(WriteError):
        await store.parts.forwarder.update(write)
    return round(asyncio.get_running_loop().time() - began_at, 3)


@in_virtual_time
async def test_a_store_without_sales_is_healthy_again_once_the_feed_is() -> None:
    """[B4] The outage opened the breaker, and no sale has come since to close it."""
    async with a_store() as store:
        await store.until("live")
        store.central.cut()
        await asyncio.sleep(1.0)
        away = store.parts.status.health()
        store.central.is_cut = False
        await store.until("live")

        assert {"central", "writes"} == _degraded(away)
        assert "open" == store.status["writes"]["breaker"]
        assert "healthy" == store.parts.status.health()["status"]


@in_virtual_time
async def test_one_exchange_that_fails_is_enough_to_leave_live() -> None:
    """[B4] Of any kind, though a poll of the feed is held meanwhile; the next answer ends it."""
    async with a_store() as store:
        await store.until("live")
        store.central.failing = ""
        await asyncio.sleep(1.0)
        before = store.state
        await store.parts.refetcher.refresh("P-1")
        after, health = store.state, store.parts.status.health()
        store.central.failing = None
        await store.parts.refetcher.refresh("P-1")

        assert ("live", "stale", "live") == (before, after, store.state)
        assert {"central"} == _degraded(health)
        assert "answered 503 about product 'P-1'" in health["checks"]["central"]["problem"]


def _degraded(health: Health) -> set[str]:
    checks = health["checks"].items()
    return {name for name, check in checks if check["status"] == "degraded" and check["problem"]}


@in_virtual_time
async def test_a_store_without_a_catalogue_says_why() -> None:
    """[F1] First nobody can be reached, then the first full sync is under way; a sale that names no
    version goes through meanwhile."""
    central = LedgerTransport(Clock(), *(f"P-{number}" for number in range(1500)))
    central.cut()
    async with a_store(central=central) as store:
        await asyncio.sleep(1.0)
        away = store.parts.status.why_no_catalogue()
        central.failing = "offset=999"
        central.is_cut = False
        await store.parts.runner.changed.wait()
        while not store.parts.runner.pages_read:
            await store.parts.runner.changed.wait()
        reading = store.parts.status.why_no_catalogue()
        answer = await store.parts.forwarder.adjust(Adjustment("P-7", -1, "sale"))

    assert "cannot be reached" in away
    assert "its first full sync has read 1000 products so far, in 1 pages" == reading
    assert (200, 9, 2) == (answer.status, answer.body["newQuantity"], answer.body["newVersion"])


# -- states by name (B4) -----------------------------------------------------------------------


@in_virtual_time
async def test_empty_syncing_and_live(caplog: pytest.LogCaptureFixture) -> None:
    """[B4] [B6] Before the first full sync the state is `empty`, during it `syncing`, then `live`.
    Each has its `since` and a line in the log."""
    caplog.set_level(logging.INFO, logger="store_cache")
    central = LedgerTransport(Clock())
    async with a_store(central=central, central_api_key="wrong") as store:
        assert ("empty", moment(0)) == (store.state, since(store))
        await asyncio.sleep(1.0)
        assert "empty" == store.state

    central.may_answer.clear()
    async with a_store(central=central) as store:
        began = store.clock.now()
        await store.until("syncing")
        await asyncio.sleep(3.0)
        status = store.status
        central.may_answer.set()
        await store.until("live")

        assert status["inProgress"]
        assert moment(began - NOON) == status["state"]["since"]
        assert "first page" == status["fullSync"]["step"]
        assert ["first start"] == status["fullSync"]["reasons"]
        assert 0 == status["fullSync"]["products"]
        assert moment(began - NOON + 3.001) == since(store)
    assert "sync status: syncing, was empty" in caplog.messages
    assert "sync status: live, was syncing" in caplog.messages


async def _files(central: LedgerTransport) -> FaultyDirectory:
    """Return the files of a store that was in sync until now."""
    async with a_store(central=central) as store:
        await store.until("live")
        return store.disk


@in_virtual_time
async def test_cached_until_central_confirms_it() -> None:
    """[B4] [D7] A catalogue from disk is `cached` until the feed shows that nothing is missing. Its
    age counts from what the process before recorded, then from when Central was asked."""
    central = LedgerTransport(Clock())
    folder = (await _files(central)).after_kill()
    await asyncio.sleep(7.0)
    central.may_answer.clear()
    async with a_store(folder, central=central) as store:
        await asyncio.sleep(2.0)
        before = (store.state, store.parts.freshness.measure().age_seconds)
        central.may_answer.set()
        await store.until("live")

        assert ("cached", 9.0) == (before[0], round(before[1], 2))
        assert 2.0 == round(store.parts.freshness.measure().age_seconds, 2)


@in_virtual_time
async def test_stale_and_fallback_when_central_goes_away() -> None:
    """[B4] [B1] An old catalogue is `stale`; after five failures in a row the state is `fallback`,
    with cause and `since` of the breaker; then `live` again."""
    async with a_store(stale_after_seconds=1) as store:
        await store.until("live")
        store.central.cut()
        await store.until("stale")
        stale = store.status
        await store.until("fallback")
        fallback = store.status
        store.central.is_cut = False
        await store.until("live")

        assert 0 < stale["eventSync"]["consecutiveFailures"] < 5
        assert not stale["eventSync"]["fallbackMode"]
        assert 5 == fallback["eventSync"]["consecutiveFailures"]
        assert fallback["eventSync"]["fallbackMode"]
        assert "open" == fallback["breaker"]["state"]
        assert "cannot be reached" in fallback["breaker"]["cause"]
        assert moment(0.001) == fallback["breaker"]["since"]
        assert fallback["errorMessage"] == fallback["breaker"]["cause"]
        assert {"state": "closed", "cause": "", "since": None} == store.status["breaker"]


@in_virtual_time
async def test_degraded_while_the_disk_fails() -> None:
    """[B4] [D5] `degraded` overrides every other name; the status says what a restart loses."""
    async with a_store() as store:
        await store.until("live")
        store.disk.room = 0
        await asyncio.sleep(4.0)
        store.central.sell("P-1")
        await asyncio.sleep(1.0)
        status = store.status
        headers = store.parts.freshness.measure().headers
        store.disk.room = None
        await asyncio.sleep(40.0)

        assert "degraded" == status["state"]["name"]
        assert moment(4.001) == status["state"]["since"] == status["disk"]["since"]
        assert not status["durable"]
        assert "No space left" in status["disk"]["problem"]
        assert "lost if the store restarts" in status["disk"]["promise"]
        assert "not-durable" in headers["Cache-Status"]
        assert "live" == store.state


# -- the age (B5) ------------------------------------------------------------------------------


@in_virtual_time
async def test_the_age_is_infinite_before_the_first_sync() -> None:
    """[B5] Without a catalogue there is no last sync to count from."""
    async with a_store() as store:
        freshness = store.parts.freshness.measure()

        assert math.isinf(freshness.age_seconds)
        assert freshness.is_stale
        assert (None, None, 0) == (
            freshness.last_sync_time,
            freshness.generation,
            freshness.last_offset,
        )


@in_virtual_time
async def test_the_age_counts_also_while_a_poll_is_held() -> None:
    """[B5] On a quiet feed it grows up to `wait`: the answer to a poll, not its sending, proves
    that the store is in sync."""
    async with a_store() as store:
        await store.until("live")
        ages = []
        for _ in range(5):
            ages.append(round(store.parts.freshness.measure().age_seconds))
            await asyncio.sleep(9.0)

        assert [0, 9, 18, 7, 16] == ages
        assert not store.parts.freshness.measure().is_stale


def shown_age(store: RunningStore) -> str:
    return store.parts.freshness.measure().headers["Age"]


@in_virtual_time
async def test_the_age_counts_while_the_disk_is_slow() -> None:
    """[B5] Central showed its state when it was asked, not once it is on disk."""
    async with a_store() as store:
        await store.until("live")
        held = store.disk.hold("append journal-2.jsonl")
        store.central.sell("P-1")
        await held.reached.wait()
        await asyncio.sleep(4.0)
        held.release.set()
        await asyncio.sleep(0.1)

        assert 2 == store.parts.writer.held_version("P-1")
        assert "5" == shown_age(store)


@in_virtual_time
async def test_the_age_counts_while_the_machine_is_suspended() -> None:
    """[B5] The clock of the event loop stands still meanwhile. An answer that was under way is no
    proof of anything since."""
    async with a_store() as store:
        await store.until("live")
        await asyncio.sleep(1.0)
        store.clock.suspended_seconds = 3600.0
        resumed, is_stale = shown_age(store), store.parts.freshness.measure().is_stale
        store.central.sell("P-1")
        await asyncio.sleep(0.1)
        followed = shown_age(store)
        await asyncio.sleep(20.1)

        assert ("3602", True) == (resumed, is_stale)
        assert (2, "3602") == (store.parts.writer.held_version("P-1"), followed)
        assert "1" == shown_age(store)
        assert "live" == store.state


@in_virtual_time
async def test_setting_the_clock_does_not_change_the_age() -> None:
    """[B5] Ages are measured by the clock that never goes back."""
    async with a_store() as store:
        await store.until("live")
        await asyncio.sleep(3.0)
        store.clock.set_by_seconds = -3600.0
        back = store.parts.freshness.measure().age_seconds
        store.clock.set_by_seconds = 3600.0
        forth = store.parts.freshness.measure().age_seconds

        assert (3.0, 3.0) == (round(back, 2), round(forth, 2))


@in_virtual_time
async def test_freshness_is_one_object_while_its_headers_are_the_same() -> None:
    """[B5] `measure` returns one object while its headers stay right; each second of age and each
    event make a new one."""
    async with a_store(stale_after_seconds=3) as store:
        await store.until("live")
        seen = []
        for _ in range(44):
            seen.append(store.parts.freshness.measure())
            await asyncio.sleep(0.1)
        store.central.sell("P-1")
        await asyncio.sleep(0.1)
        seen.append(store.parts.freshness.measure())
        headers = [one.headers for one in {id(one): one for one in seen}.values()]

        # The event came with a poll that began with the first second.
        assert ["1", "2", "3", "4", "5", "5"] == [one["Age"] for one in headers]
        assert [False] * 3 + [True] * 3 == ["stale" in str(one) for one in headers]
        assert seen[-1].last_offset == seen[0].last_offset + 1


@in_virtual_time
async def test_an_age_from_disk_is_never_below_zero() -> None:
    """[B5] Not even if the clock was set back between two processes."""
    central = LedgerTransport(Clock())
    folder = (await _files(central)).after_kill()
    central.clock.set_by_seconds = -3600.0
    central.cut()
    async with a_store(folder, central=central) as store:
        assert 0.0 == store.parts.freshness.measure().age_seconds


# -- parts of the document ---------------------------------------------------------------------


@in_virtual_time
async def test_failing_refetches_are_counted_and_some_listed() -> None:
    """[E5] The status counts pending and failing refetches, and lists at most twenty of them."""
    async with a_store() as store:
        await store.until("live")
        due = store.clock.now() + 100.0
        pending = {
            f"X-{n:03}": PendingRefetch(RefetchReason.UNREADABLE, due, due, n % 2, "answered 500")
            for n in range(100)
        }
        catalogue = store.parts.writer.catalogue
        assert catalogue is not None
        catalogue.pending_refetches.update(pending)
        doubtful = store.status["doubtful"]

        assert (100, 50) == (doubtful["toBeRead"], doubtful["failing"])
        assert DOUBTFUL_SHOWN == len(doubtful["products"])
        assert {
            "productId": "X-001",
            "doubt": "unreadable",
            "problem": "answered 500",
        } == doubtful["products"][0]


@in_virtual_time
async def test_writes_are_counted_by_their_outcome() -> None:
    """[W4] [W1] A write that was answered is remembered; one without an answer is under way, then
    unknown."""
    async with a_store(write_timeout_seconds=2) as store:
        await store.until("live")
        await store.parts.forwarder.update(Write("P-1", -1, 1, "first"))
        store.central.may_answer.clear()
        waiting = asyncio.ensure_future(store.parts.forwarder.update(Write("P-2", -1, 1, "second")))
        await asyncio.sleep(1.0)
        meanwhile = store.status["writes"]
        await asyncio.wait([waiting])
        after = store.status["writes"]

        assert (1, 1, 1) == (
            meanwhile["inFlight"],
            meanwhile["underWay"],
            meanwhile["remembered"],
        )
        assert (0, 0, 1) == (after["inFlight"], after["underWay"], after["unknown"])
        assert waiting.exception() is not None


@in_virtual_time
async def test_a_full_sync_that_has_not_begun_is_shown() -> None:
    """[F6] After a failed full sync the next one is shown with its reasons until it begins."""
    async with a_store(central_api_key="wrong") as store:
        await asyncio.sleep(1.0)
        status = store.status

        assert {"wanted": ["first start"]} == status["fullSync"]
        assert not status["lastSyncSuccess"]
        assert "CENTRAL_API_KEY" in status["errorMessage"]
        assert "CENTRAL_API_KEY" in status["fullSyncs"][0]["problem"]


@in_virtual_time
async def test_full_syncs_are_listed_newest_first() -> None:
    """[F1] Each has its reasons; a forced one returns its own outcome."""
    async with a_store() as store:
        await store.until("live")
        first = await store.parts.runner.force_full_sync(accept=False)
        store.central.cut()
        second = await store.parts.runner.force_full_sync(accept=False)
        runs = store.status["fullSyncs"]

        assert (2, 3) == (first.number, second.number)
        assert (True, False) == (not first.problem, not second.problem)
        assert [3, 2, 1] == [each["number"] for each in runs]
        assert [False, True, True] == [each["success"] for each in runs]
        assert ["on demand"] == runs[0]["reasons"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0.0s"), (1.24, "1.2s"), (59.9, "59.9s"), (250.4, "4m10s"), (5445.0, "1h30m45s")],
)
def test_durations_are_readable(seconds: float, text: str) -> None:
    """As in the contract: `1.2s`, `1h30m45s`."""
    assert text == short_duration(seconds)


def test_sizes_are_in_megabytes() -> None:
    """As in the contract: `2.4MB`; and the memory of the process is found."""
    assert "2.4MB" == megabytes(2_400_000)
    assert resident_bytes() > 1_000_000
