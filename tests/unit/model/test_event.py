"""Events of Central's feed, in the shapes that deployed Centrals send."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store_cache.model.event import (
    AnyEvent,
    Event,
    Kind,
    QuarantinedEvent,
    UnreadableEvent,
    WriteName,
    fingerprint,
    read_event,
    read_events,
)
from store_cache.model.product import read_product

DATA: dict[str, Any] = {"productId": "PROD-001", "name": "Cup", "available": 8, "version": 7}
UPDATED: dict[str, Any] = {
    "offset": 1046,
    "timestamp": "2024-01-15T10:30:00Z",
    "eventType": "inventory_updated",
    "productId": "PROD-001",
    "version": 7,
    "data": DATA,
}
DELETED: dict[str, Any] = UPDATED | {"eventType": "product_deleted", "version": 8}


def without(value: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: item for name, item in value.items() if name not in names}


def read(value: object) -> Event:
    event = read_event(value)
    assert isinstance(event, Event)
    return event


@pytest.mark.parametrize(
    ("event_type", "kind"),
    [
        ("inventory_updated", Kind.UPDATED),
        ("product_modified", Kind.UPDATED),
        ("product_updated", Kind.UPDATED),
        ("product_created", Kind.CREATED),
    ],
)
def test_an_event_carries_the_product_after_it(event_type: str, kind: Kind) -> None:
    """[E5] Every event type in use, of older Centrals too, is of one of three kinds."""
    event = read(UPDATED | {"eventType": event_type})

    assert (1046, kind, "PROD-001", 7, read_product(DATA).body) == event[:5]


@pytest.mark.parametrize("data", [DATA, {}, None, "absent", {"version": -1}])
def test_a_deletion_needs_no_product(data: object) -> None:
    """[V2] It may carry the product as it was, something else or no data; none of it is parsed."""
    value = without(DELETED, "data") if data == "absent" else DELETED | {"data": data}
    event = read(value)

    assert (Kind.DELETED, 8, None) == (event.kind, event.version, event.body)


@pytest.mark.parametrize("value", [without(DELETED, "version"), DELETED | {"version": None}])
def test_a_deletion_may_leave_its_version_out(value: dict[str, Any]) -> None:
    """[V2] 0 means that the version is not known."""
    assert 0 == read(value).version


def test_envelope_and_data_complete_each_other() -> None:
    """[E5] A version in one of the two is enough, and so is the id in the envelope."""
    assert 7 == read(without(UPDATED, "version")).version
    body = read_product(DATA).body
    assert body == read(UPDATED | {"data": without(DATA, "version")}).body
    assert body == read(UPDATED | {"data": without(DATA, "productId")}).body


@pytest.mark.parametrize(
    ("value", "product_id", "reason"),
    [
        (UPDATED | {"eventType": "product_frobnicated"}, "PROD-001", "unknown eventType"),
        (without(UPDATED, "eventType"), "PROD-001", "unknown eventType 'None'"),
        (UPDATED | {"eventType": ["x"]}, "PROD-001", "unknown eventType"),
        (without(UPDATED, "data"), "PROD-001", "must be an object"),
        (UPDATED | {"data": []}, "PROD-001", "must be an object"),
        (UPDATED | {"data": DATA | {"available": -2}}, "PROD-001", "available is -2"),
        (UPDATED | {"data": DATA | {"productId": "B"}}, "PROD-001", "productId is 'B'"),
        (UPDATED | {"version": 8}, "PROD-001", "version is 7 where 8 was expected"),
        (UPDATED | {"version": 0}, "PROD-001", "version must be a whole number from 1"),
        (UPDATED | {"version": True}, "PROD-001", "version must be a whole number from 1"),
        (DELETED | {"version": "8"}, "PROD-001", "version must be a whole number from 1"),
        (without(UPDATED, "productId"), "PROD-001", "productId is missing"),
        (UPDATED | {"productId": ""}, "PROD-001", "productId is missing"),
        (UPDATED | {"productId": 5}, "PROD-001", "productId is missing"),
        ({"offset": 1046, "eventType": "product_updated"}, None, "productId is missing"),
    ],
)
def test_an_unreadable_event_is_quarantined(
    value: dict[str, Any], product_id: str | None, reason: str
) -> None:
    """[E5] With its offset, the reason and, if it names one, the product to refetch."""
    event = read_event(value)

    assert isinstance(event, QuarantinedEvent)
    assert (1046, product_id) == (event.offset, event.product_id)
    assert reason in event.reason
    assert fingerprint(value) == event.fingerprint


def test_a_quarantine_reason_is_short() -> None:
    """[E5] An event type of a megabyte does not fill the log."""
    event = read_event(UPDATED | {"eventType": "x" * 1_000_000})

    assert isinstance(event, QuarantinedEvent)
    assert len(event.reason) < 200


ODD_OFFSETS = [{"offset": odd} for odd in (None, "1046", 1046.0, True, -1, 2**53)]


@pytest.mark.parametrize("value", [None, [], "1046", {}, *(UPDATED | odd for odd in ODD_OFFSETS)])
def test_an_event_without_an_offset_is_refused(value: object) -> None:
    """[P4] Offsets alone say what is contiguous."""
    with pytest.raises(UnreadableEvent, match="offset"):
        read_event(value)


def test_an_event_may_name_its_write() -> None:
    """[W3] Store and key as they were sent to Central."""
    names = {"storeId": "store-s1", "idempotencyKey": "store-s1-order-12345"}

    assert WriteName(*names.values()) == read(UPDATED | names).write


@pytest.mark.parametrize(
    "names",
    [
        {},
        {"storeId": "store-s1"},
        {"idempotencyKey": "k"},
        {"storeId": "store-s1", "idempotencyKey": ""},
        {"storeId": None, "idempotencyKey": "k"},
        {"storeId": "store-s1", "idempotencyKey": 5},
    ],
)
def test_half_a_writes_name_is_none(names: dict[str, Any]) -> None:
    """[W3] The event applies all the same."""
    assert read(UPDATED | names).write is None


DEEP: list[Any] = []
for _ in range(600):
    DEEP = [DEEP]


@pytest.mark.parametrize("value", [UPDATED | {"note": DEEP}, DELETED | {"data": DEEP}])
def test_values_nested_too_deep_are_left_out_of_the_fingerprint(value: dict[str, Any]) -> None:
    """[E5] The event applies."""
    shallow = without(value, "note", "data") if value["data"] is DEEP else without(value, "note")

    assert read(shallow)._replace(raw=value) == read(value)
    assert fingerprint(value) == fingerprint(without(value, "note", "data"))


def test_the_fingerprint_tells_events_apart() -> None:
    """[E4] Another event at the same offset has another one, whatever the difference."""
    others = [
        UPDATED | {"timestamp": "2024-01-15T10:30:01Z"},
        UPDATED | {"data": DATA | {"available": 9}},
        UPDATED | {"offset": 1047},
        without(UPDATED, "timestamp"),
    ]

    assert 5 == len({fingerprint(value) for value in (UPDATED, *others)})


def test_the_fingerprint_does_not_depend_on_the_order_of_fields() -> None:
    """[E4] A Central that orders its fields in another way after an upgrade is the same one."""
    turned = dict(reversed(UPDATED.items())) | {"data": dict(reversed(DATA.items()))}

    assert fingerprint(UPDATED) == fingerprint(turned)


ODD: dict[str, list[object]] = {
    "offset": [0, 1047, True, -1, 2**53, None],
    "eventType": ["product_created", "product_deleted", "?", ["x"], None],
    "productId": ["PROD-001", "B", "", None],
    "version": [7, 8, True, 7.0, 0, None],
    "data": [DATA, DATA | {"version": True}, {}, None, []],
}


@st.composite
def entries(draw: st.DrawFn) -> object:
    """An entry of a page, correct or odd in some of its parts."""
    odd = draw(st.lists(st.sampled_from(sorted(ODD)), unique=True, max_size=2))
    return UPDATED | {name: draw(st.sampled_from(ODD[name])) for name in odd}


def outcome(read_page: Callable[[], list[AnyEvent]]) -> object:
    try:
        return read_page()
    except UnreadableEvent as problem:
        return str(problem)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(st.just(UPDATED), entries(), st.none()), max_size=4))
def test_a_page_is_parsed_as_its_events_one_by_one(values: list[object]) -> None:
    """[E5] Its fast path, by columns, makes no difference."""
    expected = outcome(lambda: [read_event(value) for value in values])

    assert expected == outcome(lambda: read_events(values))
