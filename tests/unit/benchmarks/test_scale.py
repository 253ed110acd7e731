"""The simulation behind docs/scale.md: its models of Central and the store, and its arithmetic."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import pytest

from benchmarks.scale import page, sizes
from benchmarks.scale.central import Capacity, CentralModel, Overload, TooMany
from benchmarks.scale.measured import KEPT
from benchmarks.scale.outage import Outage, Return, play, windowed
from benchmarks.scale.page import Habits
from benchmarks.scale.plan import CASES
from benchmarks.scale.points import (
    FOLDER,
    Point,
    Watched,
    costs_of,
    costs_table,
    load,
    polls_at,
    save,
)
from benchmarks.scale.steady import Habit, habit
from benchmarks.scale.store import ReplicaModel
from store_cache.catalogue.replica import Replica
from store_cache.central.failures import ExchangeBroken, PositionGone, Unreachable
from store_cache.model.pages import PageRequest
from store_cache.sync.states import SyncSettings
from tests.conftest import ROOT
from tests.harness.virtual_time import in_virtual_time

SMALL = Outage(20, 60.0, Capacity(100.0))


# -- the modelled Central ----------------------------------------------------------------------


@in_virtual_time
async def test_requests_wait_for_those_before_them() -> None:
    """A Central of ten a second has answered five that came together after half a second."""
    central = CentralModel(Capacity(10.0))
    await asyncio.gather(*(central.events(1000, 1, 0) for _ in range(5)))

    assert 0.52 == pytest.approx(asyncio.get_running_loop().time())


@pytest.mark.parametrize(
    ("overload", "problem"),
    [
        (Overload.UNAVAILABLE, ExchangeBroken),
        (Overload.LIMIT, TooMany),
        (Overload.LIMIT_NAMED, TooMany),
        (Overload.QUEUE, None),
    ],
)
@in_virtual_time
async def test_a_request_that_would_wait_too_long_is_refused(
    overload: Overload, problem: type[Exception] | None
) -> None:
    """In the way that the overloaded Central is configured for; or all requests wait."""
    central = CentralModel(Capacity(10.0, 1.0, overload))
    asked = (central.events(1000, 1, 0) for _ in range(30))
    answers = await asyncio.gather(*asked, return_exceptions=True)
    found = {type(each) for each in answers if isinstance(each, Exception)}

    assert found == ({problem} if problem else set())
    assert sum(central.tally.refused.values()) == sum(
        isinstance(each, Exception) for each in answers
    )


@in_virtual_time
async def test_a_poll_is_held_until_there_is_an_event_or_the_connection_breaks() -> None:
    """After that, Central cannot be reached."""
    central = CentralModel(Capacity(1000.0))
    told, also_told = (asyncio.ensure_future(central.events(1001, 1, 20)) for _ in range(2))
    await asyncio.sleep(1.0)
    held = central.held_polls
    central.publish()
    await asyncio.gather(told, also_told)
    broken = asyncio.ensure_future(central.events(1002, 1, 20))
    await asyncio.sleep(1.0)
    central.go_down()
    with pytest.raises(ExchangeBroken):
        await broken
    with pytest.raises(Unreachable):
        await central.events(1002, 1, 20)

    assert 2 == held
    assert [1001] == [event.offset for event in told.result().events]


@in_virtual_time
async def test_a_lost_log_is_gone() -> None:
    central = CentralModel(Capacity(1000.0))
    central.lose_log()
    with pytest.raises(PositionGone):
        await central.events(1001, 1, 20)


@in_virtual_time
async def test_a_collapsing_proxy_asks_once() -> None:
    """Fifty stores at the same position are one poll to Central; another position is another."""
    central = CentralModel(Capacity(1000.0), collapses=True)
    polls = [asyncio.ensure_future(central.events(1001, 100, 20)) for _ in range(50)]
    other = asyncio.ensure_future(central.events(1000, 100, 20))
    await asyncio.sleep(1.0)
    central.publish()
    pages = await asyncio.gather(*polls)
    await other

    assert {1001} == {page_.events[0].offset for page_ in pages}
    assert 2 == sum(central.tally.kinds.values())


# -- the models of a store's parts -------------------------------------------------------------


@in_virtual_time
async def test_the_modelled_replica_requests_the_pages_that_the_real_one_requests() -> None:
    """Overlaps included, whether the last page is full or not."""
    for products in (1, 999, 1000, 1001, 2500):
        central = CentralModel(Capacity(1e6), products=products)
        chain = sizes.Chain(products)
        model = ReplicaModel()
        replica = Replica(held=None, same_generation=True, now=0.0, grace_seconds=2.0)
        counted: PageRequest | None = model.first_request()
        real: PageRequest | None = replica.first_request()
        while counted is not None and real is not None:
            assert counted == real
            counted = model.take_page(counted, await central.page(counted))
            real = replica.take_page(real, await chain.client.page(real))

        assert counted is real is None
        assert products == len(model.catalogue) == len(replica.catalogue)
        await chain.client.close()


def test_the_same_outage_gives_the_same_return() -> None:
    """Only seeds decide; every store is in sync in the end."""
    first, second = play(SMALL), play(SMALL)

    assert first == second
    assert 20 == len(first.in_sync)
    assert 0 == first.full_syncs


def test_without_jitter_all_stores_come_at_once() -> None:
    """In one tenth of a second; jitter spreads them over several."""
    calm = play(SMALL)
    together = play(Outage(20, 60.0, Capacity(100.0), jitter=False))

    assert together.busiest_tenth >= 20
    assert calm.busiest_tenth < together.busiest_tenth


def test_a_lost_log_makes_every_store_read_everything() -> None:
    found = play(Outage(5, 60.0, Capacity(1000.0), is_log_lost=True, products=2000))

    assert 5 == found.full_syncs == len(found.in_sync)
    assert 15 <= found.kinds["page"]


def test_tills_make_the_sales_of_the_outage_afterwards() -> None:
    """A sale that Central answers wakes the sync."""
    found = play(Outage(5, 60.0, Capacity(1000.0), sales_per_second=0.5))

    assert found.kinds["write"] >= 5
    assert 5 == len(found.in_sync)


@pytest.mark.parametrize(
    ("pace", "events", "requests"),
    [
        (SyncSettings(), 0.0, 0.05),
        (SyncSettings(), 1.0, 1.0),
        (SyncSettings(continuous=False), 1.0, 0.1),
    ],
)
def test_how_often_a_store_sends_requests(
    pace: SyncSettings, events: float, requests: float
) -> None:
    """A quiet feed: once in `wait` seconds. One event a second: as often. By interval: three
    requests in half a minute, whatever happens."""
    assert requests == pytest.approx(habit(pace, events).requests, rel=0.05)


# -- the arithmetic of the page ----------------------------------------------------------------

HABITS: Habits = {
    0.0: Habit(0.05, 0.05, 0.0),
    1.0: Habit(1.0, 0.0, 1.0),
    100.0: Habit(40.0, 0.0, 100.0),
}


@pytest.mark.parametrize(
    ("events", "requests"), [(0.0, 0.05), (0.5, 0.525), (1.0, 1.0), (10.0, 20.5), (1e6, 40.0)]
)
def test_figures_between_the_simulated_ones_are_interpolated(
    events: float, requests: float
) -> None:
    assert requests == pytest.approx(page.requests_at(HABITS, events))


def test_most_stores_returns_the_largest_number() -> None:
    """One more would be too many."""
    assert 31 == page.most_stores(lambda stores: stores * stores / 100, 10.0)
    assert 0 == page.most_stores(lambda stores: 11.0 * stores, 10.0)


def test_the_busiest_second_may_begin_anywhere() -> None:
    """It is found by tenths."""
    arrived = (0,) * 8 + (5,) * 4 + (0,) * 8

    assert 20 == max(map(sum, windowed(arrived)))
    assert [3] == [sum(second) for second in windowed((1, 2))]


def test_when_a_share_of_the_stores_was_in_sync() -> None:
    """The one that completes the share counts; a share that was never reached has no time."""
    found = Return(Outage(4, 60.0, Capacity(1.0)), (), (), {}, (1.0, 2.0, 7.0), 0, 0.0)

    assert (2.0, None) == (found.in_sync_after(0.5), found.in_sync_after(1.0))


def test_tables_are_written_between_their_markers() -> None:
    """The text around them stays; a page without the markers is an error."""
    text = "# A\n<!-- begin: x -->\nold\n<!-- end: x -->\nB\n"

    assert "# A\n<!-- begin: x -->\nnew\n<!-- end: x -->\nB\n" == page.replaced(text, "x", "new")
    with pytest.raises(ValueError, match="begin: y"):
        page.replaced(text, "y", "new")


def test_the_page_has_a_place_for_every_case() -> None:
    text = (ROOT / "docs" / "scale.md").read_text()

    assert [] == [name for name in CASES if f"<!-- begin: {name} -->" not in text]


# -- what was measured -------------------------------------------------------------------------


def point(way: str, stores: int) -> Point:
    """A point of a Central to which an event for one store costs 1 ms, a poll that is held for a
    second 0.1 ms, and which keeps half a core busy whatever happens."""
    events, seconds = 10, 40.0
    answers = stores * events
    quiet = 0.5 + 0.0001 * stores
    return Point(
        way=way,
        stores=stores,
        quiet=Watched(20.0, 0, stores, {"Central": 20.0 * quiet}),
        busy=Watched(seconds, events, answers, {"Central": seconds * quiet + 0.001 * answers}),
        visible_seconds=[0.1, 0.3],
        alone={name: {"Central": cost} for name, cost in ALONE.items()},
        load=1.0,
    )


ALONE = {"report": 0.006, "write": 0.002, "page": 0.0208}


def test_costs_follow_from_few_and_many_stores() -> None:
    """They give the processor time that was measured back, and that of other numbers."""
    costs = costs_of([point(FOLDER, 1), point(FOLDER, 100), point(FOLDER, 300)], FOLDER)

    assert (0.5, 0.0001) == pytest.approx((costs.background["Central"], costs.held["Central"]))
    assert (0.001, 0.0002) == pytest.approx((costs.answer["Central"], costs.more["Central"]))
    busy = costs.cores("Central", stores=1000, events=2.0, answers=2000.0, more=500.0)
    assert 0.5 + 0.1 + 2.0 + 0.1 + 0.004 + 0.1 == pytest.approx(busy)


def test_what_is_measured_is_kept_as_it_was(tmp_path: Path) -> None:
    points = [point(FOLDER, 1), point(FOLDER, 300)]
    save(points, tmp_path / "points.json")

    assert points == load(tmp_path / "points.json")


@pytest.mark.parametrize(
    ("events", "polls"), [(0.0, 0.05), (0.5, 0.525), (1.0, 1.0), (10.0, 40.0**0.5), (1e6, 40.0)]
)
def test_polls_between_the_simulated_ones_are_interpolated_in_logarithms(
    events: float, polls: float
) -> None:
    assert polls == pytest.approx(polls_at(HABITS, events))


def test_the_page_has_what_was_measured() -> None:
    """The tables of docs/scale.md are those of the kept figures."""
    text = (ROOT / "docs" / "scale.md").read_text()

    assert costs_table(load(KEPT)) in text


def test_sizes_grow_with_what_is_sent() -> None:
    """They are counted on real encodings: a head and its events, and the pages of a full sync."""
    found = sizes.measure(2500)
    per_event = (found[sizes.EVENTS_500].down - found[sizes.EVENTS_100].down) / 400

    assert 3 == found[sizes.FULL_SYNC].requests
    assert found[sizes.FULL_SYNC].down > 2.5 * found[sizes.PAGE].down * 0.95
    assert math.isclose(
        found[sizes.EMPTY].down + 100 * per_event, found[sizes.EVENTS_100].down, rel_tol=0.01
    )
