"""The runner performs each command, hands back its outcome, and can be interrupted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest

from store_cache.api.content.defects import Defects
from store_cache.app.build import AFTER_DEFECT_SECONDS, keep_running
from store_cache.central import failures as errors
from store_cache.central.failures import (
    CentralError,
    ExchangeBroken,
    LimitExceeded,
    Unreachable,
)
from store_cache.model.change import RefetchReason
from store_cache.model.event import AnyEvent
from store_cache.model.pages import BadRow, CataloguePage, EventPage, PageRequest
from store_cache.model.product import Rows, read_row
from store_cache.sync.runner import SyncRunner, as_outcome
from store_cache.sync.states import Failure, FullSyncRecord, Polling, SyncSettings
from tests.harness.cache import GRACE_SECONDS, Cache, event
from tests.harness.central import LedgerClient
from tests.harness.clock import Clock
from tests.harness.virtual_time import in_virtual_time

AWAY = Unreachable("nobody listens there")
BROKEN = ExchangeBroken("500")


class Sync:
    """A runner on a cache, and what its callbacks were called with."""

    def __init__(self, cache: Cache, settings: SyncSettings) -> None:
        self.cache = cache
        self.central = cache.central
        self.events: list[int] = []
        self.answers = 0
        self.runner = SyncRunner(
            cache.central,
            cache.writer,
            settings,
            least_percent=50,
            now=cache.clock.now,
            random=lambda: 0.5,
            uptime=asyncio.get_running_loop().time,
        )
        self.runner.on_events = self._note
        self.runner.on_central_reached = self._count_answer

    def _count_answer(self) -> None:
        self.answers += 1

    def _note(self, events: Sequence[AnyEvent]) -> None:
        self.events.extend(each.offset for each in events)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until it is so."""
        async with asyncio.timeout(10_000.0):
            while not condition():
                await self.runner.changed.wait()

    async def until_polling(self) -> None:
        await self.until(lambda: isinstance(self.runner.state.phase, Polling))
        await asyncio.sleep(0.001)  # the poll is on its way, too

    @property
    def reasons(self) -> list[tuple[str, ...]]:
        return [record.reasons for record in self.runner.state.full_syncs]

    @property
    def problems(self) -> list[str]:
        return [record.problem for record in self.runner.state.full_syncs]


@asynccontextmanager
async def syncing(
    central: type[LedgerClient] = LedgerClient, **settings: Any
) -> AsyncIterator[Sync]:
    """A store that starts from nothing, against a Central in process."""
    clock = Clock()
    cache = Cache(clock=clock, central=central(clock, "P-1", "P-2", "P-3"))
    async with running(cache, **settings) as sync:
        yield sync


@asynccontextmanager
async def running(cache: Cache, **settings: Any) -> AsyncIterator[Sync]:
    await cache.writer.open()
    sync = Sync(cache, SyncSettings(grace_seconds=GRACE_SECONDS, **settings))
    task = asyncio.create_task(keep_running("event sync", sync.runner.run, Defects(now)))
    try:
        yield sync
    finally:
        task.cancel()
        await asyncio.wait([task])
        await cache.writer.close()


@asynccontextmanager
async def polling(
    central: type[LedgerClient] = LedgerClient, **settings: Any
) -> AsyncIterator[Sync]:
    """The same, once its first full sync has ended and Central holds a poll."""
    async with syncing(central, **settings) as sync:
        await sync.until_polling()
        yield sync


def now() -> float:
    return asyncio.get_running_loop().time()


# -- outcomes ----------------------------------------------------------------------------------

OUTCOMES = {
    errors.Unreachable: Failure.UNREACHABLE,
    errors.ExchangeBroken: Failure.BROKEN,
    errors.Unreadable: Failure.UNREADABLE,
    errors.LimitExceeded: Failure.LIMITED,
    errors.AccessDenied: Failure.DENIED,
    errors.PositionGone: Failure.GONE,
    errors.RequestRefused: Failure.REFUSED,
    errors.UnsendableId: Failure.REFUSED,
    errors.OtherFeed: Failure.REFUSED,
    errors.WriteUnsent: Failure.REFUSED,
    errors.WriteUnknown: Failure.REFUSED,
}
NEEDED: dict[type[CentralError], dict[str, Any]] = {
    errors.LimitExceeded: {"retry_after_seconds": 7.0},
    errors.ExchangeBroken: {"retry_after_seconds": 7.0, "status": 503},
    errors.RequestRefused: {"status": 400},
    errors.WriteUnsent: {"cause": errors.Unsent.REFUSED},
    errors.OtherFeed: {"generation": "g-2"},
}


@pytest.mark.parametrize("kind", CentralError.__subclasses__(), ids=lambda kind: kind.__name__)
def test_each_error_of_an_exchange_is_one_outcome(kind: type[CentralError]) -> None:
    """[B1] [B2] With Central's words and the time that it named."""
    needed = NEEDED.get(kind, {})
    outcome = as_outcome(kind("what Central said", **needed))

    assert OUTCOMES[kind] == outcome.failure
    assert "what Central said" == outcome.problem
    assert needed.get("retry_after_seconds") == outcome.retry_after_seconds


# -- commands ----------------------------------------------------------------------------------


@in_virtual_time
async def test_a_first_start_reads_pages_follows_alongside_and_then_holds_polls() -> None:
    """[F1] [F2] [E1] It asks for the pages, the feed from before the head, then the feed, held."""
    async with polling() as sync:
        assert ["page 0", "events 0 0", "events 4 20"] == sync.central.asked
        assert ["P-1", "P-2", "P-3"] == list(sync.cache.catalogue.ids())
        assert [("first start",)] == sync.reasons
        assert 3 == sync.runner.head_offset
        assert sync.runner.sleeps_until is None


@in_virtual_time
async def test_a_change_is_visible_with_its_event() -> None:
    """[E1] A held poll is answered and its events applied without any time passing; the callback is
    called with them in order."""
    async with polling() as sync:
        began_at = now()
        sync.central.sell("P-1")
        sync.central.sell("P-2")
        await sync.until(lambda: sync.cache.row("P-2") == (9, 2))

        assert began_at == now()
        assert (9, 2) == sync.cache.row("P-1")
        assert [4, 5] == sync.events[-2:]
        assert 5 == sync.runner.head_offset


@in_virtual_time
async def test_a_quarantined_event_is_counted_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    """[E5] [B6] The status can name the last one, the log has its offset and reason, and a refetch
    of its product is pending."""
    async with polling() as sync:
        odd = event(4, None, eventType="shelf_moved", productId="P-1")
        sync.central.says = [EventPage((odd,), 5, False, "g-1")]
        sync.central.wake()
        await sync.until(lambda: sync.runner.quarantined == 1)

        assert odd is sync.runner.last_quarantined
        assert RefetchReason.UNREADABLE == sync.cache.catalogue.pending_refetches["P-1"].reason

    assert "event sync: the event at offset 4 was set aside" in caplog.text


class WithBadRow(LedgerClient):
    """One row of the catalogue cannot be read where it stands in a page."""

    async def page(self, request: PageRequest) -> CataloguePage:
        page = await super().page(request)
        bad, *good = map(read_row, page.rows.bodies)
        return CataloguePage(
            Rows.of(good),
            (BadRow(bad.product_id, "available is -1"),),
            total=page.total,
            has_more=page.has_more,
            event_offset=page.event_offset,
            generation=page.generation,
        )


@in_virtual_time
async def test_a_row_that_cannot_be_read_has_its_product_refetched() -> None:
    """[F5] As soon as the replica is installed; no page and no event is held up by it."""
    async with polling(WithBadRow) as sync:
        assert ["page 0", "events 0 0", "events 4 20"] == sync.central.asked
        assert RefetchReason.UNREADABLE is sync.cache.catalogue.pending_refetches["P-1"].reason


class Endless(LedgerClient):
    """Pages never end, and bring nothing new."""

    async def page(self, request: PageRequest) -> CataloguePage:
        page = await super().page(PageRequest(0, request.limit))
        return CataloguePage(page.rows, has_more=True, next_cursor="again", event_offset=3)


@in_virtual_time
async def test_pages_that_make_no_sense_end_the_full_sync(caplog: pytest.LogCaptureFixture) -> None:
    """[F3] [F6] [B6] The record says what was wrong, and the next attempt is spaced."""
    async with syncing(Endless) as sync:
        await sync.until(lambda: len(sync.runner.state.full_syncs) == 2)
        first, second = sync.runner.state.full_syncs

        assert "bring nothing new" in first.problem
        assert second.began_at - first.ended_at >= 30.0
        assert sync.cache.writer.catalogue is None

    assert "full sync: failed after" in caplog.text


@in_virtual_time
async def test_a_full_sync_that_failed_collects_no_answers() -> None:
    """[F4] Only the pages fail, and the shop sells on: its replica is dropped, until the next full
    sync begins another one."""
    async with polling() as sync:
        sync.central.faults["page"].extend([BROKEN] * 2)
        failed = await sync.runner.force_full_sync(accept=False)
        replica = sync.cache.writer.replica
        again = await sync.runner.force_full_sync(accept=False)

        assert ("500", None) == (failed.problem, replica)
        assert "" == again.problem


@in_virtual_time
async def test_a_replica_that_is_far_too_small_is_not_installed() -> None:
    """[F5] Most products are gone from Central without a word of the feed: the old catalogue stays,
    until an operator accepts the new one."""
    async with polling() as sync:
        sync.central.ledger.lie("P-2", None)
        sync.central.ledger.lie("P-3", None)
        refused = await sync.runner.force_full_sync(accept=False)
        held = len(sync.cache.catalogue)
        accepted = await sync.runner.force_full_sync(accept=True)

        assert "1 products where 3 are held" in refused.problem
        assert 3 == held
        assert ("", 1) == (accepted.problem, len(sync.cache.catalogue))


# -- waits -------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_sleep_is_its_least_and_a_random_part_of_its_spread() -> None:
    """[B1] Full jitter: half of 0.5, 1, 2 and 4 seconds if `random` gives a half. When it ends is
    known meanwhile."""
    async with polling() as sync:
        sync.central.faults["events"].extend([BROKEN] * 5)
        started = len(sync.central.asked)
        sync.central.sell("P-1")
        for failures in range(1, 5):
            await sync.until(lambda n=failures: sync.runner.state.health.failures == n)  # type: ignore[misc]
            await asyncio.sleep(0.001)
            until = sync.runner.sleeps_until
            assert until is not None
            assert 0.125 * 2**failures == round(until - now() + 0.001, 6)
        times = sync.central.times[started:]

        assert [0.25, 0.5, 1.0] == [round(b - a, 6) for a, b in pairwise(times)]


@in_virtual_time
async def test_a_limit_pauses_and_is_no_failure() -> None:
    """[B1] The feed is asked again when Central said."""
    async with polling() as sync:
        sync.central.faults["events"].append(LimitExceeded("429", retry_after_seconds=9.0))
        sync.central.sell("P-1")
        await sync.until(lambda: len(sync.central.faults["events"]) == 0)
        limited_at = sync.central.times[-1]
        await sync.until(lambda: sync.central.times[-1] > limited_at)

        assert 9.0 == sync.central.times[-1] - limited_at
        assert 0 == sync.runner.state.health.failures


@in_virtual_time
async def test_a_callback_says_when_central_answers() -> None:
    """[B4] For the breaker of writes; a failure does not call it."""
    async with polling() as sync:
        sync.central.failure = AWAY
        sync.central.wake()
        await sync.until(lambda: sync.runner.state.health.failures == 1)
        answers = sync.answers
        await sync.until(lambda: sync.runner.state.health.failures == 3)
        answers_while_away = sync.answers - answers
        sync.central.failure = None
        await sync.until(lambda: sync.runner.state.health.failures == 0)

        assert 0 == answers_while_away
        assert sync.answers > answers


@in_virtual_time
async def test_a_wake_ends_a_wait_that_a_failure_began() -> None:
    """[B4] A write was answered, so Central is back: the feed is asked at once."""
    async with polling() as sync:
        sync.central.failure = AWAY
        sync.central.wake()
        await sync.until(lambda: sync.runner.state.health.failures == 6)
        await sync.until(lambda: sync.runner.sleeps_until is not None)
        sync.central.failure = None
        began_at = now()
        sync.runner.wake_after_failure()
        await sync.until(lambda: sync.runner.state.health.failures == 0)

        assert began_at == now()


@in_virtual_time
async def test_a_wake_leaves_a_held_poll_alone() -> None:
    """[E1] Nothing has failed, and each write would cost a poll."""
    async with polling() as sync:
        asked = len(sync.central.asked)
        for _ in range(10):
            sync.runner.wake_after_failure()
            await asyncio.sleep(0.1)

        assert asked == len(sync.central.asked)


# -- after a start -----------------------------------------------------------------------------


def next_start(sync: Sync, *, sold: int) -> Cache:
    """Return the cache of the next process, after sales that it does not know of."""
    for _ in range(sold):
        sync.central.sell("P-1", +1)
    return Cache(sync.cache.disk, clock=sync.cache.clock, central=sync.central)


@in_virtual_time
async def test_a_store_has_caught_up_when_it_comes_to_the_end_of_the_feed() -> None:
    """At once afterwards, and after a first full sync."""
    async with polling() as first:
        await first.runner.caught_up()
    async with running(next_start(first, sold=50), batch_limit=10) as sync:
        assert sync.runner.state.in_sync_at is None
        await sync.runner.caught_up()

        assert 50 == len(sync.events)
        await sync.runner.caught_up()


@in_virtual_time
async def test_a_store_that_reaches_no_central_catches_up_with_nothing() -> None:
    """Who waits for it waits no longer than for the first failure."""
    async with polling() as first:
        pass
    cache = next_start(first, sold=50)
    cache.central.failure = AWAY
    async with running(cache) as sync:
        await sync.runner.caught_up()

        assert (1, []) == (sync.runner.state.health.failures, sync.events)


# -- full syncs on demand ----------------------------------------------------------------------


@in_virtual_time
async def test_a_forced_full_sync_does_not_wait_for_a_held_poll() -> None:
    """[F1] The poll is given up, which loses nothing; the full sync ends before Central would have
    answered it."""
    async with polling() as sync:
        await asyncio.sleep(1.0)
        began_at = now()
        record = await sync.runner.force_full_sync(accept=False)

        assert (2, "", 3) == (record.number, record.problem, record.products)
        assert ("on demand",) == record.reasons
        assert began_at == now()


@in_virtual_time
async def test_calls_made_during_a_full_sync_share_the_next_one() -> None:
    """[F1] One that began before the call proves nothing about now; one more serves all calls."""
    async with syncing() as sync:
        held = sync.central.hold("page 0")
        await held.reached.wait()
        calls = [asyncio.ensure_future(sync.runner.force_full_sync(accept=False)) for _ in range(5)]
        await asyncio.sleep(0.1)
        products = sync.runner.replica_products
        held.release.set()
        records = await asyncio.gather(*calls)
        await sync.until_polling()

        assert {2} == {record.number for record in records}
        assert [("first start",), ("on demand",)] == sync.reasons
        assert (0, 0) == (products, sync.runner.replica_products)


@in_virtual_time
async def test_a_full_sync_requested_while_a_poll_is_being_given_up_runs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """[F1] The poll was begun when the runner had been woken, and ends at once; a refetch that ends
    with it finds that a full sync is needed."""
    async with polling() as sync:
        events = sync.central.events

        async def ends_with_a_reason(**asked: int) -> EventPage:
            try:
                return await events(**asked)
            except asyncio.CancelledError:
                sync.runner.request_full_sync("another")
                raise

        held = sync.central.hold("page 0")
        sync.runner.request_full_sync("one")
        await held.reached.wait()
        sync.runner.request_full_sync("two")
        sync.central.events = ends_with_a_reason  # type: ignore[method-assign]
        held.release.set()
        await sync.until(lambda: len(sync.runner.state.full_syncs) == 3)

        assert [("first start",), ("one",), ("two", "another")] == sync.reasons

    assert [] == [each.message for each in caplog.records if each.levelno >= logging.ERROR]


@in_virtual_time
async def test_a_caller_that_goes_away_stops_no_full_sync() -> None:
    """[F6] The one that it forced goes on to its end."""
    async with polling() as sync:
        held = sync.central.hold("page 0")
        call = asyncio.ensure_future(sync.runner.force_full_sync(accept=False))
        await held.reached.wait()
        call.cancel()
        await asyncio.wait([call])
        held.release.set()
        await sync.until(lambda: len(sync.runner.state.full_syncs) == 2)

        assert ["", ""] == sync.problems


@in_virtual_time
async def test_a_forced_full_sync_says_that_central_is_away() -> None:
    """[F1] [F6] Who waits for it hears of a failing connection soon, and which failure it was."""
    async with polling() as sync:
        sync.central.failure = AWAY
        began_at = now()
        record = await sync.runner.force_full_sync(accept=False)

        assert Failure.UNREACHABLE == record.failure
        assert "nobody listens there" in record.problem
        assert now() - began_at < 5.0


@pytest.mark.parametrize("seconds", [5.0, 40.0])
@in_virtual_time
async def test_a_requested_full_sync_does_not_wait_for_a_held_poll(seconds: float) -> None:
    """[D4] [F6] Damaged files were found at the start. The full sync before has held, so this one
    is not spaced."""
    async with polling() as sync:
        await asyncio.sleep(seconds)
        sync.runner.request_full_sync("files were damaged")
        began_at = now()
        await sync.until(lambda: len(sync.runner.state.full_syncs) == 2)

        assert ("files were damaged",) == sync.reasons[-1]
        assert began_at == now()


# -- defects -----------------------------------------------------------------------------------


class Faulty(LedgerClient):
    """A request to it meets a defect of the store, once."""

    defect_at = ""

    async def _admit(self, what: str) -> None:
        await super()._admit(what)
        if self.defect_at and what.startswith(self.defect_at):
            self.defect_at = ""
            raise RuntimeError("a defect")


@in_virtual_time
async def test_after_a_defect_the_sync_begins_again(caplog: pytest.LogCaptureFixture) -> None:
    """[P4] The defect is in the log with its traceback, and the feed is followed on from the
    position a second later; no event is lost."""
    async with polling(Faulty) as sync:
        assert isinstance(sync.central, Faulty)
        sync.central.defect_at = "events"
        sync.central.sell("P-1")
        await asyncio.sleep(0.001)
        assert "" == sync.central.defect_at
        sync.central.sell("P-2")
        began_at = now()
        await sync.until(lambda: sync.cache.row("P-2") == (9, 2))

        assert (9, 2) == sync.cache.row("P-1")
        assert now() - began_at <= AFTER_DEFECT_SECONDS
        assert [("first start",)] == sync.reasons

    [record] = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert "event sync: a defect of the store; please report it" in record.message
    assert record.exc_info is not None


@in_virtual_time
async def test_a_defect_within_a_full_sync_is_told_to_those_who_wait() -> None:
    """[F1] It ends with a record that names the defect; the next one may succeed."""
    async with polling(Faulty) as sync:
        assert isinstance(sync.central, Faulty)
        sync.central.defect_at = "page"
        failed = await sync.runner.force_full_sync(accept=False)
        succeeded: FullSyncRecord = await sync.runner.force_full_sync(accept=False)

        assert "stopped by a defect" in failed.problem
        assert "" == succeeded.problem


# -- what operators read (B6) ------------------------------------------------------------------


@in_virtual_time
async def test_the_log_tells_an_outage_in_the_words_that_operators_search_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """[B6] [B1] The first failure is a warning, falling back an error, the return has its line."""
    caplog.set_level(logging.INFO, logger="store_cache")
    async with polling(fallback_seconds=3600.0) as sync:
        sync.central.failure = AWAY
        sync.central.wake()
        await sync.until(lambda: sync.runner.state.health.fell_back)
        sync.central.failure = None
        await sync.until(lambda: sync.runner.state.health.failures == 0)

    said = [(each.levelname, each.message) for each in caplog.records if "sync:" in each.message]

    assert [
        ("INFO", "full sync: begins: first start"),
        ("INFO", "full sync: 3 products in place after 0.0 s"),
        ("WARNING", "event sync: Central unreachable: nobody listens there"),
        *[("INFO", "event sync: Central unreachable: nobody listens there")] * 4,
        ("ERROR", "event sync: 5 failures in a row, falling back"),
        ("INFO", "event sync: Central is back"),
    ] == said


@in_virtual_time
async def test_a_failure_within_a_full_sync_is_logged_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """[B6] A page that could not be read is found by the words `full sync`."""
    async with syncing() as sync:
        sync.central.faults["page"].append(BROKEN)
        await sync.until_polling()

    assert "full sync: Central broken: 500" in caplog.messages
