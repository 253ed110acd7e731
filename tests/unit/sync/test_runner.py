"""The driver performs each command, hands back what came of it, and can be interrupted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from store_cache.app.build import AFTER_DEFECT_SECONDS, keep_running
from store_cache.central import failures as errors
from store_cache.central.failures import (
    CentralError,
    ExchangeBroken,
    LimitExceeded,
    Unreachable,
    Unreadable,
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
from tests.harness.virtual_time import run

AWAY = Unreachable("nobody listens there")
BROKEN = ExchangeBroken("500")


class Sync:
    """A driver on a cache, and what it told others."""

    def __init__(self, cache: Cache, settings: SyncSettings) -> None:
        self.cache = cache
        self.central = cache.central
        self.events: list[int] = []
        self.health: list[bool] = []
        self.runner = SyncRunner(
            cache.central,
            cache.writer,
            settings,
            least_percent=50,
            now=cache.clock.now,
            random=lambda: 0.5,
        )
        self.runner.on_events = self._take
        self.runner.on_central_reached = partial(self.health.append, True)
        self.runner.on_central_lost = partial(self.health.append, False)

    def _take(self, events: Sequence[AnyEvent]) -> None:
        self.events.extend(each.offset for each in events)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for it, however long that takes in virtual time."""
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
    central: type[LedgerClient] = LedgerClient, *products: str, **settings: Any
) -> AsyncIterator[Sync]:
    """A store that starts from nothing, against a Central in process."""
    clock = Clock()
    cache = Cache(clock=clock, central=central(clock, *(products or ("P-1", "P-2", "P-3"))))
    await cache.writer.open()
    sync = Sync(cache, SyncSettings(grace_seconds=GRACE_SECONDS, **settings))
    task = asyncio.create_task(keep_running("event sync", sync.runner.run))
    try:
        yield sync
    finally:
        task.cancel()
        await asyncio.wait([task])
        await cache.writer.close()


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
    errors.OtherFeed: {"generation": "g-2"},
}


@pytest.mark.parametrize("kind", CentralError.__subclasses__(), ids=lambda kind: kind.__name__)
def test_each_error_of_an_exchange_is_one_outcome(kind: type[CentralError]) -> None:
    """[B1] [B2] Every kind of error that there is has its outcome, with Central's words and the
    time that it named."""
    needed = NEEDED.get(kind, {})
    outcome = as_outcome(kind("what Central said", **needed))

    assert OUTCOMES[kind] == outcome.failure
    assert "what Central said" == outcome.problem
    assert needed.get("retry_after_seconds") == outcome.retry_after_seconds


# -- commands ----------------------------------------------------------------------------------


def test_a_first_start_reads_pages_follows_alongside_and_then_holds_polls() -> None:
    """[F1] [F2] [E1] What is asked, in this order: the pages, the feed from before the head, the
    event before the position, and then the feed, held."""

    async def story() -> None:
        async with syncing() as sync:
            await sync.until_polling()

            assert ["page 0", "events 0 0", "events 3 0", "events 4 20"] == sync.central.asked
            assert ["P-1", "P-2", "P-3"] == list(sync.cache.catalogue.ids())
            assert [("first start",)] == sync.reasons
            assert 3 == sync.runner.head_offset
            assert sync.runner.sleeps_until is None

    run(story())


def test_a_change_is_visible_with_its_event() -> None:
    """[E1] A held poll is answered and its event applied without any time passing, and those who
    settle writes by events are told in order."""

    async def story() -> None:
        async with syncing() as sync:
            await sync.until_polling()
            began_at = now()
            sync.central.sell("P-1")
            sync.central.sell("P-2")
            await sync.until(lambda: sync.cache.row("P-2") == (9, 2))

            assert began_at == now()
            assert (9, 2) == sync.cache.row("P-1")
            assert [4, 5] == sync.events[-2:]
            assert 5 == sync.runner.head_offset

    run(story())


def test_an_event_set_aside_is_counted_and_said(caplog: pytest.LogCaptureFixture) -> None:
    """[E5] [B6] The status can name the last one, the log has its offset and reason, and a reading
    is owed."""

    async def story() -> None:
        async with syncing() as sync:
            await sync.until_polling()
            page = await sync.central.events(offset=1, limit=9, wait_seconds=0)
            odd = event(4, None, eventType="shelf_moved", productId="P-1")
            answers = [page.__class__((odd,), 5, False, "g-1")]
            sync.central.says = answers
            sync.central.wake()
            await sync.until(lambda: sync.runner.quarantined == 1)

            assert odd is sync.runner.last_quarantined
            assert RefetchReason.UNREADABLE == sync.cache.catalogue.pending_refetches["P-1"].reason

    run(story())
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


def test_a_row_that_cannot_be_read_is_read_by_itself() -> None:
    """[F5] The product of the bad row is there when the copy goes in place."""

    async def story() -> None:
        async with syncing(WithBadRow) as sync:
            await sync.until_polling()

            assert "product P-1" in sync.central.asked
            assert ["P-1", "P-2", "P-3"] == list(sync.cache.catalogue.ids())

    run(story())


def test_a_product_that_cannot_be_read_at_all_is_listed_and_a_bad_line_is_not_its_fault() -> None:
    """[F5] [B1] A broken line has the reading done again; an answer that nobody can read has the
    reading given up for now, and owed; what the feed says of the product counts."""

    async def story() -> None:
        async with syncing(WithBadRow) as sync:
            sync.central.faults["product"].extend([BROKEN, Unreadable("not a product")])
            await sync.until_polling()

            assert 2 == sync.central.asked.count("product P-1")
            assert (10, 1) == sync.cache.row("P-1")
            assert "not a product" == sync.cache.catalogue.pending_refetches["P-1"].problem

    run(story())


class Endless(LedgerClient):
    """Pages never end, and bring nothing new."""

    async def page(self, request: PageRequest) -> CataloguePage:
        page = await super().page(PageRequest(0, request.limit))
        return CataloguePage(page.rows, has_more=True, next_cursor="again", event_offset=3)


def test_pages_that_make_no_sense_end_the_run(caplog: pytest.LogCaptureFixture) -> None:
    """[F3] [F6] [B6] The record says what was wrong, and the next attempt is spaced."""

    async def story() -> None:
        async with syncing(Endless) as sync:
            await sync.until(lambda: len(sync.runner.state.full_syncs) == 2)
            first, second = sync.runner.state.full_syncs

            assert "bring nothing new" in first.problem
            assert second.began_at - first.ended_at >= 30.0
            assert sync.cache.writer.catalogue is None

    run(story())
    assert "full sync: failed after" in caplog.text


def test_a_full_sync_that_failed_collects_no_answers() -> None:
    """[F4] Only the pages fail, and the shop sells on: its replica is dropped, until the next full
    sync begins another one."""

    async def story() -> None:
        async with syncing() as sync:
            await sync.until_polling()
            sync.central.faults["page"].extend([BROKEN] * 2)
            failed = await sync.runner.force_full_sync(accept=False)
            replica = sync.cache.writer.replica
            again = await sync.runner.force_full_sync(accept=False)

            assert ("500", None) == (failed.problem, replica)
            assert "" == again.problem

    run(story())


def test_a_copy_that_is_far_too_small_is_not_placed() -> None:
    """[F5] Most products are gone from Central without a word of the feed: the old catalogue stays,
    until an operator accepts the new one."""

    async def story() -> None:
        async with syncing() as sync:
            await sync.until_polling()
            sync.central.ledger.lie("P-2", None)
            sync.central.ledger.lie("P-3", None)
            refused = await sync.runner.force_full_sync(accept=False)
            held = len(sync.cache.catalogue)
            accepted = await sync.runner.force_full_sync(accept=True)

            assert "1 products where 3 are held" in refused.problem
            assert 3 == held
            assert ("", 1) == (accepted.problem, len(sync.cache.catalogue))

    run(story())


# -- waits -------------------------------------------------------------------------------------


def test_a_wait_is_its_least_and_a_random_part_of_its_spread() -> None:
    """[B1] Full jitter: half of 0.5, 1, 2 and 4 seconds where chance says a half; when the next try
    is due is known meanwhile."""

    async def story() -> None:
        async with syncing() as sync:
            await sync.until_polling()
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

    run(story())


def test_a_limit_pauses_and_is_no_failure() -> None:
    """[B1] The feed is asked again when Central said, and the breaker of writes hears nothing."""

    async def story() -> None:
        async with syncing() as sync:
            await sync.until_polling()
            told = len(sync.health)
            sync.central.faults["events"].append(LimitExceeded("429", retry_after_seconds=9.0))
            sync.central.sell("P-1")
            await sync.until(lambda: len(sync.central.faults["events"]) == 0)
            limited_at = sync.central.times[-1]
            heard = sync.health[told:]
            await sync.until(lambda: sync.central.times[-1] > limited_at)

            assert 9.0 == sync.central.times[-1] - limited_at
            assert False not in heard
            assert 0 == sync.runner.state.health.failures

    run(story())


def test_others_are_told_whether_central_answers() -> None:
    """[B4] No connection is news for the breaker of writes, and so is the first answer after it."""

    async def story() -> None:
        async with syncing() as sync:
            await sync.until_polling()
            sync.central.failure = AWAY
            sync.central.wake()
            await sync.until(lambda: not sync.health[-1])
            sync.central.failure = None
            await sync.until(lambda: sync.health[-1])

            assert [True, False, True] == _without_repeats(sync.health)

    run(story())


def _without_repeats(line: Sequence[bool]) -> list[bool]:
    return [line[0], *(b for a, b in pairwise(line) if a != b)]


def test_a_nudge_ends_a_wait_that_a_failure_began() -> None:
    """[B4] A write was answered, so Central is back: the feed is asked at once, not at the end of a
    wait of many seconds."""

    async def story() -> None:
        async with syncing() as sync:
            await sync.until_polling()
            sync.central.failure = AWAY
            sync.central.wake()
            await sync.until(lambda: sync.runner.state.health.failures == 6)
            await sync.until(lambda: sync.runner.sleeps_until is not None)
            sync.central.failure = None
            began_at = now()
            sync.runner.wake()
            await sync.until(lambda: sync.runner.state.health.failures == 0)

            assert began_at == now()

    run(story())


def test_a_nudge_leaves_a_held_poll_alone() -> None:
    """[E1] While nothing has failed there is nothing to end: each write would cost a poll."""

    async def story() -> None:
        async with syncing() as sync:
            await sync.until_polling()
            asked = len(sync.central.asked)
            for _ in range(10):
                sync.runner.wake()
                await asyncio.sleep(0.1)

            assert asked == len(sync.central.asked)

    run(story())


# -- full syncs on demand ----------------------------------------------------------------------


def test_a_forced_run_does_not_wait_for_a_held_poll() -> None:
    """[F1] The poll is given up, which loses nothing, and the run is over before Central would have
    answered it."""

    async def story() -> None:
        async with syncing() as sync:
            await sync.until_polling()
            await asyncio.sleep(1.0)
            began_at = now()
            record = await sync.runner.force_full_sync(accept=False)

            assert (2, "", 3) == (record.number, record.problem, record.products)
            assert ("on demand",) == record.reasons
            assert began_at == now()

    run(story())


def test_calls_made_during_a_run_share_the_next_one() -> None:
    """[F1] A run that began before the call proves nothing about now; one more run serves all."""

    async def story() -> None:
        async with syncing() as sync:
            held = sync.central.hold("page 0")
            await held.reached.wait()
            calls = [
                asyncio.ensure_future(sync.runner.force_full_sync(accept=False)) for _ in range(5)
            ]
            await asyncio.sleep(0.1)
            copied = sync.runner.replica_products
            held.release.set()
            records = await asyncio.gather(*calls)
            await sync.until_polling()

            assert {2} == {record.number for record in records}
            assert [("first start",), ("on demand",)] == sync.reasons
            assert (0, 0) == (copied, sync.runner.replica_products)

    run(story())


def test_a_reason_that_comes_while_a_poll_is_being_given_up_is_heard(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """[F1] The poll was begun with the bell rung, and ends at once; a reading that ends with it
    finds that a full sync is needed."""

    async def story() -> None:
        async with syncing() as sync:
            await sync.until_polling()
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

    run(story())

    assert [] == [each.message for each in caplog.records if each.levelno >= logging.ERROR]


def test_a_caller_that_goes_away_stops_no_run() -> None:
    """[F6] The run that it asked for goes on to its end."""

    async def story() -> None:
        async with syncing() as sync:
            await sync.until_polling()
            held = sync.central.hold("page 0")
            call = asyncio.ensure_future(sync.runner.force_full_sync(accept=False))
            await held.reached.wait()
            call.cancel()
            await asyncio.wait([call])
            held.release.set()
            await sync.until(lambda: len(sync.runner.state.full_syncs) == 2)

            assert ["", ""] == sync.problems

    run(story())


def test_a_forced_run_says_that_central_is_away() -> None:
    """[F1] [F6] Whoever waits for it hears of a failing line soon, and which failure it was."""

    async def story() -> None:
        async with syncing() as sync:
            await sync.until_polling()
            sync.central.failure = AWAY
            began_at = now()
            record = await sync.runner.force_full_sync(accept=False)

            assert Failure.UNREACHABLE == record.failure
            assert "nobody listens there" in record.problem
            assert now() - began_at < 5.0

    run(story())


@pytest.mark.parametrize("seconds", [5.0, 40.0])
def test_a_reason_from_elsewhere_has_a_run_begin(seconds: float) -> None:
    """[D4] [F6] Damaged files found at the start: the feed's held poll is given up for it. The full
    sync before has held, so nothing is spaced."""

    async def story() -> None:
        async with syncing() as sync:
            await sync.until_polling()
            await asyncio.sleep(seconds)
            sync.runner.request_full_sync("files were damaged")
            began_at = now()
            await sync.until(lambda: len(sync.runner.state.full_syncs) == 2)

            assert ("files were damaged",) == sync.reasons[-1]
            assert began_at == now()

    run(story())


# -- defects -----------------------------------------------------------------------------------


class Faulty(LedgerClient):
    """What is asked of it strikes a defect of the store's own, once."""

    defect_at = ""

    async def _admit(self, what: str) -> None:
        await super()._admit(what)
        if self.defect_at and what.startswith(self.defect_at):
            self.defect_at = ""
            raise RuntimeError("a defect")


def test_after_a_defect_the_sync_begins_afresh(caplog: pytest.LogCaptureFixture) -> None:
    """[P4] A shop's cache never stands still in silence: the defect is in the log with its
    traceback, and the feed goes on from the position, a second later; no event is lost."""

    async def story() -> None:
        async with syncing(Faulty) as sync:
            await sync.until_polling()
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

    run(story())
    [record] = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert "event sync: a defect of the store; please report it" in record.message
    assert record.exc_info is not None


def test_a_defect_within_a_run_is_told_to_those_who_wait() -> None:
    """[F1] The forced run ends with a record that names the defect; the next one may succeed."""

    async def story() -> None:
        async with syncing(Faulty) as sync:
            await sync.until_polling()
            assert isinstance(sync.central, Faulty)
            sync.central.defect_at = "page"
            failed = await sync.runner.force_full_sync(accept=False)
            succeeded: FullSyncRecord = await sync.runner.force_full_sync(accept=False)

            assert "stopped by a defect" in failed.problem
            assert "" == succeeded.problem

    run(story())


# -- what operators read (B6) ------------------------------------------------------------------


def test_the_log_tells_an_outage_in_the_words_that_operators_search_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """[B6] [B1] The first failure is a warning, falling back an error, and the return is said."""
    caplog.set_level(logging.INFO, logger="store_cache")

    async def story() -> None:
        async with syncing(fallback_seconds=3600.0) as sync:
            await sync.until_polling()
            sync.central.failure = AWAY
            sync.central.wake()
            await sync.until(lambda: sync.runner.state.health.fell_back)
            sync.central.failure = None
            await sync.until(lambda: sync.runner.state.health.failures == 0)

    run(story())
    said = [(each.levelname, each.message) for each in caplog.records if "sync:" in each.message]

    assert [
        ("INFO", "full sync: begins: first start"),
        ("INFO", "full sync: 3 products in place after 0.0 s"),
        ("WARNING", "event sync: Central unreachable: nobody listens there"),
        *[("INFO", "event sync: Central unreachable: nobody listens there")] * 4,
        ("ERROR", "event sync: 5 failures in a row, falling back"),
        ("INFO", "event sync: Central is back"),
    ] == said


def test_trouble_within_a_run_is_the_runs(caplog: pytest.LogCaptureFixture) -> None:
    """[B6] A page that could not be read is found by the words of the full sync."""

    async def story() -> None:
        async with syncing() as sync:
            sync.central.faults["page"].append(BROKEN)
            await sync.until_polling()

    run(story())
    assert "full sync: Central broken: 500" in caplog.messages
