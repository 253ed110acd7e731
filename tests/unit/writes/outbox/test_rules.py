"""The pure rules of the outbox: entries and their records, transitions, order, pending stock."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import orjson
import pytest

from store_cache.model.product import read_product
from store_cache.model.stock import StockAnswer
from store_cache.writes.idempotency import Attempt, fingerprint
from store_cache.writes.outbox import transitions
from store_cache.writes.outbox.answers import answer_to
from store_cache.writes.outbox.entry import (
    Entry,
    Result,
    State,
    Step,
    decode_entry,
    encode_entry,
    new_id,
)
from store_cache.writes.outbox.order import LONGEST_PAUSE_SECONDS, SendingOrder, pause_seconds
from store_cache.writes.outbox.pending import PendingStock
from store_cache.writes.write import (
    Adjustment,
    Answer,
    Applied,
    Refused,
    Unknown,
    Write,
    WriteError,
    WriteOutcome,
    WriteRequest,
    unavailable,
)
from tests.harness.clock import NOON

ADJUSTMENT = Adjustment("P-1", -2, "sale", "sold", "anna", "till-3")
WRITE = Write("P-1", -2, 7, "sale", client="till-3")
REBASING = replace(WRITE, rebases=True)
LATER = NOON + 60.0
STEP = Step("retried", "office", "booked", LATER, "not_applied")


def entry_of(request: WriteRequest = ADJUSTMENT) -> Entry:
    return transitions.queued(request, entry_id="01", sequence=1, number=1, reason="away", now=NOON)


def attempt_of(entry: Entry, version: int = 7) -> Attempt:
    return Attempt(
        key=entry.key,
        fingerprint=entry.fingerprint,
        product_id=entry.product_id,
        version=version,
        at=NOON,
        number=entry.number,
        held_version=7,
        generation="g-1",
        offset=40,
        client=entry.request.client,
    )


def sent(request: WriteRequest = ADJUSTMENT) -> Entry:
    entry = entry_of(request)
    return transitions.sending(entry, attempt_of(entry), NOON)


# -- entries on disk ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "entry",
    [
        entry_of(),
        entry_of(WRITE),
        entry_of(REBASING),
        replace(sent(), attempt=replace(attempt_of(entry_of()), is_unknown=True)),
        transitions.parked(entry_of(), "invalid_request", "Not é like this", LATER),
        transitions.applied(entry_of(WRITE), Result(8, 8, "2024-01-15T10:30:00Z"), LATER),
        transitions.discarded(entry_of(), STEP),
        replace(entry_of(), next_version=9, number=3, steps=(STEP, STEP)),
    ],
)
def test_a_record_holds_all_of_an_entry(entry: Entry) -> None:
    """[O6] What is to be sent is derived from it and from nothing else."""
    assert entry == decode_entry(orjson.loads(encode_entry(entry)))


@pytest.mark.parametrize("request_", [ADJUSTMENT, WRITE])
def test_a_record_holds_who_is_at_the_till(request_: WriteRequest) -> None:
    entry = entry_of(replace(request_, user_id="cashier-1", client="till-1"))
    read = decode_entry(orjson.loads(encode_entry(entry)))

    assert ("cashier-1", "till-1") == (read.request.user_id, read.request.client)


def test_an_id_is_a_ulid() -> None:
    """Ids sort by their time; 26 characters of Crockford's base 32."""
    ids = [new_id(NOON + n, lambda: 0.999) for n in range(3)]

    assert sorted(ids) == ids
    assert {26} == {len(one) for one in ids}
    assert new_id(NOON, lambda: 0.1) != new_id(NOON, lambda: 0.2)
    assert "01ARYZ6S41" == new_id(1_469_918_176.385, lambda: 0.0)[:10]


def test_rebasing_is_part_of_the_payload() -> None:
    """[O2] A repeat without it is another write."""
    assert fingerprint(WRITE) != fingerprint(REBASING)


def test_an_applied_entry_has_raised_a_version_unless_a_person_says_so() -> None:
    """[O2] A person knows what became of the write, not which version it made."""
    result = Result(8, 8)
    retried = replace(sent(), steps=(STEP,))
    said = replace(STEP, action="settled", outcome="applied")

    assert ("g-1", 7) == transitions.applied(sent(), result, LATER).version_raised
    assert ("g-1", 7) == transitions.applied(retried, result, LATER).version_raised
    assert transitions.settled(sent(), said, result).version_raised is None
    assert transitions.applied(sent(), Result(None, None), LATER).version_raised is None
    assert transitions.applied(entry_of(), result, LATER).version_raised is None
    assert replace(transitions.discarded(sent(), STEP), result=result).version_raised is None


# -- transitions -------------------------------------------------------------------------------

STOCK = StockAnswer("P-1", 7, 8, 5, "2024-01-15T10:30:00Z")
CONFLICT = Refused("version_conflict", "version conflict", 4, 9)


@pytest.mark.parametrize(
    ("sold", "outcome", "state"),
    [
        (ADJUSTMENT, Applied(STOCK), State.APPLIED),
        (ADJUSTMENT, CONFLICT, State.QUEUED),
        (REBASING, CONFLICT, State.QUEUED),
        (WRITE, CONFLICT, State.PARKED),
        (ADJUSTMENT, Refused("insufficient_inventory", "no"), State.PARKED),
        (ADJUSTMENT, Refused("product_not_found", "no"), State.PARKED),
        (ADJUSTMENT, Refused("invalid_request", "no"), State.PARKED),
        (ADJUSTMENT, Unknown("silence"), State.IN_DOUBT),
        (ADJUSTMENT, Unknown("another", is_key_taken=True), State.PARKED),
        (ADJUSTMENT, unavailable("away", 1.0), State.QUEUED),
        (ADJUSTMENT, WriteError("central_error", "no such call"), State.QUEUED),
    ],
)
def test_each_outcome_of_an_attempt(
    sold: WriteRequest, outcome: WriteOutcome, state: State
) -> None:
    """[O2, O3, O4] The state that follows; nothing is dropped."""
    after = transitions.concluded(sent(sold), outcome, LATER)

    assert state is after.state
    assert after.is_unsettled == (state is not State.APPLIED)


def test_a_rebase_takes_the_next_key_and_central_s_version() -> None:
    """[O2] Central remembers the refusal of the key before."""
    after = transitions.concluded(sent(), CONFLICT, LATER)

    assert (2, 9) == (after.number, after.next_version)
    assert "store-s1-sale~2" == attempt_of(after).central_key("store-s1")


def test_what_is_in_doubt_stays_so_until_something_settles_it() -> None:
    """[O4] A repeat that is not sent, or not answered, changes nothing; not even since when."""
    doubtful = transitions.concluded(sent(), Unknown("silence"), NOON)

    assert doubtful is transitions.concluded(doubtful, Unknown("silence again"), LATER)
    assert doubtful is transitions.concluded(doubtful, unavailable("away", 1.0), LATER)
    assert State.QUEUED is transitions.concluded(doubtful, CONFLICT, LATER).state


def test_what_was_on_its_way_is_in_doubt_after_a_restart() -> None:
    """[O6] Everything else is as it was."""
    assert State.IN_DOUBT is transitions.recovered(sent(), "it ended", LATER).state
    assert entry_of() == transitions.recovered(entry_of(), "it ended", LATER)


def test_what_persons_do_is_kept() -> None:
    """[O10] With each step, who did it and why."""
    parked = transitions.parked(sent(), "invalid_request", "no", LATER)
    retried = transitions.retried(parked, STEP)
    settled = replace(STEP, action="settled", outcome="applied")

    assert (State.QUEUED, 2) == (retried.state, retried.number)
    assert ("", (STEP,)) == (retried.error_type, retried.steps)
    assert State.APPLIED is transitions.settled(retried, settled, Result(5, 8)).state
    assert State.DISCARDED is transitions.settled(retried, STEP, Result(5, 8)).state
    assert (STEP, STEP) == transitions.discarded(retried, STEP).steps


def test_a_key_that_was_never_sent_is_not_skipped() -> None:
    """[O5] Another node may have the write as well: it sends each key in turn."""
    too_old = transitions.parked(entry_of(), transitions.TOO_OLD, "old", LATER)
    rebased = transitions.concluded(sent(), CONFLICT, NOON)
    old_again = transitions.parked(rebased, transitions.TOO_OLD, "old", LATER)

    assert 1 == transitions.retried(too_old, STEP).number
    assert 2 == transitions.retried(old_again, STEP).number
    assert LATER == transitions.retried(too_old, STEP).waits_since != too_old.waits_since


# -- answers -----------------------------------------------------------------------------------


def answered(entry: Entry) -> Answer:
    answer = answer_to(entry, available=10, pending=-12, seen=())
    assert isinstance(answer, Answer)
    return answer


def test_each_state_has_its_answer() -> None:
    """[O10] A repeat gets the entry as it is, and its outcome once it has one."""
    parked = transitions.parked(entry_of(), "invalid_request", "no", LATER)
    discarded = replace(STEP, action="discarded", outcome="")
    settled = replace(STEP, action="settled", outcome="not_applied")
    unknown = transitions.concluded(sent(), Unknown("silence"), NOON)
    doubtful = answer_to(unknown, available=1, pending=0, seen=())

    assert 202 == answered(entry_of()).status
    assert -2 == answered(entry_of()).body["expectedAvailable"]
    assert "invalid_request" == answered(parked).body["errorType"]
    assert isinstance(doubtful, WriteError)
    assert ("central_timeout", "01") == (doubtful.code, doubtful.details["outboxId"])
    assert 200 == answered(transitions.applied(entry_of(), Result(None, None), LATER)).status
    given_up = answered(transitions.discarded(entry_of(), discarded))
    assert (409, "discarded") == (given_up.status, given_up.body["errorType"])
    by_person = answered(transitions.settled(entry_of(), settled, Result(5, 8)))
    assert (409, "settled_not_applied") == (by_person.status, by_person.body["errorType"])


@pytest.mark.parametrize(
    ("result", "figures"),
    [
        (Result(5, 8, "noon"), {"newQuantity": 5, "newVersion": 8, "lastUpdated": "noon"}),
        (Result(5, 8), {"newQuantity": 5, "newVersion": 8}),
        (Result(None, None), {}),
    ],
)
def test_an_applied_write_is_answered_with_what_is_known(
    result: Result, figures: dict[str, object]
) -> None:
    """[O10] As a write is that was never queued."""
    body = answered(transitions.applied(entry_of(), result, LATER)).body

    assert {"productId": "P-1", "applied": True, "outboxId": "01"} | figures == body


# -- order -------------------------------------------------------------------------------------


def test_a_product_s_entries_go_one_after_the_other_and_products_in_parallel() -> None:
    """[O1] By their sequence, whenever they were put in."""
    order = SendingOrder()
    for sequence, product in ((2, "A"), (1, "A"), (3, "B")):
        order.put_queued(f"{product}{sequence}", product, sequence)

    assert ["A1", "B3", None] == [order.take(0.0) for _ in range(3)]
    order.free("A1")
    assert ["A2", None] == [order.take(0.0), order.take(0.0)]


def test_entries_in_doubt_come_first_and_hold_nobody_up() -> None:
    """[O1, O8] They need no turn at their product."""
    order = SendingOrder()
    order.put_queued("queued", "A", 2)
    order.put_in_doubt("doubt", "A", 1, due=0.0)

    assert ["doubt", "queued"] == [order.take(0.0), order.take(0.0)]


def test_what_failed_by_itself_waits_and_holds_up_its_product_only() -> None:
    """[O3] Also when it is put back."""
    order = SendingOrder()
    order.put_queued("A1", "A", 1)
    order.put_queued("A2", "A", 2)
    order.put_queued("B3", "B", 3)
    assert "A1" == order.take(0.0)
    order.put_queued("A1", "A", 1, due=5.0)
    order.free("A1")

    assert ["B3", None] == [order.take(0.0), order.take(0.0)]
    assert 5.0 == order.due_at()
    assert "A1" == order.take(5.0)


def test_what_is_removed_is_not_sent() -> None:
    """[O10] A person has discarded it, or the feed has settled it."""
    order = SendingOrder()
    order.put_queued("A1", "A", 1)
    order.put_queued("A2", "A", 2)
    order.put_in_doubt("doubt", "A", 3, due=0.0)
    order.remove("A1", "A", 1)
    order.remove("doubt", "A", 3)
    order.remove("nothing", "A", 9)

    assert ["A2", None] == [order.take(0.0), order.take(0.0)]
    assert (0, inf) == (len(order), order.due_at())


def test_an_entry_is_in_one_place_only() -> None:
    """[O1, O4] A person sends one again that was in doubt; another one is in doubt again."""
    order = SendingOrder()
    order.put_in_doubt("A1", "A", 1, due=0.0)
    order.put_queued("A1", "A", 1)
    order.put_queued("A2", "A", 2)
    assert (2, "A1") == (len(order), order.take(0.0))
    order.put_in_doubt("A1", "A", 1, due=0.0)
    order.free("A1")

    assert ["A1", "A2", None] == [order.take(0.0) for _ in range(3)]


def test_doubts_are_hastened_when_central_is_back() -> None:
    """[O8] However often; none of them is taken twice."""
    order = SendingOrder()
    order.put_in_doubt("first", "A", 1, due=60.0)
    order.put_in_doubt("second", "A", 2, due=30.0)
    assert order.take(1.0) is None
    for _ in range(3):
        order.hasten_doubts()

    assert ["first", "second", None] == [order.take(1.0) for _ in range(3)]


def test_what_is_in_doubt_and_repeated_comes_after_what_is_queued() -> None:
    """[O8] Seed 88000478: Central's limit left three writes a minute, and more were in doubt."""
    order = SendingOrder()
    order.put_in_doubt("fresh", "A", 1, due=0.0)
    order.put_in_doubt("repeated", "A", 2, due=5.0)
    order.put_queued("queued", "A", 3)

    assert ["fresh", "queued", "repeated"] == [order.take(9.0) for _ in range(3)]


def test_pauses_grow_and_are_jittered() -> None:
    """[O3] From half of it to all of it, up to a minute."""
    assert [1.0, 2.0, 4.0] == [pause_seconds(failures, 1.0) for failures in (1, 2, 3)]
    assert 0.5 == pause_seconds(1, 0.0)
    assert LONGEST_PAUSE_SECONDS == pause_seconds(1000, 1.0)


# -- pending stock -----------------------------------------------------------------------------

ROW = read_product({"productId": "P-1", "name": "Tea", "available": 10, "version": 7}).body


@pytest.mark.parametrize("product_id", ["P-1", 'a "quoted" one', "back\\slash", "tee-é"])
def test_a_row_shows_what_is_pending(product_id: str) -> None:
    """[O10] Whatever its id holds; the rest of the row stays as it is."""
    row = read_product({**orjson.loads(ROW), "productId": product_id}).body
    pending = PendingStock()
    pending.add(product_id, -3)
    pending.add(product_id, 1)
    shown = {"pendingDelta": -2, "expectedAvailable": 8}

    assert orjson.loads(row) | shown == orjson.loads(pending.show(row))
    pending.remove(product_id, -3)
    pending.remove(product_id, 1)
    assert row is pending.show(row)
    assert not pending


def test_stock_below_zero_is_oversold() -> None:
    """[O10] The goods are in customers' hands; other products are as they were."""
    pending = PendingStock()
    pending.add("P-1", -12)
    other = ROW.replace(b"P-1", b"P-2")
    shown, same = pending.show_all([ROW, other])

    assert orjson.loads(shown)["oversold"] is True
    pending.add("P-1", 2)
    assert "oversold" not in orjson.loads(pending.show(ROW)), "the last ones are sold"
    pending.remove("P-1", 2)
    assert other is same
    assert (-12, 0) == (pending.of("P-1"), pending.of("P-2"))
