"""Long outages, wrong clocks, failing disks and other versions: the part of the failure table of
docs/operations.md that takes long, or that no real disk would do.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any, TypeVar

import orjson
import pytest

from central_stub.switches import Switches
from store_cache.catalogue.apply import NAMELESS
from store_cache.storage.framing import FORMAT, NewerFormat, frame, unframe
from store_cache.sync.backoff import LONGEST_SPACING_SECONDS
from store_cache.writes.circuit_breaker import FIRST_PROBE_SECONDS
from store_cache.writes.write import Adjustment, WriteError
from tests.harness.cache import Cache
from tests.harness.central import LedgerTransport
from tests.harness.clock import Clock
from tests.harness.faulty_directory import FaultyDirectory
from tests.harness.store import RunningStore, a_store

T = TypeVar("T")
MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
LONGEST_PROBE_SECONDS = 30.0
"""So soon after its return Central is asked again; a moment later the store is in sync."""


@asynccontextmanager
async def a_live_store(
    directory: FaultyDirectory | None = None, *, state: str = "live", **settings: Any
) -> AsyncIterator[RunningStore]:
    """A store that has come to `state`."""
    async with a_store(directory, **settings) as store:
        await store.until(state)
        yield store


def now() -> float:
    return asyncio.get_running_loop().time()


def headers_of(store: RunningStore) -> dict[str, str]:
    return dict(store.parts.freshness.measure().headers)


def shown(store: RunningStore, product_id: str) -> int:
    """Return the stock that a till reads."""
    catalogue = store.parts.writer.catalogue
    assert catalogue is not None
    body = catalogue.get(product_id)
    assert body is not None
    return int(orjson.loads(body)["available"])


async def sell(store: RunningStore, key: str) -> int:
    """Sell one piece; return what is left. Raises WriteError."""
    answer = await store.parts.forwarder.adjust(Adjustment("P-1", -1, key))
    return int(answer.body["newQuantity"])


async def refused(store: RunningStore, key: str) -> WriteError:
    with pytest.raises(WriteError) as found:
        await sell(store, key)
    return found.value


async def timed(work: Coroutine[Any, Any, T]) -> tuple[T, float]:
    """Return the result, and how many seconds that took."""
    began_at = now()
    return await work, now() - began_at


async def returns(store: RunningStore) -> float:
    """Connect Central again; return how many seconds pass until the store is live."""
    store.central.is_cut = False
    return await store.until("live")


def reasons(store: RunningStore) -> list[list[str]]:
    """Return the reasons of each successful full sync, the first one first."""
    runs = reversed(store.status["fullSyncs"])
    return [run_["reasons"] for run_ in runs if run_["success"]]


# -- a feed that cannot be read --------------------------------------------------------------------


async def test_two_hours_of_events_that_name_no_product() -> None:
    """[E5] [F6] Central sends one every 20 s, each in place of a sale. The store goes on following
    the feed, and what they hide is shown after the next full sync, at most ten minutes later.
    Central's catalogue is not read more often than that."""
    steps, seconds = 2 * 360, 10.0
    behind, hidden = 0, [0]
    async with a_live_store() as store:
        central = store.central
        for step in range(steps):
            if step % 2 == 0:
                central.nameless.add(central.ledger.head + 1)
                central.sell("P-2", 1)
            central.sell("P-1", 1)
            await asyncio.sleep(seconds)
            is_behind = shown(store, "P-1") != central.stock("P-1")[0]
            behind += is_behind or store.state not in ("live", "syncing")
            is_hidden = shown(store, "P-2") != central.stock("P-2")[0]
            hidden.append(hidden[-1] + 1 if is_hidden else 0)
        full_syncs = sum("inventory?" in target for target in central.asked)

        assert behind < 0.01 * steps
        assert LONGEST_SPACING_SECONDS - 30 <= max(hidden) * seconds <= LONGEST_SPACING_SECONDS + 10
        assert 12 <= full_syncs <= 20
        assert steps // 2 == store.status["eventsSetAside"]["count"]


async def test_a_nameless_event_is_made_up_for_by_the_next_process() -> None:
    """[E5] [P3] The position on disk is past it, so the need of a full sync is there, too."""
    async with a_live_store() as store:
        central = store.central
        await asyncio.sleep(1.0)
        central.failing = "inventory?"
        central.nameless.add(central.ledger.head + 1)
        central.sell("P-2")
        await asyncio.sleep(5.0)
        assert 10 == shown(store, "P-2")
        left = store.disk.after_kill()
    central.failing = None
    async with a_live_store(left, central=central) as store:
        assert [[NAMELESS]] == reasons(store)
        assert 9 == shown(store, "P-2")


# -- without Central ---------------------------------------------------------------------------


async def test_a_minute_without_central() -> None:
    """[B1] [B3] [B5] [W4] Reads go on and say `stale` once Central was away for longer than
    STALE_AFTER_SECONDS. A sale that is the probe is 503 within two seconds, the next one at once,
    with a `Retry-After` of seconds. The return is noticed within five seconds, and the feed goes
    on where it was."""
    async with a_live_store() as store:
        store.central.cut()
        await asyncio.sleep(30.0)
        early = headers_of(store)
        probe, probe_seconds = await timed(refused(store, "sale-1"))
        problem, seconds_of_next = await timed(refused(store, "sale-2"))
        await asyncio.sleep(35.0)
        late, name = headers_of(store), store.state
        seconds = await returns(store)

        assert "store-cache; hit" == early["Cache-Status"]
        assert "store-cache; hit; detail=stale" == late["Cache-Status"]
        assert int(late["Age"]) >= 60
        assert 10 == shown(store, "P-1")
        assert ("central_unavailable", 503) == (problem.code, problem.status)
        assert 0 < (problem.retry_after_seconds or 0) <= 5
        assert 503 == probe.status
        assert (True, 0.0) == (probe_seconds <= FIRST_PROBE_SECONDS, seconds_of_next)
        assert "fallback" == name
        assert seconds <= 5
        assert [["first start"]] == reasons(store)
        assert 9 == await sell(store, "sale-1")


async def test_an_hour_without_central() -> None:
    """[B1] [B3] [B4] Central is probed every 2 to 30 s, less often as time goes on, and a full sync
    is tried every SYNC_INTERVAL_MINUTES, at once after a probe that has failed; after the return
    the store is live within the longest wait, whatever changed meanwhile is shown, and the sale
    that was refused goes through."""
    async with a_live_store() as store:
        before = len(store.central.times)
        store.central.cut()
        await asyncio.sleep(HOUR)
        probes = store.central.times[before:]
        pauses = [b - a for a, b in pairwise(probes) if a > 60.0]
        tried = sum("inventory?" in target for target in store.central.asked[before:])
        name, headers = store.state, headers_of(store)
        problem = await refused(store, "sale-1")
        store.central.sell("P-2")
        seconds = await returns(store)

        assert 2.0 <= min(pause for pause in pauses if pause)
        assert max(pauses) <= LONGEST_PROBE_SECONDS
        assert 200 <= len(probes) <= 300
        assert 10 <= tried <= 13
        assert ("fallback", "store-cache; hit; detail=stale") == (
            name,
            headers["Cache-Status"],
        )
        assert HOUR - 30 <= int(headers["Age"]) <= HOUR + 30
        assert (503, True) == (problem.status, (problem.retry_after_seconds or 99) <= 5)
        assert seconds <= LONGEST_PROBE_SECONDS + 1
        assert 9 == shown(store, "P-2")
        assert 9 == await sell(store, "sale-1")


async def test_a_sale_that_gets_through_ends_the_wait() -> None:
    """[W4] [B4] After hours the next probe may be half a minute away. If Central answers a till's
    sale before it, the feed is polled at once."""
    async with a_live_store() as store:
        store.central.cut()
        await asyncio.sleep(HOUR)
        while store.parts.runner.sleeps_until is None:
            await store.parts.runner.changed.wait()
        store.central.is_cut = False
        await sell(store, "sale-1")
        seconds = await store.until("live")

        assert seconds < 1


async def test_a_day_without_central() -> None:
    """[B1] [D7] [E4] The same after a day: the feed goes on from the position, as long as Central's
    log still has it. Where it has not, there is one full sync and no more."""
    async with a_live_store() as store:
        store.central.cut()
        await asyncio.sleep(DAY)
        store.central.sell("P-1")
        served, name = shown(store, "P-1"), store.state
        seconds = await returns(store)
        before = reasons(store)
        store.central.cut()
        await asyncio.sleep(MINUTE)
        store.central.ledger.switches = Switches(event_limit=10)
        for _ in range(8):
            store.central.sell("P-2")
            store.central.sell("P-3")
        await returns(store)
        await asyncio.sleep(MINUTE)
        later = [reason.partition(":")[0] for [reason] in reasons(store)]

        assert (10, "fallback") == (served, name)
        assert 9 == shown(store, "P-1")
        assert 2 == shown(store, "P-2") == shown(store, "P-3")
        assert seconds <= LONGEST_PROBE_SECONDS + 1
        assert [] == before  # all of the last ten were tries
        assert ["the position is gone (410)"] == later


@pytest.mark.parametrize("known", [True, False], ids=["within the retention", "beyond it"])
async def test_the_answer_to_a_key_after_a_day(known: bool) -> None:
    """[W1] Within KEY_RETENTION_HOURS a repeat gets its first answer, Central being away or not;
    beyond it the key is a new one, and 503 says that nothing was sent."""
    async with a_live_store(key_retention_hours=26 if known else 24) as store:
        left = await sell(store, "sale-1")
        store.central.cut()
        await asyncio.sleep(MINUTE)
        store.clock.set_by_seconds = DAY + HOUR
        if known:
            assert left == await sell(store, "sale-1")
        else:
            assert 503 == (await refused(store, "sale-1")).status


# -- a clock that is wrong ---------------------------------------------------------------------


@pytest.mark.parametrize("jump", [HOUR, -HOUR], ids=["ahead", "behind"])
async def test_a_clock_set_by_an_hour_while_the_store_runs(jump: float) -> None:
    """[B5] [B1] Age, waits and probes are measured by another clock: nothing changes, with Central
    there or away, and a key is still known."""
    async with a_live_store() as store:
        left = await sell(store, "sale-1")
        store.clock.set_by_seconds = jump
        store.central.sell("P-2")
        await asyncio.sleep(5.0)
        age, name = headers_of(store)["Age"], store.state
        store.central.cut()
        await asyncio.sleep(MINUTE)
        away = headers_of(store)["Age"]
        seconds = await returns(store)

        assert ("live", 9) == (name, shown(store, "P-2"))
        assert int(age) <= 6
        assert 55 <= int(away) <= 70
        assert seconds <= 5
        assert left == await sell(store, "sale-1")
        assert [["first start"]] == reasons(store)


@pytest.mark.parametrize(
    ("jump", "age", "status"),
    [
        pytest.param(HOUR, 3600, "store-cache; hit; detail=stale", id="ahead"),
        pytest.param(-HOUR, 0, "store-cache; hit", id="behind"),
    ],
)
async def test_a_clock_that_is_wrong_by_an_hour_at_start(
    jump: float, age: int, status: str
) -> None:
    """[B5] [D7] Until Central's first answer the age is the difference of two wall clocks: an hour
    too much, or none. From the first answer on it is right; keys are known, no full sync runs."""
    async with a_live_store() as store:
        left = await sell(store, "sale-1")
        disk, central = store.disk, store.central
    central.clock.set_by_seconds = jump
    central.cut()
    async with a_store(disk, central=central) as store:
        await store.until("cached")
        headers = headers_of(store)
        again = await sell(store, "sale-1")
        await returns(store)

        assert (left, left) == (again, shown(store, "P-1"))
        assert age <= int(headers["Age"]) <= age + 30
        assert status == headers["Cache-Status"]
        assert int(headers_of(store)["Age"]) <= 1
        assert [] == reasons(store)


# -- a disk that cannot be written -------------------------------------------------------------


class ReadOnly(FaultyDirectory):
    """A disk that the system has mounted read-only while `is_read_only`."""

    is_read_only = False

    async def operate(self, what: str) -> None:
        if self.is_read_only and what.partition(" ")[0] not in ("names", "read", "size"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), what)
        await super().operate(what)


async def test_a_disk_that_becomes_read_only() -> None:
    """[D5] The store follows, serves and sells on, and says so in every read; once the disk can
    be written a whole snapshot ends the state within half a minute, and a kill then loses
    nothing."""
    disk = ReadOnly()
    async with a_live_store(disk) as store:
        disk.is_read_only = True
        left = await sell(store, "sale-1")
        store.central.sell("P-2")
        await asyncio.sleep(1.0)
        headers, problem = headers_of(store), store.status["disk"]["problem"]
        disk.is_read_only = False
        await asyncio.sleep(31.0)
        name, left_on_disk = store.state, disk.after_kill()
        store.central.cut()

    assert "not-durable" in headers["Cache-Status"]
    assert "Read-only file system" in problem
    assert "live" == name
    async with a_store(left_on_disk, central=cut_central()) as store:
        await store.until("cached")
        assert (left, 9) == (shown(store, "P-1"), shown(store, "P-2"))
        assert left == await sell(store, "sale-1")


async def test_a_start_on_a_read_only_disk() -> None:
    """[D5] [D7] Everything on it is served, with Central down as well; with Central back the store
    follows and sells. The files are as they were."""
    disk = ReadOnly()
    async with a_live_store(disk) as store:
        left = await sell(store, "sale-1")
    before = disk.contents()
    disk.is_read_only = True
    async with a_store(disk, central=(central := cut_central())) as store:
        await store.until("degraded")
        served, again = shown(store, "P-1"), await sell(store, "sale-1")
        central.is_cut = False
        await asyncio.sleep(MINUTE)
        follows = store.status["errorMessage"]

        assert (left, left) == (served, again)
        assert "" == follows
        assert "degraded" == store.state
        assert before == disk.contents()


def cut_central() -> LedgerTransport:
    """A Central that cannot be reached."""
    central = LedgerTransport(Clock())
    central.cut()
    return central


async def test_a_folder_that_was_emptied_before_a_start() -> None:
    """[D7] [F1] With Central down there is nothing to serve, and reads say `cache_not_ready`; once
    it is back, one full sync brings everything."""
    async with a_store(FaultyDirectory(), central=(central := cut_central())) as store:
        await asyncio.sleep(MINUTE)
        is_ready = store.parts.writer.catalogue is not None
        central.is_cut = False
        seconds = await store.until("live")

        assert not is_ready
        assert seconds <= 10
        assert 10 == shown(store, "P-1")


# -- other versions of the program -------------------------------------------------------------


async def _left_files() -> tuple[dict[str, bytes], int]:
    """Return the files of a store that has sold, and the stock it had left."""
    async with a_live_store() as store:
        left = await sell(store, "sale-1")
    return store.disk.contents(), left


def _of_format(files: dict[str, bytes], form: int) -> dict[str, bytes]:
    """Return the files as a version with that format writes them, with one more field in each
    header."""
    return {name: _with_format(data, form) for name, data in files.items()}


def _with_format(data: bytes, form: int) -> bytes:
    head, _, rest = data.partition(b"\n")
    named = unframe(head)
    assert named is not None
    header = named[1] | {"format": form, "notedBy": "another version"}
    return frame("header", orjson.dumps(header)) + rest


async def test_a_downgrade_refuses_and_the_newer_version_finds_everything() -> None:
    """[D6] Files of a newer format: the start fails, says what to do, and changes nothing. The
    newer version then serves all of it, answers to keys included."""
    files, left = await _left_files()
    newer = FaultyDirectory(_of_format(files, FORMAT + 1))
    with pytest.raises(NewerFormat, match="start the newer version again, or empty DATA_DIR"):
        async with a_store(newer):
            pass
    assert newer.contents() == _of_format(files, FORMAT + 1)

    found = FaultyDirectory(_of_format(newer.contents(), FORMAT))
    async with a_store(found, central=cut_central()) as store:
        await store.until("cached")
        assert left == shown(store, "P-1") == await sell(store, "sale-1")


async def test_an_upgrade_reads_an_older_format_and_fields_it_does_not_know() -> None:
    """[D6] [D7] Everything is served at once, with Central down, and the next files are of the new
    format."""
    files, left = await _left_files()
    older = FaultyDirectory(_of_format(files, FORMAT - 1))
    async with a_store(older, central=cut_central()) as store:
        await store.until("cached")

        assert left == shown(store, "P-1") == await sell(store, "sale-1")
        assert [] == store.status["disk"]["findings"]
        heads = [data.partition(b"\n")[0] for data in older.contents().values()]
        assert {FORMAT} == {head[1]["format"] for head in map(unframe, heads) if head}


async def test_what_a_process_knew_to_be_missing_is_read_by_the_next_one() -> None:
    """[F2] A replica was installed over a gap in the feed, and the store was killed before the full
    sync that must follow: the position alone would not tell."""
    cache = await Cache().filled()
    await cache.install(follow_up_reason="events were missing")
    async with a_live_store(cache.disk.after_kill()) as store:
        assert "events were missing" in store.parts.runner.state.full_syncs[0].reasons
