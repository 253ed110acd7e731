"""What the publisher writes of a page: every offset in order, and a gap for what never comes."""

from central_stub.publisher.pages import FeedPage
from central_stub.publisher.plan import GAP, MOST_GAPS, PATIENCE_SECONDS, Plan, plan


def planned(
    *offsets: int, leads_to: int | None = None, more: bool | None = None, missing: float = 0.0
) -> Plan:
    """What is planned at offset 5 of a page of at most 4 events."""
    page = FeedPage({offset: b"%d" % offset for offset in offsets}, leads_to, more, "g-1")
    return plan(page, offset=5, limit=4, missing_seconds=missing)


def test_events_in_order_are_published() -> None:
    assert planned(5, 6, 7) == Plan((b"5", b"6", b"7"), is_at_end=True)


def test_the_order_of_the_page_does_not_matter() -> None:
    assert planned(7, 5, 6, leads_to=7) == Plan((b"5", b"6", b"7"), is_at_end=True)


def test_a_full_page_is_not_the_end() -> None:
    assert not planned(5, 6, 7, 8).is_at_end
    assert not planned(5, more=True).is_at_end
    assert planned(5, 6, 7, 8, more=False).is_at_end


def test_an_empty_page_is_the_end() -> None:
    assert planned() == planned(leads_to=5) == Plan(is_at_end=True)


def test_a_missing_event_is_waited_for() -> None:
    assert planned(6, 7) == Plan(is_missing=True)
    assert planned(5, 7) == Plan((b"5",), is_missing=True)
    assert planned(6, missing=PATIENCE_SECONDS - 0.1) == Plan(is_missing=True)


def test_what_stays_missing_becomes_a_gap() -> None:
    """Only the offsets before the next event: that one is published with the page after."""
    assert planned(7, 8, missing=PATIENCE_SECONDS) == Plan((GAP, GAP))


def test_offsets_missing_at_the_end_become_gaps() -> None:
    """Central says that its feed leads further, and has no event there."""
    assert planned(leads_to=7) == Plan(is_missing=True)
    assert planned(leads_to=7, missing=PATIENCE_SECONDS) == Plan((GAP, GAP))
    assert len(planned(leads_to=10**6, missing=9.0).messages) == MOST_GAPS
