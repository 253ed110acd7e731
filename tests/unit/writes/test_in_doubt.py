"""What the feed proves of a write whose outcome is unknown (W3)."""

from dataclasses import replace

import orjson
import pytest

from store_cache.model.event import AnyEvent, Event, Kind, QuarantinedEvent, WriteName
from store_cache.model.stock import StockAnswer
from store_cache.writes.idempotency import Attempt
from store_cache.writes.in_doubt import InDoubtWrite, InDoubtWrites
from store_cache.writes.write import Applied, Refused

OURS = WriteName("store-s1", "store-s1-sale")
THEIRS = WriteName("store-s2", "store-s2-sale")


def attempt(held: int | None = 6) -> Attempt:
    """An attempt sent with version 6; `held` is the version held before."""
    return Attempt("sale", b"", "P-1", 6, at=1000.0, held_version=held)


def event(
    version: int,
    write: WriteName | None = THEIRS,
    *,
    kind: Kind = Kind.UPDATED,
    product_id: str = "P-1",
) -> Event:
    value = {"productId": product_id, "available": 3, "lastUpdated": "2024-01-15T10:30:00Z"}
    body = None if kind is Kind.DELETED else orjson.dumps(value)
    names = {} if write is None else {"storeId": write.store_id, "idempotencyKey": write.key}
    return Event(version, kind, product_id, version, body, names)


def unreadable(offset: int, product_id: str | None) -> QuarantinedEvent:
    return QuarantinedEvent(offset, product_id, "of an unknown type", "f")


def conflict(version: int | None) -> Refused:
    return Refused("version_conflict", "no", 3, version)


def verdict(
    *events: Event, refusal: Refused | None = None, held: int | None = 6
) -> Applied | Refused | None:
    write = InDoubtWrite(attempt(held), store_id="store-s1")
    for each in events:
        write.observe(each)
    if refusal is not None:
        write.observe_refusal(refusal)
    return write.verdict


def test_an_event_that_names_the_attempt_proves_it_applied() -> None:
    """The quantity is that of the event's row."""
    expected = Applied(StockAnswer("P-1", 6, 7, 3, "2024-01-15T10:30:00Z"))

    assert expected == verdict(event(7, OURS))


@pytest.mark.parametrize(
    "other",
    [
        event(7, WriteName("store-s2", "store-s1-sale")),
        event(7, WriteName("store-s1", "store-s1-sale~2")),
        event(8, OURS),
        event(7, OURS, kind=Kind.DELETED),
        event(7, OURS, product_id="P-2"),
    ],
)
def test_an_event_of_another_write_proves_nothing(other: Event) -> None:
    """Store, key, product and version sent plus one must all be the attempt's own."""
    assert verdict(other) is None


def test_a_refusal_alone_proves_nothing() -> None:
    """Central may have forgotten the key."""
    assert verdict(refusal=conflict(7)) is None


def test_a_refusal_is_proof_once_another_write_has_made_the_next_version() -> None:
    """The event and the refusal may arrive in any order; events of later versions say nothing."""
    write = InDoubtWrite(attempt(), store_id="store-s1")
    write.observe(event(8, None))
    write.observe_refusal(conflict(8))
    assert write.verdict is None

    write.observe(event(7))

    assert conflict(8) == write.verdict


@pytest.mark.parametrize(
    "spoiler",
    [
        event(7, None),
        event(7, kind=Kind.DELETED),
        event(1, kind=Kind.CREATED),
        event(8, OURS),
    ],
)
def test_an_event_that_could_hide_the_attempt_ends_what_a_refusal_can_prove(spoiler: Event) -> None:
    """An event without a name, another incarnation of the product, an impossible version."""
    assert verdict(spoiler, event(7), event(8), refusal=conflict(8)) is None


def test_a_version_held_before_the_first_sending_needs_no_event() -> None:
    """It is older than the attempt."""
    assert conflict(9) == verdict(refusal=conflict(9), held=7)


def test_an_event_of_the_next_version_counts_more_than_the_version_held() -> None:
    """[V2] The row held may be of an incarnation that had ended, while its refetch was pending."""
    assert verdict(event(7, None), refusal=conflict(9), held=9) is None
    assert conflict(9) == verdict(event(7), refusal=conflict(9), held=9)


@pytest.mark.parametrize(("version", "held"), [(None, 6), (5, 6), (7, 8)])
def test_a_refusal_at_a_lower_version_is_no_proof(version: int | None, held: int) -> None:
    """Below the version sent or held (a restored Central, a later incarnation), or unknown."""
    assert verdict(event(7), refusal=conflict(version), held=held) is None


def test_a_refusal_at_the_very_version_sent_is_proof() -> None:
    """Had the attempt been applied, the version would be higher."""
    refusal = Refused("insufficient_inventory", "no", 0, 6)

    assert refusal == verdict(refusal=refusal)


def test_an_event_settles_the_keys_of_its_product() -> None:
    """Events of other products, and of dropped attempts, settle nothing."""
    writes = InDoubtWrites(store_id="store-s1")
    writes.add(attempt())

    assert [] == list(writes.observe([event(7), event(7, OURS, product_id="P-2")]))
    assert ["sale"] == [key for key, _ in writes.observe([event(7, OURS)])]

    writes.drop(attempt())

    assert writes.get(attempt()) is None
    assert [] == list(writes.observe([event(7, OURS)]))


@pytest.mark.parametrize(
    ("followed", "read_to"),
    [
        ([[event(5), event(6), event(7)]], 8),
        ([[event(7), event(8, product_id="P-2")], [event(9)]], 10),
        ([[event(8)]], 7),
        ([[event(7)], [event(9)], [event(8)]], 9),
        ([[event(7), unreadable(8, "P-2")]], 9),
        ([[event(7), unreadable(8, "P-1")]], 7),
        ([[event(7), unreadable(8, None)]], 7),
    ],
    ids=[
        "from before the attempt",
        "of other products",
        "a gap",
        "up to a gap",
        "unreadable, of another product",
        "unreadable",
        "unreadable, of an unknown product",
    ],
)
def test_what_the_store_follows_is_not_read_again(
    followed: list[list[AnyEvent]], read_to: int
) -> None:
    """As far as it is without a gap: in a large chain the feed may be faster than a search."""
    writes, sent = InDoubtWrites(store_id="store-s1"), replace(attempt(), offset=7)
    writes.add(sent)
    for events in followed:
        list(writes.observe(events))

    found = writes.get(sent)
    assert found is not None
    assert read_to == found.read_to
