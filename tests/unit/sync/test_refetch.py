"""Refetches: the pending ones are done in time, and no request waits long for one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from itertools import pairwise

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
from store_cache.model.product import Row
from store_cache.sync.refetch import (
    AT_ONCE_SECONDS,
    FIRST_OVERTAKEN_SECONDS,
    LONGEST_OVERTAKEN_SECONDS,
    LOOK_SECONDS,
    NO_CACHE_SECONDS,
    ORDER_GRACES,
    Refetcher,
)
from tests.harness.cache import GRACE_SECONDS, Cache, applied_answer, attempt_record, event
from tests.harness.central import LedgerClient
from tests.harness.clock import NOON, Clock
from tests.harness.virtual_time import in_virtual_time

BROKEN = ExchangeBroken("500")


def refetcher_of(cache: Cache, requested: list[str] | None = None) -> Refetcher:
    """`requested` collects the reasons for which it requests a full sync."""
    return Refetcher(
        cache.central,
        cache.writer,
        now=cache.clock.now,
        random=lambda: 1.0,
        grace_seconds=GRACE_SECONDS,
        request_full_sync=([] if requested is None else requested).append,
    )


@asynccontextmanager
async def refetching(
    cache: Cache | None = None, requested: list[str] | None = None
) -> AsyncIterator[Cache]:
    """A filled cache whose pending refetches are done in the background."""
    cache = cache or await Cache().filled()
    task = asyncio.create_task(refetcher_of(cache, requested).run())
    await asyncio.sleep(0)
    try:
        yield cache
    finally:
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()


async def seconds_of(work: Awaitable[object]) -> float:
    """Return how long it took."""
    began_at = asyncio.get_running_loop().time()
    await work
    return asyncio.get_running_loop().time() - began_at


async def followed_for(cache: Cache, seconds: float) -> None:
    """Follow a quiet feed."""
    for _ in range(int(seconds)):
        await asyncio.sleep(1.0)
        await cache.writer.note_in_sync()


def fetched_at(cache: Cache, product_id: str = "P-1") -> list[float]:
    """When the product was fetched by itself."""
    asked = zip(cache.central.asked, cache.central.times, strict=True)
    return [at for what, at in asked if what == f"product {product_id}"]


# -- pending refetches -------------------------------------------------------------------------


@in_virtual_time
async def test_an_unreadable_event_has_its_product_refetched() -> None:
    """[E5] The event cannot be applied as it came; what Central says of its product is applied."""
    async with refetching() as cache:
        cache.central.sell("P-1")
        unreadable = event(4, None, eventType="shelf_moved", productId="P-1")
        await cache.writer.apply_events([unreadable], Position("g-1", 5, "f"))
        await asyncio.sleep(0.1)

        assert (9, 2) == cache.row("P-1")
        assert {} == cache.catalogue.pending_refetches


@in_virtual_time
async def test_absence_is_taken_from_central_alone() -> None:
    """[E5] If Central says in its own words that there is no such product, it is deleted. A bare
    404 says nothing: the product stays, and is fetched again."""
    async with refetching() as cache:
        cache.central.ledger.delete("P-1", NOON)
        cache.central.faults["product"].append(RequestRefused("404", status=404))
        await cache.writer.request_refetch("P-1", RefetchReason.UNREADABLE)
        await asyncio.sleep(0.5)
        stayed = cache.row("P-1")
        await asyncio.sleep(1.0)

        assert (10, 1) == stayed
        assert cache.row("P-1") is None


@in_virtual_time
async def test_a_refetch_for_the_order_of_events_waits_for_late_ones() -> None:
    """[V2] A product whose lives are too close to be told apart is refetched after the grace, not
    before."""
    async with refetching() as cache:
        cache.central.ledger.delete("P-1", NOON)
        cache.central.create("P-1")
        page = await cache.central.events(offset=4, limit=9, wait_seconds=0)
        await cache.writer.apply_events(page.events, Position("g-1", 6, "f"))
        await asyncio.sleep(2 * GRACE_SECONDS)

        assert [GRACE_SECONDS] == fetched_at(cache)
        assert {} == cache.catalogue.pending_refetches


@in_virtual_time
async def test_a_refetch_that_fails_is_tried_with_a_back_off() -> None:
    """[E5] [B1] 1, 2, 4 … seconds, up to a minute; meanwhile the status can name product and
    problem."""
    async with refetching() as cache:
        cache.central.faults["product"].extend([BROKEN] * 8)
        await cache.writer.request_refetch("P-1", RefetchReason.UNREADABLE)
        await asyncio.sleep(100.0)
        pending = cache.catalogue.pending_refetches["P-1"]
        await asyncio.sleep(100.0)

        waits = [b - a for a, b in pairwise(fetched_at(cache))]
        assert [1, 2, 4, 8, 16, 32, 60, 60] == [round(wait, 3) for wait in waits]
        assert (7, "500") == (pending.attempts, pending.problem)
        assert {} == cache.catalogue.pending_refetches


@pytest.mark.parametrize(
    ("problem", "attempts"),
    [
        (LimitExceeded("429", retry_after_seconds=40.0), 0),
        (ExchangeBroken("503", status=503, retry_after_seconds=40.0), 1),
    ],
    ids=["limited", "broken"],
)
@in_virtual_time
async def test_what_central_says_of_when_is_the_floor(problem: CentralError, attempts: int) -> None:
    """[B1] [F6] `Retry-After` is kept to. A limit is no failure."""
    async with refetching() as cache:
        cache.central.faults["product"].append(problem)
        await cache.writer.request_refetch("P-1", RefetchReason.UNREADABLE)
        await asyncio.sleep(20.0)
        pending = cache.catalogue.pending_refetches["P-1"]
        await asyncio.sleep(30.0)
        first, second = fetched_at(cache)

        assert 40.0 <= second - first <= 41.0
        assert attempts == pending.attempts


@in_virtual_time
async def test_nothing_is_fetched_during_the_longest_limit() -> None:
    """[F6] Five minutes, the longest that Central is believed, are not taken for a clock that was
    set back."""
    async with refetching() as cache:
        limit = LimitExceeded("429", retry_after_seconds=LONGEST_PAUSE_SECONDS)
        cache.central.faults["product"].append(limit)
        await cache.writer.request_refetch("P-1", RefetchReason.UNREADABLE)
        await asyncio.sleep(LONGEST_PAUSE_SECONDS + 1)

        assert 2 == len(fetched_at(cache))


@in_virtual_time
async def test_under_a_limit_refetches_keep_their_order_and_write_nothing() -> None:
    """[F6] The one that waits longest is first once Central may be asked again, and no record is
    written for a limit."""
    async with refetching() as cache:
        limits = [LimitExceeded("the store's own share", retry_after_seconds=5.0)] * 3
        cache.central.faults["product"].extend(limits)
        await cache.writer.request_refetch("P-2", RefetchReason.UNREADABLE)
        await cache.writer.request_refetch("P-1", RefetchReason.UNREADABLE)
        size = len(cache.disk.contents()["journal-2.jsonl"])
        await asyncio.sleep(14.0)
        grown = len(cache.disk.contents()["journal-2.jsonl"]) - size
        await asyncio.sleep(5.0)

        assert 0 == grown
        assert max(fetched_at(cache, "P-2")) <= min(fetched_at(cache, "P-1"))


@in_virtual_time
async def test_a_product_that_cannot_be_fetched_holds_no_other_up() -> None:
    """[E5] No address can hold its id; the others are fetched at once."""
    async with refetching() as cache:
        cache.central.faults["product"].append(UnsendableId("no address can hold it"))
        await cache.writer.request_refetch("P-1", RefetchReason.UNREADABLE)
        await cache.writer.request_refetch("P-2", RefetchReason.UNREADABLE)
        await asyncio.sleep(0.1)

        assert {"P-1"} == set(cache.catalogue.pending_refetches)
        assert 1 == len(fetched_at(cache, "P-2"))


@in_virtual_time
async def test_a_clock_that_was_set_back_holds_no_refetch_up() -> None:
    """[E5] One postponed by seconds is not postponed by the hours that the clock went back."""
    async with refetching() as cache:
        cache.central.faults["product"].append(BROKEN)
        await cache.writer.request_refetch("P-1", RefetchReason.UNREADABLE)
        await asyncio.sleep(0.1)
        cache.clock.set_by_seconds = -7200.0
        await asyncio.sleep(LOOK_SECONDS)

        assert {} == cache.catalogue.pending_refetches


@in_virtual_time
async def test_a_refetch_that_was_overtaken_is_done_again() -> None:
    """[V2] The product changed while Central was asked; the second answer counts."""
    async with refetching() as cache:
        held = cache.central.hold("product P-1")
        await cache.writer.request_refetch("P-1", RefetchReason.UNREADABLE)
        await held.reached.wait()
        await cache.follow_sale("P-1")
        held.release.set()
        await asyncio.sleep(FIRST_OVERTAKEN_SECONDS + 0.1)

        assert 2 == len(fetched_at(cache))
        assert (9, 2) == cache.row("P-1")
        assert {} == cache.catalogue.pending_refetches


async def _overtake(cache: Cache, times: int) -> None:
    """Have the product sold during each of the next refetches."""
    for _ in range(times):
        held = cache.central.hold("product P-1")
        async with asyncio.timeout(2 * LONGEST_OVERTAKEN_SECONDS):
            await held.reached.wait()
        await cache.follow_sale("P-1")
        held.release.set()
        await asyncio.sleep(0.01)  # until it is answered


@in_virtual_time
async def test_refetches_that_are_overtaken_are_repeated_with_a_back_off() -> None:
    """[V2] A product that is sold during every refetch is asked for after 1/4, 1/2, 1 … seconds, up
    to eight. It stays pending; once a refetch succeeds, the next wait is short again. No other
    product waits."""
    async with refetching() as cache:
        await cache.writer.request_refetch("P-1", RefetchReason.UNREADABLE)
        await _overtake(cache, 8)
        is_pending = "P-1" in cache.catalogue.pending_refetches
        await cache.writer.request_refetch("P-2", RefetchReason.UNREADABLE)
        await asyncio.sleep(0.1)
        others = len(fetched_at(cache, "P-2"))
        await asyncio.sleep(LONGEST_OVERTAKEN_SECONDS)
        is_done = {} == cache.catalogue.pending_refetches
        waits = [b - a for a, b in pairwise(fetched_at(cache))]
        await cache.writer.request_refetch("P-1", RefetchReason.UNREADABLE)
        await _overtake(cache, 1)
        await asyncio.sleep(FIRST_OVERTAKEN_SECONDS + 0.1)

        assert is_pending
        assert [0.25, 0.5, 1, 2, 4, 8, 8, 8] == [round(wait, 3) for wait in waits]
        assert 1 == others
        assert is_done
        *_, before, last = fetched_at(cache)
        assert FIRST_OVERTAKEN_SECONDS == round(last - before, 3)


class _Slow(LedgerClient):
    async def product(self, product_id: str, *, generation: str | None = None) -> Row | None:
        row = await super().product(product_id, generation=generation)
        await asyncio.sleep(0.1)
        return row


@in_virtual_time
async def test_events_that_request_a_refetch_anew_do_not_shorten_its_back_off() -> None:
    """[E5] A product whose events cannot be read is refetched for each of them, but not more often
    than the back-off allows."""
    clock = Clock()
    cache = Cache(clock=clock, central=_Slow(clock, "P-1"))
    async with refetching(await cache.filled()):
        for offset in range(2, 302):
            unreadable = event(offset, None, eventType="shelf_moved", productId="P-1")
            await cache.writer.apply_events([unreadable], Position("g-1", offset + 1, "f"))
            await asyncio.sleep(0.09)

        assert len(fetched_at(cache)) <= 12


@in_virtual_time
async def test_a_refetch_for_order_is_not_put_off_for_ever() -> None:
    """[V2] Each event of a product in doubt has the refetch wait for the grace after it. A product
    that sells all the time is refetched for all that, and again in the end."""
    async with refetching() as cache:
        await cache.writer.request_refetch("P-1", RefetchReason.UNREADABLE)
        await asyncio.sleep(0.1)
        began_at = asyncio.get_running_loop().time()
        for _ in range(20):
            change_set = cache.writer._change_set()
            change_set.request_refetch("P-1", RefetchReason.ORDER, after_seconds=GRACE_SECONDS)
            cache.catalogue.apply(change_set.to_change("events"))
            cache.writer.refetches_changed.set()
            await asyncio.sleep(GRACE_SECONDS / 4)
        await asyncio.sleep(2 * GRACE_SECONDS)
        _, *times = fetched_at(cache)
        first, *_, last = (at - began_at for at in times)

        assert ORDER_GRACES * GRACE_SECONDS == round(first, 3)
        assert 19 * GRACE_SECONDS / 4 + GRACE_SECONDS == round(last, 3)
        assert 3 <= len(times) <= 4
        assert {} == cache.catalogue.pending_refetches


@in_virtual_time
async def test_an_override_that_stays_too_long_is_refetched() -> None:
    """[W7] The event of a write never comes: after a minute the product is refetched."""
    async with refetching() as cache:
        cache.central.ledger.set({"productId": "P-1", "available": 9}, NOON)
        await cache.writer.settle_write(
            attempt_record("sale"), applied_answer("P-1", sent=1, left=9)
        )
        await followed_for(cache, OVERRIDE_SECONDS - 1)
        before = fetched_at(cache)
        await followed_for(cache, LOOK_SECONDS + 2)
        await followed_for(cache, OVERRIDE_SECONDS + LOOK_SECONDS)

        assert [] == before
        assert fetched_at(cache)[0] <= OVERRIDE_SECONDS + LOOK_SECONDS
        assert {} == cache.catalogue.overrides
        assert (9, 2) == cache.row("P-1")


@in_virtual_time
async def test_an_override_stays_while_the_feed_is_behind() -> None:
    """[W7] Its event is still to come, with those of a life that may have ended before."""
    async with refetching() as cache:
        cache.central.ledger.set({"productId": "P-1", "available": 9}, NOON)
        await cache.writer.settle_write(
            attempt_record("sale"), applied_answer("P-1", sent=1, left=9)
        )
        await asyncio.sleep(10 * OVERRIDE_SECONDS)

        assert ["P-1"] == list(cache.catalogue.overrides)


@in_virtual_time
async def test_pending_refetches_are_done_by_the_next_process() -> None:
    """[P3] They are in the journal with the position; a restart forgets none."""
    cache = await Cache().filled()
    await cache.writer.request_refetch("P-1", RefetchReason.UNREADABLE)
    cache.central.sell("P-1")
    async with refetching(await cache.restarted()) as after:
        await asyncio.sleep(0.1)

        assert (9, 2) == after.row("P-1")


# -- for requests that wait (W6) ---------------------------------------------------------------


async def _conflict(cache: Cache, version: int | None) -> None:
    await refetcher_of(cache).refresh_outdated("P-1", version)


@in_virtual_time
async def test_after_a_conflict_the_next_read_shows_centrals_state() -> None:
    """[W6] Central named a higher version than the one held: the product is refetched before the
    write is answered."""
    cache = await Cache().filled()
    cache.central.sell("P-1")
    await _conflict(cache, 2)

    assert (9, 2) == cache.row("P-1")


@in_virtual_time
async def test_a_conflict_that_the_feed_has_answered_asks_nothing() -> None:
    """[W6] The version that Central named is held already."""
    cache = await Cache().filled()
    await cache.follow_sale("P-1")
    await _conflict(cache, 2)

    assert [] == fetched_at(cache)


@in_virtual_time
async def test_a_conflict_waits_for_a_slow_central_only_briefly() -> None:
    """[W6] After a second the write is answered, and the refetch goes on in the background."""
    async with refetching() as cache:
        cache.central.sell("P-1")
        held = cache.central.hold("product P-1")
        waited = await seconds_of(_conflict(cache, 2))
        before = cache.row("P-1")
        held.release.set()
        await asyncio.sleep(0.1)

        assert AT_ONCE_SECONDS == waited
        assert (10, 1) == before
        assert (9, 2) == cache.row("P-1")


@in_virtual_time
async def test_a_conflict_that_names_a_lower_version_wins_over_what_is_held() -> None:
    """[E4] Central was restored from a backup: what it says now is the truth."""
    cache = await Cache().filled()
    await cache.follow_sale("P-1")
    cache.central.ledger.lie("P-1", {"available": 10, "version": 1})
    await _conflict(cache, 1)

    assert (10, 1) == cache.row("P-1")


@in_virtual_time
async def test_a_no_cache_read_waits_for_two_seconds_at_the_most() -> None:
    """[B3] No other read waits for Central; after that the cached row is the answer. A Central that
    is away costs no time."""
    cache = await Cache().filled()
    refetcher = refetcher_of(cache)
    held = cache.central.hold("product P-1")
    slow = await seconds_of(refetcher.refresh("P-1"))
    held.release.set()
    cache.central.failure = BROKEN
    away = await seconds_of(refetcher.refresh("P-1"))

    assert (NO_CACHE_SECONDS, 0.0) == (slow, away)
    assert (10, 1) == cache.row("P-1")
    assert {} == cache.catalogue.pending_refetches


@in_virtual_time
async def test_a_product_that_is_missing_may_have_been_created_meanwhile() -> None:
    """[W6] A write names a product whose creation has not reached the store yet."""
    cache = await Cache().filled()
    cache.central.create("P-9")
    row = await refetcher_of(cache).read("P-9", seconds=1.0)

    assert row is not None
    assert ("P-9", 10, 1) == (row.product_id, row.available, row.version)
    assert (10, 1) == cache.row("P-9")


@in_virtual_time
async def test_a_deadline_never_parts_disk_and_memory() -> None:
    """[D2] Central's answer came in the last moment, and the disk is slow: the change on its way
    there is made in memory, too, and the files stay good."""
    cache = await Cache().filled()
    cache.central.sell("P-1")
    disk = cache.disk.hold("append journal-2.jsonl")
    asking = asyncio.ensure_future(refetcher_of(cache).refresh("P-1"))
    await asyncio.sleep(NO_CACHE_SECONDS + 1)
    disk.release.set()
    await asking
    await cache.writer.request_refetch("P-2", RefetchReason.REFRESH)

    assert (9, 2) == cache.row("P-1")
    assert cache.writer.disk.is_durable
    assert (9, 2) == (await cache.restarted()).row("P-1")


@in_virtual_time
async def test_a_replaced_central_has_no_product_of_this_generation() -> None:
    """[P1] Its row is of another history: it is not shown under the old name, and a full sync is
    requested at once, whoever asked for the refetch."""
    requested: list[str] = []
    async with refetching(requested=requested) as cache:
        cache.central.sell("P-1")
        cache.central.ledger.begin_generation("g-2")
        await cache.writer.request_refetch("P-1", RefetchReason.ORDER)
        await asyncio.sleep(0.01)
        await refetcher_of(cache, requested).refresh("P-1")

        assert (10, 1) == cache.row("P-1")
        assert ["Central has a new generation g-2"] * 2 == requested


@pytest.mark.parametrize(
    ("reason", "problem", "full_syncs"),
    [
        (RefetchReason.ORDER, RequestRefused("a bare 404", status=404), 1),
        (RefetchReason.AHEAD, UnsendableId("no address can hold it"), 1),
        (RefetchReason.ORDER, BROKEN, 0),
        (RefetchReason.UNREADABLE, RequestRefused("a bare 404", status=404), 0),
    ],
)
@in_virtual_time
async def test_a_product_that_can_only_be_listed_needs_a_full_sync(
    reason: RefetchReason, problem: CentralError, full_syncs: int
) -> None:
    """[F1] [V2] After three refusals a full sync is requested, once. A broken connection will mend,
    and a row that no page can give either is only listed as doubtful."""
    requested: list[str] = []
    async with refetching(requested=requested) as cache:
        cache.central.faults["product"].extend([problem] * 6)
        await cache.writer.request_refetch("P-1", reason)
        await asyncio.sleep(120.0)

    assert full_syncs == len(requested)
