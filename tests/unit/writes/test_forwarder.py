"""Writes on their way to Central: promises 3 and 4, W1 and W3 to W6, T16, T17."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from contextlib import suppress
from dataclasses import replace
from math import inf
from time import perf_counter
from typing import Any, TypeVar

import pytest

from store_cache.central.failures import (
    CentralError,
    LimitExceeded,
    PositionGone,
    RequestRefused,
    Unreachable,
)
from store_cache.model.position import Position
from store_cache.writes import admission
from store_cache.writes.admission import WRITES_IN_FLIGHT
from store_cache.writes.write import Adjustment, Write, WriteError
from tests.harness.clock import NOON
from tests.harness.virtual_time import in_virtual_time, run
from tests.unit.writes.selling import Central, Store, Trouble, sale

ADJUST = Adjustment("P-1", -2, "sale")
T = TypeVar("T")


@pytest.fixture
async def store() -> Store:
    return Store(Central())


async def failure(call: Awaitable[object]) -> WriteError:
    with pytest.raises(WriteError) as caught:
        await call
    return caught.value


async def held_at_central(store: Store, call: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Start a call whose write arrives at Central and waits there for `may_answer`."""
    store.central.may_answer.clear()
    store.central.arrived.clear()
    task = asyncio.create_task(call)
    await store.central.arrived.wait()
    return task


async def wakes() -> None:
    """Let every task go as far as it can without Central's answer."""
    for _ in range(20):
        await asyncio.sleep(0)


async def left_unknown(store: Store, trouble: Trouble = Trouble.REQUEST_LOST) -> None:
    store.central.troubles.append(trouble)
    await failure(store.forwarder.update(sale()))


# -- one write -----------------------------------------------------------------------------


async def test_a_write_is_forwarded_with_the_stores_prefix(store: Store) -> None:
    """The key goes to Central as `<STORE_ID>-<key>`, always prefixed."""
    write = Write("P-1", -2, 1, "order-12345", reason="Sale", updated_by="cashier123")

    answer = await store.forwarder.update(write)

    names = {"storeId": "store-s1", "productId": "P-1", "idempotencyKey": "store-s1-order-12345"}
    others = {"delta": -2, "version": 1, "reason": "Sale", "updatedBy": "cashier123"}
    assert [names | others] == store.central.sent
    assert 200 == answer.status
    assert {"newQuantity": 8, "newVersion": 2, "applied": True}.items() <= answer.body.items()


async def test_each_write_is_told_with_the_seconds_that_it_took(store: Store) -> None:
    """For the metrics: no longer than the caller has waited."""
    told: list[float] = []
    store.forwarder.on_result = lambda _, seconds: told.append(seconds)
    began_at = perf_counter()
    await store.forwarder.update(sale())
    await asyncio.sleep(0)
    [seconds] = told

    assert 0.0 <= seconds <= perf_counter() - began_at


async def test_an_attempt_is_on_disk_before_it_is_sent(store: Store) -> None:
    """W1: its key, version and number."""
    on_disk: list[dict[str, Any]] = []
    store.central.on_sent = lambda: on_disk.extend(store.writer.records)

    await store.forwarder.update(sale())

    assert [("sale", 1, 1)] == [
        (record["key"], record["version"], record["attempt"]) for record in on_disk
    ]


async def test_an_answer_says_how_long_ago_it_may_have_been_applied(store: Store) -> None:
    """W6: since the write was first sent, however long its answer was under way."""

    def pass_time() -> None:
        store.now += 2.5

    store.central.on_sent = pass_time
    await store.forwarder.update(sale())

    [answer] = store.writer.answers
    assert 2.5 == answer.age_seconds


@pytest.mark.parametrize(
    ("position", "generation"), [(Position("g-1", 10), "g-1"), (None, "")], ids=str
)
async def test_an_answer_names_the_feed_that_was_followed_when_its_write_was_sent(
    store: Store, position: Position | None, generation: str
) -> None:
    """W6: the feed may be replaced while the answer is under way."""
    store.writer.position = position

    def replace_feed() -> None:
        store.writer.position = Position("g-2", 10)

    store.central.on_sent = replace_feed
    await store.forwarder.update(sale())

    [answer] = store.writer.answers
    assert generation == answer.generation


@pytest.mark.parametrize(("is_unknown", "age_seconds"), [(False, 0.0), (True, inf)])
async def test_the_age_of_an_answer_if_the_clock_was_set_back(
    store: Store, is_unknown: bool, age_seconds: float
) -> None:
    """W6: only a write that was sent before may have been applied at any time."""
    if is_unknown:
        await left_unknown(store)

    def set_back() -> None:
        store.now -= 60.0

    store.central.on_sent = set_back
    await store.forwarder.update(sale())

    [answer] = store.writer.answers
    assert age_seconds == answer.age_seconds


async def test_a_final_answer_is_on_disk_and_in_the_cache_before_it_is_given(store: Store) -> None:
    """Promise 3, W1 and W6."""
    await store.forwarder.update(sale())

    assert "applied" in store.writer.records[-1]
    assert (8, 2) == (store.writer.quantities["P-1"], store.writer.versions["P-1"])


async def test_a_snapshot_has_a_final_answer_only_once_its_record_is_durable(store: Store) -> None:
    """[W1] [D2] The record is also that of the row that the write changed, which the snapshot would
    not have. A repeat that comes meanwhile waits for it."""
    held = store.writer.hold_settlements()
    writing = asyncio.create_task(store.forwarder.update(sale()))
    await held.reached.wait()
    repeating = asyncio.create_task(store.forwarder.update(sale()))
    await wakes()
    before = [*store.keys.encoded()]
    held.release.set()

    assert await writing == await repeating
    assert ["attempt"] == [*map(kind_of, before)]
    assert ["applied"] == [*map(kind_of, store.keys.encoded())]
    assert 1 == len(store.central.sent)


def kind_of(record: bytes) -> str:
    return "applied" if b'"applied"' in record else "attempt"


@pytest.mark.parametrize(
    ("write", "status", "error_type"),
    [
        (sale(version=9), 409, "version_conflict"),
        (sale(delta=-11), 409, "insufficient_inventory"),
        (sale(product_id="P-9"), 404, "product_not_found"),
    ],
)
async def test_a_refusal_has_its_status_and_is_remembered(
    store: Store, write: Write, status: int, error_type: str
) -> None:
    """409, or 404 for a product that Central does not know. A repeat gets the same."""
    answer = await store.forwarder.update(write)

    assert (status, error_type) == (answer.status, answer.body["errorType"])
    assert answer == await store.forwarder.update(write)
    assert 1 == len(store.central.sent)


async def test_some_centrals_take_no_returns(store: Store) -> None:
    """Their `invalid_request` is passed on as 400."""
    store.switch(refuse_positive=True)

    answer = await store.forwarder.update(sale(delta=2))

    assert (400, "invalid_request") == (answer.status, answer.body["errorType"])


async def test_a_conflict_has_the_product_refetched_before_it_is_answered(store: Store) -> None:
    """W6; also if Central names a lower version than the one held (E4)."""
    store.central.sell()
    await store.forwarder.update(sale())
    store.writer.versions["P-1"] = 9
    await store.forwarder.update(sale("other"))

    assert [("P-1", 2), ("P-1", 2)] == store.refetches.outdated
    assert 2 == store.writer.versions["P-1"]


async def test_a_refusal_for_the_stock_says_what_it_is(store: Store) -> None:
    """W6: if Central does not, it is read once, and a repeat gets the same answer."""
    store.central.tells_stock = False

    answer = await store.forwarder.update(sale(delta=-11))

    assert (409, 10, 1) == (answer.status, answer.body["newQuantity"], answer.body["newVersion"])
    assert answer == await store.restarted().forwarder.update(sale(delta=-11))
    assert ["P-1"] == store.refetches.reads


@pytest.mark.parametrize(
    ("held", "said"), [(2, (9, 2)), (3, (9, 3)), (1, (None, None)), (None, (None, None))]
)
async def test_a_stock_that_cannot_be_read_is_the_one_held_unless_that_is_older(
    store: Store, held: int | None, said: tuple[int | None, int | None]
) -> None:
    """W6: a refusal for version 2 proves that Central has it: what is older is not the stock."""
    store.central.sell()
    store.central.tells_stock = False
    store.refetches.failure = Unreachable("no connection")
    store.writer.quantities["P-1"] = 9
    store.writer.versions.pop("P-1")
    if held is not None:
        store.writer.versions["P-1"] = held

    answer = await store.forwarder.update(sale(version=2, delta=-11))

    assert (409, "insufficient_inventory") == (answer.status, answer.body["errorType"])
    assert said == (answer.body.get("newQuantity"), answer.body.get("newVersion"))


# -- repeats -------------------------------------------------------------------------------


async def test_a_repeat_gets_the_first_answer_again_also_after_a_restart(store: Store) -> None:
    """Nothing is sent again, even if Central has forgotten the key (promise 4)."""
    first = await store.forwarder.update(sale())
    store.central.ledger.forget_keys()

    assert first == await store.forwarder.update(sale())
    assert first == await store.restarted().forwarder.update(sale())
    assert ["store-s1-sale"] == store.central.keys


async def test_a_repeated_answer_is_in_the_cache_when_it_is_given_again(store: Store) -> None:
    """Promise 3, if the cache fell behind the answer meanwhile."""
    await store.forwarder.update(sale())
    store.writer.versions["P-1"], store.writer.quantities["P-1"] = 1, 10

    await store.restarted().forwarder.update(sale())

    assert (8, 2) == (store.writer.quantities["P-1"], store.writer.versions["P-1"])


async def test_a_repeated_answer_is_not_applied_to_another_incarnation(store: Store) -> None:
    """[W6] The product was deleted and created again since the answer, and Central is away: its
    stock stays, in the cache and on disk, and a refetch is requested."""
    first = await store.forwarder.update(sale())
    store.writer.versions["P-1"], store.writer.quantities["P-1"] = 1, 500
    records = len(store.writer.records)
    store.refetches.failure = Unreachable("no connection")

    assert first == await store.forwarder.update(sale())
    assert (500, 1) == (store.writer.quantities["P-1"], store.writer.versions["P-1"])
    assert records == len(store.writer.records)
    assert [("P-1", None)] == store.refetches.outdated


@pytest.mark.parametrize("is_within_retention", [True, False])
async def test_a_repeat_of_a_write_from_before_the_key_table_says_so(
    is_within_retention: bool,
) -> None:
    """[W1] [W3] The store lost its files after the write was applied, and sends it with another
    version. Central still knows the key: nothing is sold twice, and the answer names the case,
    unless every key of the retention is remembered."""
    central = Central()
    await Store(central).forwarder.adjust(ADJUST)
    emptied = Store(central)
    emptied.writer.versions["P-1"] = 2
    emptied.keys.since = NOON - 60.0 if is_within_retention else NOON - 86_400.0
    error = await failure(emptied.forwarder.adjust(ADJUST))

    assert "central_timeout" == error.code
    assert "another write holds this idempotency key" in error.details["reason"]
    says_when = "memory of keys began at 2023-11-14T22:12:20+00:00" in error.details["reason"]
    assert is_within_retention == says_when
    assert (8, 2) == central.stock("P-1")


async def test_calls_with_the_same_write_share_one_attempt(store: Store) -> None:
    """The later ones join the first."""
    first = await held_at_central(store, store.forwarder.update(sale()))
    others = [asyncio.create_task(store.forwarder.update(sale())) for _ in range(2)]
    await asyncio.sleep(0)
    store.central.may_answer.set()

    answers = await asyncio.gather(first, *others)

    assert [answers[0]] * 3 == answers
    assert 1 == len(store.central.sent)


@pytest.mark.parametrize("is_final", [False, True])
async def test_a_key_used_for_another_write_is_refused(store: Store, is_final: bool) -> None:
    """T16: by every call, and nothing of the first write is shown or sent, but who used the key."""
    by_till_3 = replace(sale(), client="till-3")
    first = await held_at_central(store, store.forwarder.update(by_till_3))
    if is_final:
        store.central.may_answer.set()
        await first

    errors = [
        await failure(store.forwarder.update(sale(delta=-3))),
        await failure(store.forwarder.update_batch([sale("new"), sale(version=2)])),
        await failure(store.forwarder.adjust(ADJUST)),
    ]

    assert ["idempotency_key_reused"] * 3 == [error.code for error in errors]
    said = {"idempotencyKey": "sale", "firstUsedBy": "till-3"}
    assert all(error.details.items() >= said.items() for error in errors)
    assert 3 == store.forwarder.status().keys_reused
    assert 1 == len(store.central.sent)
    store.central.may_answer.set()
    await first


async def test_a_client_that_disconnects_cancels_nothing(store: Store) -> None:
    """W5: the write goes on, and a repeat gets its answer."""
    call = await held_at_central(store, store.forwarder.update(sale()))
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    store.central.may_answer.set()

    answer = await store.forwarder.update(sale())

    assert 200 == answer.status
    assert 1 == len(store.central.sent)


# -- unknown outcomes ----------------------------------------------------------------------


@pytest.mark.parametrize("trouble", [Trouble.ANSWER_LOST, Trouble.REQUEST_LOST])
async def test_an_unknown_outcome_is_settled_by_the_very_same_attempt(
    store: Store, trouble: Trouble
) -> None:
    """504, and a repeat sends the same key and version: applied once (promise 4)."""
    store.central.troubles.append(trouble)

    error = await failure(store.forwarder.update(sale()))
    answer = await store.forwarder.update(sale())

    assert ("central_timeout", 504) == (error.code, error.status)
    assert "sale" == error.details["idempotencyKey"]
    assert store.central.sent[0] == store.central.sent[1]
    assert (200, (8, 2)) == (answer.status, store.central.stock("P-1"))


async def test_an_attempt_of_an_earlier_process_is_unknown(store: Store) -> None:
    """W1: it is sent again with its own version, not with the one held now."""
    store.central.troubles.append(Trouble.ANSWER_LOST)
    await failure(store.forwarder.adjust(ADJUST))
    again = store.restarted()
    again.writer.versions["P-1"] = 7

    answer = await again.forwarder.adjust(ADJUST)

    assert store.central.sent[0] == store.central.sent[1]
    assert (200, 2) == (answer.status, answer.body["newVersion"])


@pytest.mark.parametrize("trouble", [Trouble.REQUEST_LOST, Trouble.TRIED_TWICE])
async def test_a_refusal_after_an_unknown_attempt_proves_nothing(
    store: Store, trouble: Trouble
) -> None:
    """W3: if events do not name their write, the outcome stays unknown."""
    store.switch(unnamed_writes=True)
    store.central.sell()
    store.central.troubles.append(trouble)

    errors = [await failure(store.forwarder.update(sale())) for _ in range(3)]

    assert ["central_timeout"] * 3 == [error.code for error in errors]
    assert 1 == store.forwarder.status().unknown


@pytest.mark.parametrize("is_followed", [False, True])
async def test_a_refusal_is_proof_if_the_feed_names_every_write_since(
    store: Store, is_followed: bool
) -> None:
    """W3; also if an earlier process has followed the feed past those events."""
    await left_unknown(store)
    store.central.sell()
    if is_followed:
        store.writer.position = replace(store.writer.position or NotImplemented, offset=4)

    answer = await store.restarted().forwarder.update(sale())

    assert (409, 2) == (answer.status, answer.body["newVersion"])


@pytest.mark.parametrize("is_named", [True, False])
async def test_a_refusal_by_an_incarnation_that_the_store_does_not_know_proves_nothing(
    store: Store, is_named: bool
) -> None:
    """[W3] Seeds 99000279 and 99003896: a till sells by an old screen, and the store is behind.
    Central has deleted and created the product since, applies a repeat, forgets its key, and
    refuses the next one at the very version that the store held."""
    store.switch(unnamed_writes=not is_named)
    store.writer.versions["P-1"] = 3
    await left_unknown(store)
    store.central.ledger.delete("P-1", NOON)
    store.central.create("P-1")
    await left_unknown(store, Trouble.ANSWER_LOST)
    store.central.ledger.forget_keys()
    store.central.sell()

    repeat = store.restarted().forwarder.update(sale())

    assert (7, 3) == store.central.stock("P-1")
    if is_named:
        assert (200, 2) == ((answer := await repeat).status, answer.body["newVersion"])
    else:
        assert "central_timeout" == (await failure(repeat)).code


async def test_an_attempt_that_met_a_defect_of_the_store_is_unknown(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """No call waits forever, nothing counts as certain, and the log has the cause."""
    store.switch(unnamed_writes=True)
    store.central.sell()
    store.central.troubles.append(Trouble.DEFECT)

    errors = [await failure(store.forwarder.update(sale())) for _ in range(2)]

    assert ["central_timeout"] * 2 == [error.code for error in errors]
    assert "a defect" in caplog.text


async def test_a_feed_that_cannot_be_read_again_proves_nothing(store: Store) -> None:
    """The till gets its 504 and may repeat the write."""
    await left_unknown(store)
    store.central.sell()
    store.central.faults["events"].append(PositionGone("older than Central's log holds"))

    assert "central_timeout" == (await failure(store.forwarder.update(sale()))).code


async def test_positions_of_another_feed_prove_nothing(store: Store) -> None:
    """P1: offsets of another generation, whether Central names it or not."""
    store.switch(without=["generation"])
    await left_unknown(store)
    store.central.sell()
    store.writer.position = replace(store.writer.position or NotImplemented, generation="g-2")

    assert "central_timeout" == (await failure(store.forwarder.update(sale()))).code


async def test_an_applied_write_that_central_forgot_is_found_on_the_feed(store: Store) -> None:
    """A version conflict does not prove that the first attempt was not applied."""
    await left_unknown(store, Trouble.ANSWER_LOST)
    store.central.ledger.forget_keys()
    store.central.sell()

    answer = await store.restarted().forwarder.update(sale())

    assert (200, 2, 8) == (answer.status, answer.body["newVersion"], answer.body["newQuantity"])
    assert (7, 3) == store.central.stock("P-1")


async def test_the_feed_settles_an_unknown_attempt_by_itself(store: Store) -> None:
    """After an event that names it, a repeat is answered without Central."""
    await left_unknown(store, Trouble.ANSWER_LOST)

    await store.follow()
    await store.forwarder.stop(within_seconds=5)

    assert "applied" in store.writer.records[-1]
    assert 200 == (await store.forwarder.update(sale())).status
    assert 1 == len(store.central.sent)


async def test_an_event_may_come_before_the_answer(store: Store) -> None:
    """It counts if the answer is lost."""
    store.central.troubles.append(Trouble.ANSWER_LOST)
    call = await held_at_central(store, store.forwarder.update(sale()))
    store.central.apply(sale())
    await store.follow()
    store.central.may_answer.set()

    assert 200 == (await call).status
    assert (8, 2) == store.central.stock("P-1")


async def test_an_event_may_come_while_the_stock_is_read(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[W3] Seed 101002571: the answer is lost, and the store asks Central what the stock is. The
    event that names the write settles it."""

    async def read(_: str, *, seconds: float) -> None:
        assert seconds
        await store.follow()

    monkeypatch.setattr(store.refetches, "read", read)
    store.central.troubles.append(Trouble.ANSWER_LOST)

    assert 200 == (await store.forwarder.update(sale())).status
    assert "applied" in store.writer.records[-1]


# -- nothing sent --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trouble", "code", "retry_after_seconds", "told"),
    [
        (Trouble.UNREACHABLE, "central_unavailable", 1.0, "no connection"),
        (Trouble.LIMITED, "central_unavailable", 7.0, "Central limits requests"),
        (Trouble.WRONG_KEY, "central_error", None, "see CENTRAL_API_KEY"),
    ],
)
async def test_a_write_that_cannot_have_been_applied_frees_its_key(
    store: Store, trouble: Trouble, code: str, retry_after_seconds: float | None, told: str
) -> None:
    """W3: the cause is named, also when to come back, and the key may be used for another write."""
    store.central.troubles.append(trouble)

    error = await failure(store.forwarder.update(sale()))
    breaker = store.admission.status().breaker
    store.admission.sync_reached_central()

    assert (code, retry_after_seconds) == (error.code, error.retry_after_seconds)
    assert told in error.message
    assert (trouble is Trouble.UNREACHABLE) == (breaker == "open"), "the others are no outage"
    assert 200 == (await store.forwarder.update(sale(delta=-3))).status


async def test_what_may_have_been_applied_is_never_answered_as_never_sent(store: Store) -> None:
    """After an unknown attempt only Central or the feed can settle it: 504, not 503 or 502."""
    store.central.troubles.extend(
        [Trouble.ANSWER_LOST, Trouble.WRONG_KEY, Trouble.LIMITED, Trouble.UNREACHABLE]
    )

    codes = [(await failure(store.forwarder.update(sale()))).code for _ in range(5)]

    assert ["central_timeout"] * 5 == codes
    assert 4 == len(store.central.sent), "the last one met an open breaker"


async def test_a_full_table_refuses_new_keys_and_answers_old_ones() -> None:
    """W1: rather than forget an old key."""
    store = Store(Central(), capacity=1)
    first = await store.forwarder.update(sale())

    error = await failure(store.forwarder.update(sale("other")))

    assert "storage_unavailable" == error.code
    assert first == await store.forwarder.update(sale())
    assert 1 == len(store.central.sent)


# -- PATCH ---------------------------------------------------------------------------------


async def test_an_adjustment_is_sent_with_the_version_held(store: Store) -> None:
    """It is answered and remembered like an update."""
    answer = await store.forwarder.adjust(ADJUST)

    assert (200, 2) == (answer.status, answer.body["newVersion"])
    assert answer == await store.restarted().forwarder.adjust(ADJUST)
    assert 1 == len(store.central.sent)


async def test_an_adjustment_that_meets_a_conflict_is_sent_with_centrals_version(
    store: Store,
) -> None:
    """Each attempt has a key of its own, and is on disk before it is sent."""
    on_disk: list[list[int]] = []
    store.central.on_sent = lambda: on_disk.append(
        [record["attempt"] for record in store.writer.records]
    )
    store.central.sell()

    answer = await store.forwarder.adjust(ADJUST)

    assert ["store-s1-sale", "store-s1-sale~2"] == store.central.keys
    assert [1, 2] == [payload["version"] for payload in store.central.sent]
    assert [[1], [1, 2]] == on_disk
    assert (200, 7) == (answer.status, answer.body["newQuantity"])
    assert answer == await store.restarted().forwarder.adjust(ADJUST)


async def test_a_conflict_is_the_answer_after_five_attempts(store: Store) -> None:
    """Another store was faster each time."""
    store.central.on_sent = store.central.sell

    answer = await store.forwarder.adjust(ADJUST)

    assert (409, "version_conflict") == (answer.status, answer.body["errorType"])
    assert [f"store-s1-sale{end}" for end in ("", "~2", "~3", "~4", "~5")] == store.central.keys
    assert 1 == len(store.refetches.outdated)


async def test_no_attempt_follows_one_whose_outcome_is_unknown(store: Store) -> None:
    """Not even if the repeat meets a conflict: that proves nothing."""
    store.switch(unnamed_writes=True)
    store.central.troubles.append(Trouble.REQUEST_LOST)
    await failure(store.forwarder.adjust(ADJUST))
    store.central.sell()

    error = await failure(store.forwarder.adjust(ADJUST))

    assert "central_timeout" == error.code
    assert ["store-s1-sale"] * 2 == store.central.keys


async def test_no_attempt_follows_one_that_only_the_feed_proved_refused(store: Store) -> None:
    """It was unknown: the conflict is the answer."""
    store.central.troubles.append(Trouble.REQUEST_LOST)
    await failure(store.forwarder.adjust(ADJUST))
    store.central.sell()
    store.central.faults["events"].append(PositionGone("older than Central's log holds"))
    await failure(store.forwarder.adjust(ADJUST))
    call = await held_at_central(store, store.forwarder.adjust(ADJUST))
    await store.follow()
    store.central.may_answer.set()

    assert 409 == (await call).status
    assert ["store-s1-sale"] * 3 == store.central.keys


@pytest.mark.parametrize(
    ("trouble", "code"),
    [(Trouble.ANSWER_LOST, "central_timeout"), (Trouble.LIMITED, "central_unavailable")],
)
@pytest.mark.parametrize("is_restarted", [False, True])
async def test_a_later_attempt_without_an_answer_is_the_one_repeated(
    store: Store, trouble: Trouble, code: str, is_restarted: bool
) -> None:
    """The same attempt again: `~2`, with its version, whether it was sent or not."""
    store.central.sell()
    store.central.troubles.extend([Trouble.NONE, trouble])
    error = await failure(store.forwarder.adjust(ADJUST))

    later = store.restarted() if is_restarted else store
    answer = await later.forwarder.adjust(ADJUST)

    assert code == error.code
    assert ["store-s1-sale", "store-s1-sale~2", "store-s1-sale~2"] == store.central.keys
    assert store.central.sent[1] == store.central.sent[2]
    assert (200, (7, 3)) == (answer.status, store.central.stock("P-1"))


async def test_an_adjustment_of_a_product_not_held_fetches_it_first(store: Store) -> None:
    """It may be new."""
    del store.writer.versions["P-1"]

    assert 200 == (await store.forwarder.adjust(ADJUST)).status


@pytest.mark.parametrize("attempts", [1, 3])
async def test_an_adjustment_before_the_first_catalogue_reads_its_product(
    store: Store, attempts: int
) -> None:
    """W8: the first full sync of a shop takes minutes; each sale reads its version itself."""
    store.writer.forget_everything()

    answers = [await store.forwarder.adjust(each) for each in adjustments(attempts, "P-1")]

    assert [200] * attempts == [answer.status for answer in answers]
    assert list(range(1, attempts + 1)) == [payload["version"] for payload in store.central.sent]
    assert ["P-1"] * attempts == store.refetches.reads


@pytest.mark.parametrize(
    ("failure_of_reading", "has_catalogue", "code", "seconds"),
    [
        (Unreachable("no connection"), False, "central_unavailable", 1.0),
        (LimitExceeded("a limit", retry_after_seconds=7.0), False, "central_unavailable", 7.0),
        (RequestRefused("no such call", status=404), False, "central_unavailable", 1.0),
        (Unreachable("no connection"), True, "central_unavailable", 1.0),
        (RequestRefused("no such call", status=404), True, "product_not_found", None),
    ],
)
async def test_an_adjustment_whose_product_cannot_be_read_was_not_sent(
    store: Store,
    failure_of_reading: CentralError,
    has_catalogue: bool,
    code: str,
    seconds: float | None,
) -> None:
    """W3: its key is free. It is 404 only if the catalogue has every product that can be read."""
    store.refetches.failure = failure_of_reading
    if not has_catalogue:
        store.writer.forget_everything()

    error = await failure(store.forwarder.adjust(Adjustment("P-9", -1, "sale")))

    assert (code, seconds) == (error.code, error.retry_after_seconds)
    assert [] == store.central.sent
    assert 0 == len(store.keys)


async def test_an_adjustment_of_a_product_that_does_not_exist_is_404(store: Store) -> None:
    """There is no version to send; its key stays free."""
    adjustment = Adjustment("P-9", -1, "sale")

    error = await failure(store.forwarder.adjust(adjustment))

    assert ("product_not_found", 404) == (error.code, error.status)
    assert {"productId": "P-9"} == error.details
    assert 200 == (await store.forwarder.adjust(ADJUST)).status


# -- the turn at a product -----------------------------------------------------------------


def adjustments(count: int, *products: str) -> list[Adjustment]:
    """Sales of one piece each, of these products in turn."""
    return [Adjustment(products[n % len(products)], -1, f"till-{n}") for n in range(count)]


@pytest.mark.parametrize(("count", "products"), [(50, 1), (1000, 4)])
def test_adjustments_of_one_product_never_meet_each_other(count: int, products: int) -> None:
    """W8: each is sent once, with the version that the answer before it made visible, and all of
    them are applied within their deadline at a Central that answers within 20 ms."""

    async def rush() -> tuple[set[int], int, list[int]]:
        store = Store(Central())
        names = [store.stock_up(f"hot-{n}", count) for n in range(products)]
        store.central.answers_after = 0.02
        sales = adjustments(count, *names)
        answers = await asyncio.gather(*map(store.forwarder.adjust, sales))
        left = [store.central.stock(name)[0] for name in names]
        return {answer.status for answer in answers}, len(store.central.sent), left

    assert ({200}, count, [count - count // products] * products) == run(rush())


async def test_writes_to_a_product_go_in_the_order_in_which_they_came(store: Store) -> None:
    """W8: also writes that name their version; other products do not wait."""
    first = await held_at_central(store, store.forwarder.update(sale("a")))
    rest = [sale("b", version=2), sale("other", product_id="P-2"), sale("c", version=3)]
    calls = [asyncio.create_task(store.forwarder.update(write)) for write in rest]
    await wakes()
    sent = list(store.central.keys)
    store.central.may_answer.set()
    answers = await asyncio.gather(first, *calls)

    assert ["store-s1-a", "store-s1-other"] == sent
    assert ["store-s1-b", "store-s1-c"] == store.central.keys[2:]
    assert [200] * 4 == [answer.status for answer in answers]


async def test_batches_take_their_products_in_the_order_of_ids(store: Store) -> None:
    """W8: so two that name the same products the other way round both go."""
    calls = [
        store.forwarder.update_batch([sale("a1", version=1), sale("a2", product_id="P-2")]),
        store.forwarder.update_batch(
            [sale("b2", product_id="P-2", version=2), sale("b1", version=2)]
        ),
    ]

    results = [result for answer in await asyncio.gather(*calls) for result in answer.results]

    assert [True] * 4 == [result["applied"] for result in results]


def test_a_write_whose_turn_does_not_come_in_time_was_not_sent() -> None:
    """W8: 503 within its deadline, and its key is free."""

    async def silence() -> tuple[str, float, list[str], int]:
        store = Store(Central())
        store.central.troubles.append(Trouble.SILENCE)
        first = asyncio.create_task(failure(store.forwarder.adjust(ADJUST)))
        await store.central.arrived.wait()
        error = await failure(store.forwarder.adjust(replace(ADJUST, key="late")))
        waited = asyncio.get_running_loop().time()
        await first
        free = await store.forwarder.adjust(replace(ADJUST, key="late", delta=-1))
        return error.code, waited, store.central.keys, free.status

    keys = ["store-s1-sale", "store-s1-late"]
    assert ("central_unavailable", 7.5, keys, 200) == run(silence())


async def test_a_key_that_waits_for_its_turn_is_taken(store: Store) -> None:
    """W1: a repeat joins it, and another write under it is refused."""
    first = await held_at_central(store, store.forwarder.update(sale()))
    waiting = Adjustment("P-1", -1, "waiting", client="till-3")
    calls = [asyncio.create_task(store.forwarder.adjust(waiting)) for _ in range(2)]
    await asyncio.sleep(0)

    error = await failure(store.forwarder.adjust(replace(waiting, delta=-3)))
    store.central.may_answer.set()
    answers = await asyncio.gather(first, *calls)

    assert ("idempotency_key_reused", "till-3") == (error.code, error.details["firstUsedBy"])
    assert ["store-s1-sale", "store-s1-waiting"] == store.central.keys
    assert answers[1] == answers[2]


async def test_keys_that_wait_for_their_turn_count_for_the_room_of_the_table() -> None:
    """W1: no key has to be forgotten when their turn comes."""
    store = Store(Central(), capacity=3)
    first = await held_at_central(store, store.forwarder.update(sale()))
    waiting = asyncio.create_task(store.forwarder.adjust(Adjustment("P-1", -1, "waiting")))
    await asyncio.sleep(0)

    error = await failure(store.forwarder.adjust(Adjustment("P-1", -1, "no room")))
    store.central.may_answer.set()

    assert "storage_unavailable" == error.code
    assert [200, 200] == [(await first).status, (await waiting).status]


def test_a_stop_ends_writes_that_wait_for_their_turn_as_never_sent() -> None:
    """Nothing of them is on disk, and the till may repeat them elsewhere."""

    async def stop() -> list[str]:
        store = Store(Central())
        calls = [await held_at_central(store, failure(store.forwarder.update(sale())))]
        waiting = Adjustment("P-1", -1, "waiting")
        calls.append(asyncio.create_task(failure(store.forwarder.adjust(waiting))))
        await asyncio.sleep(0)
        await store.forwarder.stop(within_seconds=5)
        return [(await call).code for call in calls]

    assert ["central_timeout", "central_unavailable"] == run(stop())


# -- batches -------------------------------------------------------------------------------


async def test_a_batch_is_one_request_with_answers_in_order(store: Store) -> None:
    """Each update stands alone."""
    writes = [sale("a", version=9), sale("b", product_id="P-2"), sale("c")]

    answer = await store.forwarder.update_batch(writes)

    assert [["store-s1-a", "store-s1-b", "store-s1-c"]] == [
        [update["idempotencyKey"] for update in payload["updates"]]
        for payload in store.central.sent
    ]
    assert [("P-1", False), ("P-2", True), ("P-1", True)] == [
        (result["productId"], result["applied"]) for result in answer.results
    ]


async def test_a_batch_sends_only_what_is_neither_final_nor_under_way(store: Store) -> None:
    """The first is remembered, the second joined, the third sent."""
    await store.forwarder.update(sale("a"))
    call = await held_at_central(store, store.forwarder.update(sale("b", product_id="P-2")))
    writes = [sale("a"), sale("b", product_id="P-2"), sale("c", version=2)]
    batch = await held_at_central(store, store.forwarder.update_batch(writes))
    store.central.may_answer.set()

    results = (await batch).results

    assert ["store-s1-a", "store-s1-b", "store-s1-c"] == store.central.keys
    assert [True, True, True] == [result["applied"] for result in results]
    assert (await call).body == results[1]


async def test_a_batch_with_an_unknown_outcome_is_504_and_its_repeat_settles_it(
    store: Store,
) -> None:
    """Every key that is not settled is named; nothing is applied twice."""
    writes = [sale("a"), sale("b", product_id="P-2")]
    store.central.troubles.append(Trouble.ANSWER_LOST)

    error = await failure(store.forwarder.update_batch(writes))
    answer = await store.forwarder.update_batch(writes)

    assert "central_timeout" == error.code
    assert ["a", "b"] == error.details["idempotencyKeys"]
    assert store.central.sent[0] == store.central.sent[1]
    assert [True, True] == [result["applied"] for result in answer.results]
    assert ((8, 2), (8, 2)) == (store.central.stock("P-1"), store.central.stock("P-2"))


async def test_a_batch_that_never_reached_central_is_503(store: Store) -> None:
    """Its keys are free."""
    store.central.troubles.append(Trouble.UNREACHABLE)

    error = await failure(store.forwarder.update_batch([sale("a"), sale("b", product_id="P-2")]))

    assert "central_unavailable" == error.code
    assert 0 == len(store.keys)


# -- admission -----------------------------------------------------------------------------


async def test_once_central_is_known_to_be_away_the_next_write_fails_at_once(store: Store) -> None:
    """W4: nothing is sent or recorded, and the answer says when to come back."""
    store.central.troubles.append(Trouble.UNREACHABLE)
    await failure(store.forwarder.update(sale("a")))
    records = len(store.writer.records)

    error = await failure(store.forwarder.update(sale("b")))

    assert ("central_unavailable", 503) == (error.code, error.status)
    assert error.retry_after_seconds is not None
    assert 0 < error.retry_after_seconds <= 0.5
    assert (1, records) == (len(store.central.sent), len(store.writer.records))
    assert "open" == store.forwarder.status().admission.breaker


async def test_the_log_names_each_change_of_the_breaker_once(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    store.central.troubles.append(Trouble.UNREACHABLE)
    await failure(store.forwarder.update(sale("first")))
    store.admission.sync_reached_central()
    for version in (1, 2):
        await store.forwarder.update(sale(f"at {version}", version=version))

    lines = [record.getMessage() for record in caplog.records if "breaker" in record.msg]
    assert ["write breaker open, was closed", "write breaker closed, was probing"] == lines


async def test_a_connection_refused_to_the_sync_opens_the_breaker(store: Store) -> None:
    """[B4] W4: the sync may know first."""
    store.admission.connection_refused()

    assert "central_unavailable" == (await failure(store.forwarder.update(sale()))).code
    assert [] == store.central.sent


async def test_an_answer_to_the_sync_permits_one_probe_and_no_more(store: Store) -> None:
    """[B4] A Central may answer its feed while its writes fail."""
    store.central.troubles.extend([Trouble.REQUEST_LOST] * 3)
    await failure(store.forwarder.update(sale("a")))
    await failure(store.forwarder.update(sale("b", product_id="P-2")))
    codes = []
    for number in range(5):
        store.admission.sync_reached_central()
        codes.append((await failure(store.forwarder.update(sale(f"{number}")))).code)

    assert ["central_timeout", *["central_unavailable"] * 4] == codes
    assert 3 == len(store.central.sent)
    assert store.admission.status().is_away


def test_the_sync_hears_only_of_the_first_answer_after_an_outage() -> None:
    """[B4] More would undo the sync's back-off where only the feed fails."""

    async def sales() -> list[int]:
        store = Store(Central())
        store.admission.connection_refused()
        await asyncio.sleep(0.5)
        answers = []
        for key in ("a", "b", "c"):
            await store.forwarder.update(sale(key))
            answers.append(store.answers)
        return answers

    assert [1, 1, 1] == run(sales())


def test_a_slow_central_leaves_half_of_the_time_for_waiting() -> None:
    """A write may begin as long as what answers usually take is left, or half of its time."""

    async def is_late_with(seconds_left: float) -> bool:
        store = Store(Central())
        store.central.answers_after = 6.0
        await store.forwarder.update(sale())
        deadline_at = asyncio.get_running_loop().time() + seconds_left
        return store.admission.is_late(deadline_at)

    assert (False, True) == (run(is_late_with(4.5)), run(is_late_with(3.5)))


def test_one_probe_at_a_time_finds_central_again() -> None:
    """After the pause one write is the probe; it waits two seconds, not eight, and the next one
    four."""

    async def outage() -> tuple[list[float], list[str], str]:
        store = Store(Central())
        loop = asyncio.get_running_loop()
        store.admission.connection_refused()
        await asyncio.sleep(0.5)
        store.central.troubles.append(Trouble.SILENCE)
        probe = asyncio.create_task(failure(store.forwarder.update(sale("a"))))
        await store.central.arrived.wait()
        other = await failure(store.forwarder.update(sale("b")))
        began = loop.time()
        codes = [other.code, (await probe).code]
        waited = loop.time() - began
        await asyncio.sleep(1.0)
        await store.forwarder.update(sale("b"))
        return [waited, *store.central.deadlines], codes, store.forwarder.status().admission.breaker

    expected = [2.0, 2.0, 4.0], ["central_unavailable", "central_timeout"], "closed"

    assert expected == run(outage())


def test_writes_in_flight_are_capped_and_the_rest_wait_within_their_deadline() -> None:
    """T17: a thousand tills that come back at once are not a thousand requests at once."""

    async def rush() -> tuple[int, int, int, float]:
        store = Store(Central())
        store.central.may_answer.clear()
        writes = [sale(f"{n}", product_id=f"P-{n}") for n in range(WRITES_IN_FLIGHT + 5)]
        calls = [asyncio.create_task(store.forwarder.update(write)) for write in writes]
        rest = await asyncio.gather(*(failure(call) for call in calls[WRITES_IN_FLIGHT:]))
        waited = asyncio.get_running_loop().time()
        unavailable = [error.code for error in rest].count("central_unavailable")
        store.central.may_answer.set()
        await asyncio.gather(*calls[:WRITES_IN_FLIGHT])
        return len(store.central.sent), unavailable, len(rest), waited

    assert (WRITES_IN_FLIGHT, 5, 5, 7.5) == run(rush())


@in_virtual_time
async def test_a_limited_number_of_writes_waits_for_a_central_that_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """[W4] T17: the next one is turned away at once, to come back after some time of its own. A
    repeat joins its write all the same, and one of unknown outcome is not told it was not sent."""
    monkeypatch.setattr(admission, "MOST_WRITES_WAITING", 50)
    store = Store(Central())
    store.central.troubles.append(Trouble.REQUEST_LOST)
    await failure(store.forwarder.update(sale("unknown")))
    await asyncio.sleep(1.0)
    store.central.may_answer.clear()
    tills = [store.stock_up(f"T-{number}", 5) for number in range(50)]
    calls = [asyncio.create_task(store.forwarder.update(sale(n, product_id=n))) for n in tills]
    await asyncio.sleep(1.0)

    turned_away = [await failure(store.forwarder.update(sale(f"late-{n}"))) for n in range(2)]
    unknown = await failure(store.forwarder.update(sale("unknown")))
    repeat = asyncio.create_task(store.forwarder.update(sale(tills[0], product_id=tills[0])))
    await asyncio.sleep(1.0)
    store.central.may_answer.set()
    answers = await asyncio.gather(*calls, repeat)

    assert {"central_unavailable"} == {error.code for error in turned_away}
    assert all(1.0 <= (error.retry_after_seconds or 0) <= 4.0 for error in turned_away)
    assert "central_timeout" == unknown.code
    assert {200} == {answer.status for answer in answers}
    assert 200 == (await store.forwarder.update(sale("late-0"))).status


@pytest.mark.parametrize("tills", [60, 200])
def test_the_stores_own_queue_is_no_outage(tills: int) -> None:
    """W4: at a Central that takes three seconds for a write, what waits too long for its turn is
    not sent, everything that is sent is answered, and the breaker stays closed."""

    async def rush() -> tuple[set[str], bool, str]:
        store = Store(Central())
        store.central.answers_after = 3.0
        names = [store.stock_up(f"T-{number}", 5) for number in range(tills)]
        writes = [sale(name, product_id=name) for name in names]
        calls = (store.forwarder.update(write) for write in writes)
        results = await asyncio.gather(*calls, return_exceptions=True)
        codes = {each.code for each in results if isinstance(each, WriteError)}
        answered = [each for each in results if not isinstance(each, BaseException)]
        is_all = len(answered) == len(store.central.sent) >= min(tills, 2 * WRITES_IN_FLIGHT)
        return codes, is_all, store.admission.status().breaker

    refused = {"central_unavailable"} if tills > 2 * WRITES_IN_FLIGHT else set()
    assert (refused, True, "closed") == run(rush())


def test_writes_go_on_after_answers_that_took_almost_all_of_their_time() -> None:
    """W4: a write that did not have to wait is always sent."""

    async def slow() -> list[int]:
        store = Store(Central())
        store.central.answers_after = 7.99
        return [(await store.forwarder.adjust(one)).status for one in adjustments(5, "P-1")]

    assert [200] * 5 == run(slow())


def test_a_probe_finds_a_central_that_takes_seconds_for_a_write() -> None:
    """W4: the breaker does not stay open because a probe was given too little time."""

    async def outage() -> str:
        store = Store(Central())
        store.central.troubles.extend([Trouble.REQUEST_LOST] * 2)
        await failure(store.forwarder.update(sale("a")))
        await failure(store.forwarder.update(sale("b", product_id="P-2")))
        store.central.answers_after = 3.5
        for _ in range(4):
            await asyncio.sleep(5.0)
            with suppress(WriteError):
                await store.forwarder.adjust(ADJUST)
        return store.admission.status().breaker

    assert "closed" == run(outage())


@pytest.mark.parametrize("is_open", [False, True])
async def test_a_limit_that_the_store_keeps_to_says_nothing_of_central(
    store: Store, is_open: bool
) -> None:
    """W4: it neither opens nor closes the breaker, and the next write is the probe in its place."""
    if is_open:
        store.admission.connection_refused()
        store.admission.sync_reached_central()
    store.central.troubles.extend([Trouble.HELD_BACK] * 2)

    errors = [await failure(store.forwarder.update(sale())) for _ in range(2)]
    breaker = store.admission.status().breaker

    assert [("central_unavailable", 7.0)] * 2 == [
        (error.code, error.retry_after_seconds) for error in errors
    ]
    assert ("open" if is_open else "closed") == breaker
    assert 200 == (await store.forwarder.update(sale())).status
    assert "closed" == store.admission.status().breaker


async def test_a_write_that_waits_its_turn_is_not_sent_to_a_central_that_went_away(
    store: Store,
) -> None:
    """W4 again, when its turn comes."""
    store.central.may_answer.clear()
    store.central.troubles.extend([Trouble.UNREACHABLE] * WRITES_IN_FLIGHT)
    writes = [sale(f"{n}", product_id=f"P-{n}") for n in range(WRITES_IN_FLIGHT + 5)]
    calls = [asyncio.create_task(failure(store.forwarder.update(write))) for write in writes]
    await store.central.arrived.wait()
    store.central.may_answer.set()

    errors = await asyncio.gather(*calls)

    assert {"central_unavailable"} == {error.code for error in errors}
    assert WRITES_IN_FLIGHT == len(store.central.sent)


# -- stop, status, retention ---------------------------------------------------------------


async def test_a_stop_waits_for_writes_under_way(store: Store) -> None:
    """What was sent is settled before the files are closed."""
    call = await held_at_central(store, store.forwarder.update(sale()))
    stop = asyncio.create_task(store.forwarder.stop(within_seconds=5))
    store.central.may_answer.set()
    await stop

    assert "applied" in store.writer.records[-1]
    assert 200 == (await call).status


def test_a_stop_leaves_unknown_what_takes_too_long() -> None:
    """As it is on disk; the till gets a 504."""

    async def stop() -> tuple[str, float, int]:
        store = Store(Central())
        call = await held_at_central(store, failure(store.forwarder.update(sale())))
        await store.forwarder.stop(within_seconds=5)
        waited = asyncio.get_running_loop().time()
        return (await call).code, waited, store.restarted().forwarder.status().unknown

    assert ("central_timeout", 5.0, 1) == run(stop())


async def test_the_status_counts_keys_by_state(store: Store) -> None:
    """Under way, unknown, remembered."""
    await store.forwarder.update(sale("a"))
    store.central.troubles.append(Trouble.ANSWER_LOST)
    await failure(store.forwarder.update(sale("b", product_id="P-2")))
    call = await held_at_central(store, store.forwarder.update(sale("c", version=2)))

    status, admission = store.forwarder.status(), store.admission.status()

    assert (1, 1, 1) == (status.under_way, status.unknown, status.remembered)
    assert ("closed", 1) == (admission.breaker, admission.in_flight)
    assert 0.0 == admission.retry_seconds
    store.central.may_answer.set()
    await call


async def test_keys_are_forgotten_after_their_retention(store: Store) -> None:
    """KEY_RETENTION_HOURS; then the same key is a new write."""
    await store.forwarder.update(sale())
    store.central.ledger.forget_keys()
    later = Store(store.central, store.writer, now=NOON + 86_401.0)

    answer = await later.forwarder.update(sale(version=2))

    assert (200, 3) == (answer.status, answer.body["newVersion"])
