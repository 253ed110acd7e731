"""Late events: how late they are, and what a page looks like meanwhile."""

import random
from collections.abc import Iterator

from central_stub.feed import LONGEST_LATENESS_SECONDS, Lateness, draw_lateness
from central_stub.ledger import Ledger
from central_stub.switches import Feature, Switches

NOON = 1_750_000_000.0
IN_TIME = Lateness()
PUBLISHED_LATE = Lateness(publish_after_seconds=0.1)
NUMBERED_LATE = Lateness(number_after_seconds=0.1)


def a_disorderly_ledger(*lateness: Lateness) -> Ledger:
    """A product at version 1 (event 1) and one write for each further lateness."""
    fates: Iterator[Lateness] = iter([IN_TIME, *lateness])
    ledger = Ledger(
        generation="g-1",
        switches=Switches(without=frozenset({Feature.ORDER})),
        lateness=lambda: next(fates),
    )
    ledger.create({"productId": "P1"}, NOON)
    for stock, _ in enumerate(lateness, start=1):
        ledger.set({"productId": "P1", "available": stock}, NOON)
    return ledger


def seen(ledger: Ledger, offset: int, now: float) -> list[tuple[int, int]]:
    page = ledger.events(offset, 100, now)
    return [(event["offset"], event["version"]) for event in page.events]


def test_event_published_late_is_a_gap_that_next_offset_skips() -> None:
    """A poller that trusts nextOffset loses it; a poll from the gap is answered at once."""
    ledger = a_disorderly_ledger(PUBLISHED_LATE, IN_TIME)

    assert [(1, 1), (3, 3)] == seen(ledger, 1, NOON)
    assert [(3, 3)] == seen(ledger, 2, NOON)
    assert 4 == ledger.events(2, 100, NOON).next_offset


def test_missing_event_appears_after_younger_ones() -> None:
    """An older offset follows a newer one, and nextOffset goes back."""
    ledger = a_disorderly_ledger(PUBLISHED_LATE, IN_TIME)

    assert [(1, 1), (3, 3), (2, 2)] == seen(ledger, 1, NOON + 0.1)
    assert 3 == ledger.events(1, 100, NOON + 0.1).next_offset
    assert [(2, 2)] == seen(ledger, 2, NOON + 0.1)[-1:]


def test_event_numbered_late_is_out_of_order() -> None:
    """Offsets have no gap, but the older version gets the later one."""
    ledger = a_disorderly_ledger(NUMBERED_LATE, IN_TIME)

    assert [(1, 1), (2, 3)] == seen(ledger, 1, NOON)
    assert [(1, 1), (2, 3), (3, 2)] == seen(ledger, 1, NOON + 0.1)


def test_the_product_is_never_late() -> None:
    """The catalogue shows a write at once, however late its event is."""
    ledger = a_disorderly_ledger(NUMBERED_LATE)

    assert {"available": 1, "version": 2}.items() <= (ledger.read("P1") or {}).items()


def test_due_at_is_the_time_of_the_next_late_event() -> None:
    """None if no event is late."""
    ledger = a_disorderly_ledger(PUBLISHED_LATE, NUMBERED_LATE)

    assert NOON + 0.1 == ledger.due_at
    ledger.settle(NOON + 0.1)
    assert ledger.due_at is None


def test_in_order_nothing_is_ever_late() -> None:
    """With the feature `order`, `lateness` is not called."""
    ledger = Ledger(generation="g-1", lateness=lambda: NUMBERED_LATE)

    ledger.create({"productId": "P1"}, NOON)

    assert [(1, 1)] == seen(ledger, 1, NOON)


def test_drawn_lateness_is_bounded_and_repeats_with_its_seed() -> None:
    """At most that of deployed Centrals; all three kinds occur."""
    drawn = [draw_lateness(source) for source in [random.Random(7)] for _ in range(500)]
    again = [draw_lateness(source) for source in [random.Random(7)] for _ in range(500)]

    assert drawn == again
    waits = {max(late.number_after_seconds, late.publish_after_seconds) for late in drawn}
    assert max(waits) <= LONGEST_LATENESS_SECONDS
    assert 0 in waits
    assert any(late.number_after_seconds for late in drawn)
    assert any(late.publish_after_seconds for late in drawn)
