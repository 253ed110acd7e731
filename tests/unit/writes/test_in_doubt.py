"""What the feed proves of a write whose outcome is unknown (W3)."""

import orjson
import pytest

from store_cache.model.event import Event, Kind, WriteName
from store_cache.model.stock import StockAnswer
from store_cache.writes.in_doubt import InDoubtWrite, InDoubtWrites
from store_cache.writes.write import Applied, Refused

OURS = WriteName("store-s1", "store-s1-sale")
THEIRS = WriteName("store-s2", "store-s2-sale")


def watch(*, sent: int = 6, held: int | None = 6) -> InDoubtWrite:
    return InDoubtWrite(name=OURS, product_id="P-1", sent_version=sent, held_version=held)


def event(
    version: int,
    write: WriteName | None = THEIRS,
    *,
    kind: Kind = Kind.UPDATED,
    product_id: str = "P-1",
) -> Event:
    value = {"productId": product_id, "available": 3, "lastUpdated": "2024-01-15T10:30:00Z"}
    body = None if kind is Kind.DELETED else orjson.dumps(value)
    told = {} if write is None else {"storeId": write.store_id, "idempotencyKey": write.key}
    return Event(version, kind, product_id, version, body, told)


def conflict(version: int | None) -> Refused:
    return Refused("version_conflict", "no", 3, version)


def test_an_event_that_names_the_attempt_proves_it_applied() -> None:
    """With the quantity of the event's row."""
    seen = watch()
    seen.see(event(7, OURS))

    assert Applied(StockAnswer("P-1", 6, 7, 3, "2024-01-15T10:30:00Z")) == seen.verdict


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
def test_an_event_of_another_write_does_not(other: Event) -> None:
    """Store, key, product and version sent plus one must all be its own."""
    seen = watch()
    seen.see(other)

    assert seen.verdict is None


def test_a_refusal_alone_proves_nothing() -> None:
    """Central may have forgotten the key."""
    seen = watch()
    seen.refused(conflict(7))

    assert seen.verdict is None


def test_a_refusal_is_proof_once_named_events_cover_every_version_since() -> None:
    """In whatever order the versions and the refusal arrive."""
    seen = watch()
    seen.see(event(8))
    seen.refused(conflict(8))
    assert seen.verdict is None

    seen.see(event(7))

    assert conflict(8) == seen.verdict


@pytest.mark.parametrize(
    "spoiler",
    [
        event(7, None),
        event(9, None),
        event(7, kind=Kind.DELETED),
        event(1, kind=Kind.CREATED),
        event(8, OURS),
    ],
)
def test_an_event_that_could_hide_the_attempt_ends_what_a_refusal_can_prove(spoiler: Event) -> None:
    """An event without a name, another life of the product, an impossible version."""
    seen = watch()
    seen.see(spoiler)
    for version in (7, 8):
        seen.see(event(version))
    seen.refused(conflict(8))

    assert seen.verdict is None


def test_versions_held_before_the_first_sending_need_no_event() -> None:
    """What came before the attempt cannot be it."""
    seen = watch(sent=6, held=9)
    seen.see(event(8, None))
    seen.refused(conflict(9))

    assert conflict(9) == seen.verdict


@pytest.mark.parametrize("version", [None, 5, 8])
def test_a_refusal_that_speaks_of_another_version_is_no_proof(version: int | None) -> None:
    """Below the version sent (a Central restored), or above what the events cover."""
    seen = watch()
    seen.see(event(7))
    seen.refused(conflict(version))

    assert seen.verdict is None


def test_a_refusal_at_the_very_version_sent_is_proof() -> None:
    """Had the attempt been applied, the version would be higher: too little stock is that."""
    seen = watch()
    refusal = Refused("insufficient_inventory", "no", 0, 6)
    seen.refused(refusal)

    assert refusal == seen.verdict


def test_what_a_watch_remembers_is_bounded() -> None:
    """Versions far ahead of a hole are not collected for ever; there is no proof then."""
    seen = watch()
    for version in range(8, 2_000):
        seen.see(event(version))
    seen.see(event(7))
    seen.refused(conflict(8))

    assert seen.verdict is None


def test_watches_name_the_keys_that_an_event_settles() -> None:
    """Only products that are watched cost anything."""
    watches = InDoubtWrites()
    watches.put("sale", watch())

    assert [] == list(watches.see([event(7), event(7, OURS, product_id="P-2")]))
    assert ["sale"] == [key for key, _ in watches.see([event(7, OURS)])]

    watches.drop("sale", "P-1")

    assert watches.get("sale", "P-1") is None
    assert [] == list(watches.see([event(7, OURS)]))
