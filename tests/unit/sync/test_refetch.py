"""Readings by themselves: what is owed is done, in time, and nobody waits long for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager

import pytest

from store_cache.catalogue.apply import OVERRIDE_SECONDS
from store_cache.central.failures import (
    CentralError,
    ExchangeBroken,
    LimitExceeded,
    RequestRefused,
    UnsendableId,
)
from store_cache.central.rate_limit import LONGEST_PAUSE_SECONDS
from store_cache.model.change import RefetchReason
from store_cache.model.position import Position
from store_cache.sync.refetch import AT_ONCE_SECONDS, LOOK_SECONDS, NO_CACHE_SECONDS, Refetcher
from tests.harness.cache import GRACE_SECONDS, Cache, applied_answer, attempt_record, event
from tests.harness.clock import NOON
from tests.harness.virtual_time import run

BROKEN = ExchangeBroken("500")


def repairs_of(cache: Cache, hopeless: list[str] | None = None) -> Refetcher:
    """`hopeless` collects what only a full sync can settle."""
    told = [] if hopeless is None else hopeless
    return Refetcher(
        cache.central,
        cache.writer,
        now=cache.clock.now,
        random=lambda: 1.0,
        request_full_sync=told.append,
    )


@asynccontextmanager
async def repairing(
    cache: Cache | None = None, hopeless: list[str] | None = None
) -> AsyncIterator[Cache]:
    """A filled cache whose owed readings are done in the background."""
    cache = cache or await Cache().filled()
    task = asyncio.create_task(repairs_of(cache, hopeless).run())
    await asyncio.sleep(0)
    try:
        yield cache
    finally:
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()


async def seconds_of(work: Awaitable[object]) -> float:
    """How long it took."""
    began_at = asyncio.get_running_loop().time()
    await work
    return asyncio.get_running_loop().time() - began_at


async def followed_for(cache: Cache, seconds: float) -> None:
    """The feed is quiet, and followed."""
    for _ in range(int(seconds)):
        await asyncio.sleep(1.0)
        await cache.writer.note_in_sync()


def readings(cache: Cache, product_id: str = "P-1") -> list[float]:
    """When the product was asked for by itself."""
    asked = zip(cache.central.asked, cache.central.times, strict=True)
    return [at for what, at in asked if what == f"product {product_id}"]


# -- what is owed ------------------------------------------------------------------------------


def test_an_unreadable_event_has_its_product_read() -> None:
    """[E5] The event cannot be applied as it came; what Central says of its product is, and
    nothing is owed any more."""

    async def story() -> None:
        async with repairing() as cache:
            cache.central.sell("P-1")
            unreadable = event(4, None, eventType="shelf_moved", productId="P-1")
            await cache.writer.apply_events([unreadable], Position("g-1", 5, "f"))
            await asyncio.sleep(0.1)

            assert (9, 2) == cache.row("P-1")
            assert {} == cache.catalogue.pending_refetches

    run(story())


def test_absence_is_taken_from_central_alone() -> None:
    """[E5] Central says in its own words that there is no such product: it goes. A bare 404 says
    nothing: it stays, and is asked for again."""

    async def story() -> None:
        async with repairing() as cache:
            cache.central.ledger.delete("P-1", NOON)
            cache.central.faults["product"].append(RequestRefused("404", status=404))
            await cache.writer.request_refetch("P-1", RefetchReason.UNREADABLE)
            await asyncio.sleep(0.5)
            stayed = cache.row("P-1")
            await asyncio.sleep(1.0)

            assert (10, 1) == stayed
            assert cache.row("P-1") is None

    run(story())


def test_a_doubt_about_order_waits_for_what_is_late() -> None:
    """[V2] Two lives too close to be told apart are read after the grace, not before."""

    async def story() -> None:
        async with repairing() as cache:
            cache.central.ledger.delete("P-1", NOON)
            cache.central.create("P-1")
            page = await cache.central.events(offset=4, limit=9, wait_seconds=0)
            await cache.writer.apply_events(page.events, Position("g-1", 6, "f"))
            await asyncio.sleep(2 * GRACE_SECONDS)

            assert [GRACE_SECONDS] == readings(cache)
            assert {} == cache.catalogue.pending_refetches

    run(story())


def test_a_reading_that_fails_is_tried_with_a_back_off() -> None:
    """[E5] [B1] 1, 2, 4 … seconds, up to a minute; meanwhile the status can name product and
    problem. Others are not held up by it."""

    async def story() -> None:
        async with repairing() as cache:
            cache.central.faults["product"].extend([BROKEN] * 8)
            await cache.writer.request_refetch("P-1", RefetchReason.UNREADABLE)
            await asyncio.sleep(100.0)
            owed = cache.catalogue.pending_refetches["P-1"]
            await asyncio.sleep(100.0)

            waits = [b - a for a, b in zip(readings(cache), readings(cache)[1:], strict=False)]
            assert [1, 2, 4, 8, 16, 32, 60, 60] == [round(wait, 3) for wait in waits]
            assert (7, "500") == (owed.attempts, owed.problem)
            assert {} == cache.catalogue.pending_refetches

    run(story())


@pytest.mark.parametrize(
    ("problem", "attempts"),
    [
        (LimitExceeded("429", retry_after_seconds=40.0), 0),
        (ExchangeBroken("503", status=503, retry_after_seconds=40.0), 1),
    ],
    ids=["limited", "broken"],
)
def test_what_central_says_of_when_is_the_floor(problem: CentralError, attempts: int) -> None:
    """[B1] [F6] `Retry-After` is kept to; and a limit is no failure."""

    async def story() -> None:
        async with repairing() as cache:
            cache.central.faults["product"].append(problem)
            await cache.writer.request_refetch("P-1", RefetchReason.UNREADABLE)
            await asyncio.sleep(20.0)
            owed = cache.catalogue.pending_refetches["P-1"]
            await asyncio.sleep(30.0)
            first, second = readings(cache)

            assert 40.0 <= second - first <= 41.0
            assert attempts == owed.attempts

    run(story())


def test_the_longest_limit_is_waited_for_quietly() -> None:
    """[F6] Five minutes, the longest that Central is believed, are not taken for a clock that was
    set back: nothing is asked meanwhile."""

    async def story() -> None:
        async with repairing() as cache:
            limit = LimitExceeded("429", retry_after_seconds=LONGEST_PAUSE_SECONDS)
            cache.central.faults["product"].append(limit)
            await cache.writer.request_refetch("P-1", RefetchReason.UNREADABLE)
            await asyncio.sleep(LONGEST_PAUSE_SECONDS + 1)

            assert 2 == len(readings(cache))

    run(story())


def test_under_a_limit_readings_keep_their_order_and_write_nothing() -> None:
    """[F6] Whoever waits longest is first once Central may be asked again: no product is put off
    time after time, and no record is made of a limit."""

    async def story() -> None:
        async with repairing() as cache:
            limits = [LimitExceeded("the store's own share", retry_after_seconds=5.0)] * 3
            cache.central.faults["product"].extend(limits)
            await cache.writer.request_refetch("P-2", RefetchReason.UNREADABLE)
            await cache.writer.request_refetch("P-1", RefetchReason.UNREADABLE)
            size = len(cache.disk.contents()["journal-2.jsonl"])
            await asyncio.sleep(14.0)
            grown = len(cache.disk.contents()["journal-2.jsonl"]) - size
            await asyncio.sleep(5.0)

            assert 0 == grown
            assert max(readings(cache, "P-2")) <= min(readings(cache, "P-1"))

    run(story())


def test_one_failing_product_holds_no_other_up() -> None:
    """[E5] An id that no address can hold is never read; the others are, at once."""

    async def story() -> None:
        async with repairing() as cache:
            cache.central.faults["product"].append(UnsendableId("no address can hold it"))
            await cache.writer.request_refetch("P-1", RefetchReason.UNREADABLE)
            await cache.writer.request_refetch("P-2", RefetchReason.UNREADABLE)
            await asyncio.sleep(0.1)

            assert {"P-1"} == set(cache.catalogue.pending_refetches)
            assert 1 == len(readings(cache, "P-2"))

    run(story())


def test_a_clock_that_was_set_back_holds_no_reading_up() -> None:
    """[E5] A reading put off by seconds is not put off by the hours that the clock went back."""

    async def story() -> None:
        async with repairing() as cache:
            cache.central.faults["product"].append(BROKEN)
            await cache.writer.request_refetch("P-1", RefetchReason.UNREADABLE)
            await asyncio.sleep(0.1)
            cache.clock.set_by_seconds = -7200.0
            await asyncio.sleep(LOOK_SECONDS)

            assert {} == cache.catalogue.pending_refetches

    run(story())


def test_a_reading_that_was_overtaken_is_done_again() -> None:
    """[V2] The product changed while Central was asked: asked again, the answer counts."""

    async def story() -> None:
        async with repairing() as cache:
            held = cache.central.hold("product P-1")
            await cache.writer.request_refetch("P-1", RefetchReason.UNREADABLE)
            await held.reached.wait()
            await cache.follow_sale("P-1")
            held.release.set()
            await asyncio.sleep(0.1)

            assert 2 == len(readings(cache))
            assert (9, 2) == cache.row("P-1")
            assert {} == cache.catalogue.pending_refetches

    run(story())


def test_what_is_ahead_of_the_feed_too_long_is_read() -> None:
    """[W7] A write's answer whose event never comes: after a minute the product is read, and stands
    in line again."""

    async def story() -> None:
        async with repairing() as cache:
            cache.central.ledger.set({"productId": "P-1", "available": 9}, NOON)
            await cache.writer.settle_write(
                attempt_record("sale"), applied_answer("P-1", sent=1, left=9)
            )
            await followed_for(cache, OVERRIDE_SECONDS - 1)
            before = readings(cache)
            await followed_for(cache, LOOK_SECONDS + 2)
            await followed_for(cache, OVERRIDE_SECONDS + LOOK_SECONDS)

            assert [] == before
            assert readings(cache)[0] <= OVERRIDE_SECONDS + LOOK_SECONDS
            assert {} == cache.catalogue.overrides
            assert (9, 2) == cache.row("P-1")

    run(story())


def test_what_is_ahead_of_a_feed_that_is_behind_stays_so() -> None:
    """[W7] Its own events are still to come, with those of a life that may have ended before."""

    async def story() -> None:
        async with repairing() as cache:
            cache.central.ledger.set({"productId": "P-1", "available": 9}, NOON)
            await cache.writer.settle_write(
                attempt_record("sale"), applied_answer("P-1", sent=1, left=9)
            )
            await asyncio.sleep(10 * OVERRIDE_SECONDS)

            assert ["P-1"] == list(cache.catalogue.overrides)

    run(story())


def test_what_was_owed_is_done_by_the_next_process() -> None:
    """[P3] Owed readings lie in the journal with the position; a restart forgets none."""

    async def story() -> None:
        cache = await Cache().filled()
        await cache.writer.request_refetch("P-1", RefetchReason.UNREADABLE)
        cache.central.sell("P-1")
        async with repairing(await cache.restarted()) as after:
            await asyncio.sleep(0.1)

            assert (9, 2) == after.row("P-1")

    run(story())


# -- those who wait (W6) -----------------------------------------------------------------------


async def _conflict(cache: Cache, version: int | None) -> None:
    await repairs_of(cache).refresh_outdated("P-1", version)


def test_after_a_conflict_the_next_read_shows_centrals_state() -> None:
    """[W6] Central named a higher version than the one held: the product is read before the till is
    answered."""

    async def story() -> None:
        cache = await Cache().filled()
        cache.central.sell("P-1")
        await _conflict(cache, 2)

        assert (9, 2) == cache.row("P-1")

    run(story())


def test_a_conflict_that_the_feed_has_answered_asks_nothing() -> None:
    """[W6] The version that Central named is held by now."""

    async def story() -> None:
        cache = await Cache().filled()
        await cache.follow_sale("P-1")
        await _conflict(cache, 2)

        assert [] == readings(cache)

    run(story())


def test_a_conflict_waits_for_a_slow_central_only_briefly() -> None:
    """[W6] After a second the till is answered, and the reading goes on in the background."""

    async def story() -> None:
        async with repairing() as cache:
            cache.central.sell("P-1")
            held = cache.central.hold("product P-1")
            waited = await seconds_of(_conflict(cache, 2))
            before = cache.row("P-1")
            held.release.set()
            await asyncio.sleep(0.1)

            assert AT_ONCE_SECONDS == waited
            assert (10, 1) == before
            assert (9, 2) == cache.row("P-1")

    run(story())


def test_a_conflict_that_names_a_lower_version_wins_over_what_is_held() -> None:
    """[E4] Central went back without a word (a backup was restored): what it says now is the
    truth, lower as it is."""

    async def story() -> None:
        cache = await Cache().filled()
        await cache.follow_sale("P-1")
        cache.central.ledger.lie("P-1", {"available": 10, "version": 1})
        await _conflict(cache, 1)

        assert (10, 1) == cache.row("P-1")

    run(story())


def test_a_till_that_asks_past_the_cache_waits_for_two_seconds_at_the_most() -> None:
    """[B3] `no-cache` is the one read that may wait for Central, and not for long: then the store's
    own copy is the answer. Central being away costs nothing."""

    async def story() -> None:
        cache = await Cache().filled()
        refetcher = repairs_of(cache)
        held = cache.central.hold("product P-1")
        slow = await seconds_of(refetcher.refresh("P-1"))
        held.release.set()
        cache.central.failure = BROKEN
        away = await seconds_of(refetcher.refresh("P-1"))

        assert (NO_CACHE_SECONDS, 0.0) == (slow, away)
        assert (10, 1) == cache.row("P-1")
        assert {} == cache.catalogue.pending_refetches

    run(story())


def test_a_product_that_is_missing_may_have_been_created_meanwhile() -> None:
    """[W6] A till means a product whose creation has not reached the store yet."""

    async def story() -> None:
        cache = await Cache().filled()
        cache.central.create("P-9")
        await repairs_of(cache).refresh_missing("P-9")

        assert (10, 1) == cache.row("P-9")

    run(story())


def test_a_deadline_never_parts_disk_and_memory() -> None:
    """[D2] Central's answer came in the last moment, and the disk is slow: what is on its way there
    is made in memory, too, and the files stay good."""

    async def story() -> None:
        cache = await Cache().filled()
        cache.central.sell("P-1")
        disk = cache.disk.hold("append journal-2.jsonl")
        asking = asyncio.ensure_future(repairs_of(cache).refresh("P-1"))
        await asyncio.sleep(NO_CACHE_SECONDS + 1)
        disk.release.set()
        await asking
        await cache.writer.request_refetch("P-2", RefetchReason.REFRESH)

        assert (9, 2) == cache.row("P-1")
        assert cache.writer.disk.is_durable
        assert (9, 2) == (await cache.restarted()).row("P-1")

    run(story())


def test_a_replaced_central_has_no_product_of_this_generation() -> None:
    """[P1] Its row is of another history: it is not shown under the old name, and a full sync is
    asked for at once, however the product was asked for."""

    async def story() -> None:
        hopeless: list[str] = []
        async with repairing(hopeless=hopeless) as cache:
            cache.central.sell("P-1")
            cache.central.ledger.begin_generation("g-2")
            await cache.writer.request_refetch("P-1", RefetchReason.ORDER)
            await asyncio.sleep(0.01)
            await repairs_of(cache, hopeless).refresh("P-1")

            assert (10, 1) == cache.row("P-1")
            assert ["Central has a new generation g-2"] * 2 == hopeless

    run(story())


@pytest.mark.parametrize(
    ("reason", "problem", "told"),
    [
        (RefetchReason.ORDER, RequestRefused("a bare 404", status=404), 1),
        (RefetchReason.AHEAD, UnsendableId("no address can hold it"), 1),
        (RefetchReason.ORDER, BROKEN, 0),
        (RefetchReason.UNREADABLE, RequestRefused("a bare 404", status=404), 0),
    ],
)
def test_a_doubt_that_no_reading_can_settle_needs_a_full_sync(
    reason: RefetchReason, problem: CentralError, told: int
) -> None:
    """[F1] [V2] Some Centrals can only list a product: after three refusals a full sync is asked
    for, once. A broken line will mend, and a row that no page can give either is only listed."""

    async def story() -> None:
        hopeless: list[str] = []
        async with repairing(hopeless=hopeless) as cache:
            cache.central.faults["product"].extend([problem] * 6)
            await cache.writer.request_refetch("P-1", reason)
            await asyncio.sleep(120.0)

        assert told == len(hopeless)

    run(story())
