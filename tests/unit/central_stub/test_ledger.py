"""The ledger's rules, without a network."""

import random
from collections.abc import Callable, Sequence
from typing import Any

import orjson
import pytest

from central_stub.feed import Lateness
from central_stub.ledger import Change, Ledger, PositionGone
from central_stub.rules import Update
from central_stub.switches import Feature, Switches
from tests.harness.postgres import BlockingLedger, Postgres

NOON = 1_750_000_000.0


LedgerOf = Callable[..., Any]
"""Makes a ledger with two products, and with these switches: `Ledger`, or one in a database."""


@pytest.fixture(params=["memory", "postgres"])
def a_ledger(request: pytest.FixtureRequest) -> LedgerOf:
    """On each of the two ledgers."""

    def make(products: Sequence[str] = ("P1", "P2"), **switches: Any) -> Any:
        if request.param == "memory":
            return with_products(Ledger(generation="g-1", switches=Switches(**switches)), products)
        started: Postgres = request.getfixturevalue("postgres")
        backend = started.backend(Switches(**switches), lambda: "g-1")
        return with_products(BlockingLedger(started.loop, backend), products)

    return make


def a_local_ledger(**switches: Any) -> Ledger:
    """One in memory, for what only that can do."""
    ledger = Ledger(generation="g-1", switches=Switches(**switches))
    with_products(ledger, ("P1", "P2"))
    return ledger


def with_products(ledger: Any, product_ids: Sequence[str]) -> Any:
    for product_id in product_ids:
        ledger.create({"productId": product_id, "available": 10, "price": 1.5}, NOON)
    return ledger


def sale(product_id: str, delta: int, version: int, key: str) -> Update:
    return Update(product_id, delta, version, key, store_id="s1")


def stock(ledger: Any, product_id: str) -> tuple[int, int]:
    row = ledger.read(product_id) or {}
    return row["available"], row["version"]


def offsets(ledger: Any, offset: int, now: float = NOON) -> list[int]:
    return [event["offset"] for event in ledger.events(offset, 100, now).events]


def test_applied_write_raises_the_version_and_adds_one_event(a_ledger: LedgerOf) -> None:
    """The event names the write."""
    ledger = a_ledger()

    answer = ledger.update(sale("P1", -3, 1, "k1"), NOON)

    row = {
        "productId": "P1",
        "available": 7,
        "price": 1.5,
        "version": 2,
        "lastUpdated": "2025-06-15T15:06:40.000Z",
    }
    assert {
        "productId": "P1",
        "newQuantity": 7,
        "newVersion": 2,
        "applied": True,
        "lastUpdated": "2025-06-15T15:06:40.000Z",
    } == answer
    assert row == ledger.read("P1")
    assert {
        "offset": 3,
        "timestamp": "2025-06-15T15:06:40.000Z",
        "eventType": "inventory_updated",
        "productId": "P1",
        "version": 2,
        "data": row,
        "storeId": "s1",
        "idempotencyKey": "k1",
    } == ledger.events(3, 10, NOON).events[0]
    assert [1, 2, 3] == offsets(ledger, 1)


@pytest.mark.parametrize(
    ("update", "error_type", "current"),
    [
        (sale("P1", -1, 2, "k"), "version_conflict", (10, 1)),
        (sale("P1", -11, 1, "k"), "insufficient_inventory", (10, 1)),
        (sale("P9", -1, 1, "k"), "product_not_found", (None, None)),
    ],
)
def test_refusal_changes_nothing_and_has_the_current_state(
    a_ledger: LedgerOf, update: Update, error_type: str, current: tuple[int | None, int | None]
) -> None:
    """No event, no new version; the current quantity and version if there are any."""
    ledger = a_ledger()
    before = ledger.backup()["products"]

    answer = ledger.update(update, NOON)

    assert (False, error_type) == (answer["applied"], answer["errorType"])
    assert current == (answer.get("newQuantity"), answer.get("newVersion"))
    assert before == ledger.backup()["products"]
    assert 2 == ledger.head


def test_a_repeated_key_gets_the_first_answer(a_ledger: LedgerOf) -> None:
    """Applied once, however often it is sent."""
    ledger = a_ledger()
    first = ledger.update(sale("P1", -3, 1, "k1"), NOON)

    again = ledger.update(sale("P1", -3, 1, "k1"), NOON + 100)

    assert first == again
    assert 3 == ledger.head


def test_refusals_are_remembered_too(a_ledger: LedgerOf) -> None:
    """A conflict stays one for its key, even when the version matches later."""
    ledger = a_ledger()
    first = ledger.update(sale("P1", -1, 2, "k1"), NOON)
    ledger.update(sale("P1", -1, 1, "k2"), NOON)

    assert first == ledger.update(sale("P1", -1, 2, "k1"), NOON)


def test_key_used_for_another_product_gets_the_first_answer(a_ledger: LedgerOf) -> None:
    """Keys are global: the numbers are those of the first product."""
    ledger = a_ledger()
    ledger.update(sale("P1", -3, 1, "k1"), NOON)

    answer = ledger.update(sale("P2", -1, 1, "k1"), NOON)

    assert ("P2", 7, True) == (answer["productId"], answer["newQuantity"], answer["applied"])
    assert {"available": 10, "version": 1}.items() <= (ledger.read("P2") or {}).items()


def test_rows_answers_and_events_come_back_as_they_were(a_ledger: LedgerOf) -> None:
    """Bytes, not the database's JSON: numbers keep their kind, texts their NUL."""
    ledger = a_ledger(())
    odd = {"productId": "X", "a": 1.0, "b": 10**15, "c": 1e22, "d": "\0", "e": [None, -0.0, {}]}
    ledger.create(odd, NOON)
    ledger.set({"productId": "X", "available": 3}, NOON)

    row = ledger.read("X")
    data = ledger.events(2, 1, NOON).events[0]["data"]

    for held in (row, data):
        assert orjson.dumps(odd)[:-1] == orjson.dumps({name: held[name] for name in odd})[:-1]


def test_a_forgotten_key_is_a_new_write(a_ledger: LedgerOf) -> None:
    """Memory ends some seconds after the first answer."""
    ledger = a_ledger(key_memory_seconds=120)
    ledger.update(sale("P1", -1, 1, "k1"), NOON)
    ledger.update(sale("P1", -1, 1, "k1"), NOON + 119)

    answer = ledger.update(sale("P1", -1, 1, "k1"), NOON + 120)

    assert "version_conflict" == answer["errorType"]


def test_deletion_has_the_next_version_and_creation_starts_at_one(a_ledger: LedgerOf) -> None:
    """An incarnation ends with version + 1, and the next begins at 1."""
    ledger = a_ledger()

    ended = ledger.delete("P1", NOON)
    ledger.create({"productId": "P1", "available": 4}, NOON)

    deleted, created = ledger.events(3, 10, NOON).events
    assert (2, "product_deleted", 2) == (
        ended["newVersion"],
        deleted["eventType"],
        deleted["version"],
    )
    assert 10 == deleted["data"]["available"]
    assert ("product_created", 1) == (created["eventType"], created["version"])


def test_set_keeps_attributes_that_it_does_not_name(a_ledger: LedgerOf) -> None:
    """Only stock: inventory_updated; anything else: product_modified."""
    ledger = a_ledger()

    ledger.set({"productId": "P1", "available": 5}, NOON)
    ledger.set({"productId": "P1", "tags": ["a"], "note": None}, NOON)

    row = ledger.read("P1") or {}
    assert {"available": 5, "price": 1.5, "tags": ["a"], "note": None, "version": 3} == {
        name: row[name] for name in ("available", "price", "tags", "note", "version")
    }
    kinds = [event["eventType"] for event in ledger.events(3, 10, NOON).events]
    assert ["inventory_updated", "product_modified"] == kinds


def test_ids_that_differ_only_by_case_are_two_products_in_code_point_order(
    a_ledger: LedgerOf,
) -> None:
    """Any string is an id, NUL included; pages are sorted by code points."""
    ledger = a_ledger(("a/b", "84970s", "é", "84970S", "BANK CHARGES", "..", "𝄞", "a\0"))

    ids = [row["productId"] for row in ledger.page(0, 100)]

    assert ["..", "84970S", "84970s", "BANK CHARGES", "a\0", "a/b", "é", "𝄞"] == ids
    assert ["a\0", "a/b"] == [row["productId"] for row in ledger.page_after("BANK CHARGES", 2)]


def test_pages_are_capped_silently(a_ledger: LedgerOf) -> None:
    """A request for more than the limit gets the limit."""
    ledger = a_ledger(page_limit=1)

    assert ["P1"] == [row["productId"] for row in ledger.page(0, 50)]
    assert ["P2"] == [row["productId"] for row in ledger.page_after("P1", 50)]


def test_an_offset_below_the_log_is_gone(a_ledger: LedgerOf) -> None:
    """The log is bounded by the event limit."""
    ledger = a_ledger(event_limit=2)
    ledger.set({"productId": "P1", "available": 1}, NOON)

    with pytest.raises(PositionGone) as gone:
        ledger.events(1, 10, NOON)

    assert 2 == gone.value.first
    assert [2, 3] == offsets(ledger, 2)


def test_without_gone_the_log_is_cut_silently(a_ledger: LedgerOf) -> None:
    """The page starts at the oldest event."""
    ledger = a_ledger(event_limit=1, without=frozenset({Feature.GONE}))

    assert [2] == offsets(ledger, 1)


def test_empty_page_names_the_next_offset(a_ledger: LedgerOf) -> None:
    """At the head the same offset; beyond it a lower one."""
    ledger = a_ledger()

    assert 3 == ledger.events(3, 10, NOON).next_offset
    assert 3 == ledger.events(50, 10, NOON).next_offset


def test_lost_event_stays_a_gap(a_ledger: LedgerOf) -> None:
    """`lose_next` uses the offset without an event."""
    ledger = a_ledger()
    ledger.lose_next(1)

    ledger.set({"productId": "P1", "available": 1}, NOON)
    ledger.set({"productId": "P1", "available": 2}, NOON)

    assert [1, 2, 4] == offsets(ledger, 1)


def test_a_lie_has_no_event(a_ledger: LedgerOf) -> None:
    """The product differs, but the feed does not show it."""
    ledger = a_ledger()

    ledger.lie("P1", {"available": 99})
    ledger.lie("P2", None)

    assert (99, 1) == ((ledger.read("P1") or {})["available"], (ledger.read("P1") or {})["version"])
    assert (None, 2) == (ledger.read("P2"), ledger.head)


def test_a_crash_loses_the_end_of_the_log_and_keeps_its_stock() -> None:
    """The offsets are used again, and the feed shows nothing of the lost sales."""
    ledger = a_local_ledger()
    for version in (1, 2, 3):
        ledger.update(sale("P1", -1, version, f"k{version}"), NOON)

    ledger.crash("events", 2)

    assert ([1, 2, 3], 4) == (offsets(ledger, 1), ledger.next_offset)
    assert (7, 4) == stock(ledger, "P1")
    assert ledger.update(sale("P1", -1, 3, "k3"), NOON)["applied"]  # its answer is remembered
    ledger.update(sale("P2", -1, 1, "k4"), NOON)
    assert "P2" == ledger.events(4, 1, NOON).events[0]["productId"]


def test_a_crash_loses_no_more_of_the_log_than_there_is() -> None:
    ledger = a_local_ledger()
    ledger.forget_log()
    ledger.update(sale("P1", -1, 1, "k1"), NOON)

    ledger.crash("events", 900)

    assert (3, 3) == (ledger.next_offset, ledger.oldest)


def test_a_crash_loses_the_last_stock_and_keeps_its_events() -> None:
    """The products are as before the sales, and their keys are forgotten."""
    ledger = a_local_ledger()
    ledger.update(sale("P1", -1, 1, "k1"), NOON)
    ledger.update(sale("P1", -1, 2, "k2"), NOON)
    ledger.update(sale("P1", -1, 3, "k3"), NOON)
    ledger.delete("P2", NOON)
    ledger.create({"productId": "P3", "available": 4}, NOON)

    ledger.crash("stock", 4)

    assert [1, 2, 3, 4, 5, 6, 7] == offsets(ledger, 1)
    assert ((9, 2), (10, 1), None) == (stock(ledger, "P1"), stock(ledger, "P2"), ledger.read("P3"))
    again = ledger.update(sale("P1", -5, 2, "k2"), NOON)
    assert (4, 3, True) == (again["newQuantity"], again["newVersion"], again["applied"])
    assert 9 == ledger.update(sale("P1", -1, 1, "k1"), NOON)["newQuantity"]


def test_a_digest_is_of_the_stock_that_a_crash_has_left() -> None:
    ledger = a_local_ledger()
    before = ledger.digest(256)
    ledger.update(sale("P1", -1, 1, "k1"), NOON)
    assert before != ledger.digest(256)

    ledger.crash("stock", 1)

    assert before == ledger.digest(256)


def test_new_generation_keeps_products_and_restarts_offsets(a_ledger: LedgerOf) -> None:
    """Offsets of the old feed have no meaning in the new one."""
    ledger = a_ledger()

    ledger.begin_generation("g-2")
    ledger.set({"productId": "P1", "available": 1}, NOON)

    assert ("g-2", [1], 2) == (ledger.generation, offsets(ledger, 1), len(ledger))


def test_a_restored_ledger_uses_offsets_again(a_ledger: LedgerOf) -> None:
    """Changes after the backup are lost, and their offsets are used again."""
    ledger = a_ledger()
    backup = orjson.loads(orjson.dumps(ledger.backup()))
    ledger.update(sale("P1", -1, 1, "k1"), NOON)

    ledger.restore(backup, "g-1")
    ledger.update(sale("P2", -1, 1, "k2"), NOON)

    assert (3, "P2") == (ledger.head, ledger.events(3, 1, NOON).events[0]["productId"])
    assert 10 == (ledger.read("P1") or {})["available"]
    assert "applied" in ledger.update(sale("P1", -1, 1, "k1"), NOON)


def test_a_wiped_ledger_is_empty(a_ledger: LedgerOf) -> None:
    """No products, no keys, offsets from 1."""
    ledger = a_ledger()
    ledger.update(sale("P1", -1, 1, "k1"), NOON)

    ledger.wipe("g-2")

    assert (0, 0, []) == (len(ledger), ledger.head, ledger.backup()["keys"])
    assert 1 == ledger.events(0, 10, NOON).next_offset


def walk(ledger: Ledger, source: random.Random) -> None:
    """Three hundred operations of every kind."""
    now = NOON
    for number in range(300):
        now += source.random() / 10
        product_id = f"P{source.randrange(6)}"
        version = (ledger.read(product_id) or {"version": 1})["version"]
        match source.randrange(12):
            case 0:
                ledger.create({"productId": product_id, "available": 50}, now)
            case 1:
                ledger.delete(product_id, now)
            case 2:
                ledger.set({"productId": product_id, "price": number}, now)
            case 3:
                ledger.lie(product_id, {"available": number})
            case 4 if number % 7 == 0:
                ledger.forget_log()
            case 5 if number % 7 == 0:
                ledger.begin_generation(f"g-{number}")
            case 6 if number % 7 == 0:
                ledger.settle(now + 1)  # what is still late would be lost with the log
                ledger.crash("events", source.randrange(1, 5))
            case 7 if number % 3 == 0:
                ledger.crash("stock", source.randrange(1, 5))
            case _:
                ledger.update(sale(product_id, -1, version, f"k{number % 250}"), now)
        ledger.lose_next(1 if number % 50 == 0 else 0)


@pytest.mark.parametrize("seed", range(5))
def test_recorded_changes_lead_to_the_same_ledger(seed: int) -> None:
    """A journal of the changes, through JSON, is the ledger: products, log, keys, generation."""
    source, journal = random.Random(seed), list[bytes]()
    switches = Switches(without=frozenset({Feature.ORDER}), event_limit=40)

    def record(change: Change) -> None:
        journal.append(orjson.dumps(change))

    def lateness() -> Lateness:
        return source.choice([Lateness(), Lateness(0.3, 0), Lateness(0, 0.3)])

    ledger = Ledger(generation="g-1", switches=switches, lateness=lateness, record=record)
    walk(ledger, source)
    ledger.settle(NOON + 1e6)

    again = Ledger(generation="g-1", switches=switches)
    again.replay(map(orjson.loads, journal))

    ledger.forget_keys()
    again.forget_keys()
    assert ledger.backup() == again.backup()
