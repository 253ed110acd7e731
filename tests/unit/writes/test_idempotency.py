"""The key table (W1): one entry per key, its memory, its records."""

import tracemalloc
from collections.abc import Sequence
from dataclasses import astuple, replace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from store_cache.model.stock import StockAnswer
from store_cache.writes.idempotency import (
    REFUSAL_SECONDS,
    SWEEP_SECONDS,
    Attempt,
    ClientNames,
    Final,
    KeyTable,
    StoredKeys,
    encode_attempt,
    encode_final,
    final_answer,
    fingerprint,
)
from store_cache.writes.write import (
    Adjustment,
    Applied,
    FinalOutcome,
    Refused,
    SettledByPerson,
    Write,
    WriteError,
    WriteRequest,
)

DAY = 86_400.0
STEPS = ["put", "drop", "finish", "refuse", "expire"]
WRITE = Write("P-1", -2, 6, "sale")
PRINT = fingerprint(WRITE)
ATTEMPT = Attempt("sale", PRINT, "P-1", 6, at=1000.0, held_version=6, generation="g", offset=9)
APPLIED = Applied(StockAnswer("P-1", 6, 7, 8, "2024-01-15T10:30:00Z"))
REFUSED = Refused("version_conflict", "expected 9, got 6", 10, 9)
FINAL = Final(PRINT, 1, 6, 1001.0, APPLIED)


def table(*attempts: Attempt, final: Final | None = None, capacity: int = 10) -> KeyTable:
    """Return a table with attempts, the first of which has this final answer."""
    keys = KeyTable(retention_seconds=DAY, capacity=capacity)
    for attempt in attempts:
        keys.put(attempt)
    if final is not None:
        keys.finish(attempts[0].key, final)
    return keys


def load(keys: KeyTable, records: Sequence[bytes], now: float) -> int:
    stored = StoredKeys(keys.clients)
    unreadable = stored.load(b"\n".join(records))
    keys.add_stored(stored, now)
    return unreadable


def reloaded(keys: KeyTable, now: float = 1001.0) -> KeyTable:
    again = table()
    load(again, [*keys.encoded()], now)
    return again


def test_a_key_that_was_never_used_is_not_found() -> None:
    """A first attempt may be made."""
    assert table().find(WRITE) is None


OUTCOMES = [
    APPLIED,
    Applied(StockAnswer("P-1", 6, 7, 0, None)),
    Applied(StockAnswer("P-1", 6, 7, -1, 'ä, "quoted" \\ and ],"x":[1')),
    REFUSED,
    Refused("invalid_request", ""),
    SettledByPerson(True, "ops", "seen, on the receipt"),
]


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_a_final_answer_is_found_as_it_was_given(outcome: FinalOutcome) -> None:
    """In memory and after a restart."""
    final = replace(FINAL, outcome=outcome, client='the "first", till', minutes=3)
    keys = table(ATTEMPT, final=final)

    assert final == keys.find(WRITE)
    assert final == reloaded(keys).find(WRITE)
    assert [] == keys.open_attempts()


def test_an_attempt_without_a_final_answer_is_unknown_after_a_restart() -> None:
    """It may have been sent (W1)."""
    keys = table(ATTEMPT)

    assert ATTEMPT == keys.find(WRITE)
    assert replace(ATTEMPT, is_unknown=True) == reloaded(keys).find(WRITE)


def test_the_last_record_of_a_key_counts() -> None:
    """Records are read in the order in which they were written."""
    second = replace(ATTEMPT, number=2, version=9)
    records = [encode_attempt(each) for each in (ATTEMPT, second)]
    load(keys := table(), records, 1000.0)
    assert replace(second, is_unknown=True) == keys.find(WRITE)

    records.append(encode_final("sale", FINAL))
    load(keys := table(), records, 1000.0)
    assert FINAL == keys.find(WRITE)

    load(keys := table(), [*records, encode_attempt(ATTEMPT)], 1000.0)
    assert replace(ATTEMPT, is_unknown=True) == keys.find(WRITE)


def test_entries_in_memory_win_over_older_ones_on_disk() -> None:
    """[W1] [D5] The directory appeared when the table was in use: a key's answer never changes, a
    new attempt is not forgotten, and what only the disk knows is taken."""
    old = replace(ATTEMPT, number=2, at=900.0)
    records = [
        encode_attempt(old),
        encode_final("other", replace(FINAL, number=3)),
        encode_final("on disk", FINAL),
    ]
    keys = table(ATTEMPT, replace(ATTEMPT, key="other"), final=FINAL)
    load(keys, records, 1001.0)

    assert FINAL == keys.find(WRITE)
    assert replace(ATTEMPT, key="other") == keys.find(replace(WRITE, key="other"))
    assert FINAL == keys.find(replace(WRITE, key="on disk"))
    assert [replace(ATTEMPT, key="other")] == keys.open_attempts()
    assert 3 == len(keys)


@pytest.mark.parametrize(
    "other",
    [
        replace(WRITE, product_id="P-2"),
        replace(WRITE, delta=-3),
        replace(WRITE, version=7),
        replace(WRITE, reason="return"),
        replace(WRITE, updated_by="cashier123"),
        Adjustment("P-1", -2, "sale"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("is_final", [False, True])
def test_a_key_used_for_another_payload_is_refused(other: WriteRequest, is_final: bool) -> None:
    """T16: it says when the key was used first, and by which client; nothing of the first payload
    is shown."""
    attempt = replace(ATTEMPT, client="till-3")
    keys = table(attempt, final=final_answer(attempt, APPLIED, 4610.0) if is_final else None)

    with pytest.raises(WriteError) as caught:
        keys.find(other)

    assert ("idempotency_key_reused", 422) == (caught.value.code, caught.value.status)
    first = {"firstUsedAt": f"1970-01-01T00:16:{50 if is_final else 40}Z", "firstUsedBy": "till-3"}
    assert {"idempotencyKey": "sale"} | first == caught.value.details


@pytest.mark.parametrize("client", ["till-3", ""])
def test_a_restart_remembers_who_used_a_key_first(client: str) -> None:
    """Whether the first use has its final answer or not. Records of earlier versions do not name a
    client."""
    attempts = [replace(ATTEMPT, key=key, client=client) for key in ("sale", "open")]
    final = final_answer(attempts[0], APPLIED, ATTEMPT.at + 7 * 60.0)
    keys = reloaded(table(*attempts, final=final), now=ATTEMPT.at + 7 * 60.0)

    assert final == keys.find(WRITE)
    for key in ("sale", "open"):
        with pytest.raises(WriteError) as caught:
            keys.find(replace(WRITE, key=key, delta=-3))
        assert (client or None) == caught.value.details["firstUsedBy"]
        assert "1970-01-01T00:16:40Z" == caught.value.details["firstUsedAt"]


def test_records_of_an_earlier_version_are_read() -> None:
    """They name no client: who used the key first is not known any more."""
    same = f'"payload":"{PRINT.hex()}","attempt":1,"version":6,"at":1001.0'
    stock = '{"newQuantity":8,"lastUpdated":"2024-01-15T10:30:00Z"}'
    place = '"productId":"P-1","heldVersion":6,"generation":"g","offset":9'
    final = f'{{"key":"sale",{same},"applied":{stock}}}'.encode()
    attempt = f'{{"key":"open",{same},{place}}}'.encode()

    keys = table()
    assert 0 == load(keys, [final, attempt], 1001.0)
    assert FINAL == keys.find(WRITE)
    with pytest.raises(WriteError) as caught:
        keys.find(replace(WRITE, key="open", delta=-3))
    assert caught.value.details["firstUsedBy"] is None


def test_a_client_beyond_the_last_number_is_not_known() -> None:
    """A number has two bytes."""
    clients = ClientNames()
    numbers = [clients.number(f"till-{n}") for n in range(70_000)]

    assert (1, 65_535, 0) == (numbers[0], numbers[65_534], numbers[65_535])
    assert ("till-65534", "") == (clients.name(65_535), clients.name(0))


def test_a_key_used_for_another_payload_is_refused_after_a_restart_too() -> None:
    """The fingerprint is in the record."""
    keys = reloaded(table(ATTEMPT, final=FINAL))

    with pytest.raises(WriteError):
        keys.find(replace(WRITE, delta=-3))


def test_each_further_attempt_has_a_key_of_its_own_at_central() -> None:
    """`<STORE_ID>-<key>`, then `~2`, `~3`: Central remembers refusals."""
    names = [replace(ATTEMPT, number=number).central_key("store-s1") for number in (1, 2, 3)]

    assert ["store-s1-sale", "store-s1-sale~2", "store-s1-sale~3"] == names


def fill(keys: KeyTable, count: int, client: str, outcome: Applied | Refused = APPLIED) -> None:
    """Finish so many keys of a client, one a second."""
    for number in range(count):
        final = replace(FINAL, client=client, outcome=outcome, at=FINAL.at + number)
        keys.finish(f"{client}-{number}", final)


def room(keys: KeyTable, count: int, client: str, now: float = FINAL.at) -> bool:
    """Whether the table takes so many new keys of the client."""
    try:
        keys.reserve(count, client=client, waiting=0, now=now)
    except WriteError as error:
        return error.code != "storage_unavailable"
    return True


def held(keys: KeyTable, client: str, outcome: Applied | Refused = APPLIED) -> list[int]:
    """The numbers of the client's keys that are remembered with this outcome."""
    found = {number: keys.find(replace(WRITE, key=f"{client}-{number}")) for number in range(100)}
    return [n for n, each in found.items() if isinstance(each, Final) and each.outcome == outcome]


def test_a_full_table_takes_no_new_key_and_forgets_none() -> None:
    """W1: it refuses a new key rather than forget an old one, and says when there is room."""
    keys = table(capacity=100)
    fill(keys, 40, "till-1")
    fill(keys, 40, "till-2")

    assert room(keys, 10, "till-3")
    fill(keys, 20, "till-3")
    with pytest.raises(WriteError) as caught:
        keys.reserve(1, client="till-3", waiting=0, now=FINAL.at + DAY - 30.0)

    assert ("storage_unavailable", 503) == (caught.value.code, caught.value.status)
    assert 30.0 == caught.value.retry_after_seconds
    assert [*range(40)] == held(keys, "till-1")


def test_keys_that_wait_for_their_turn_take_room() -> None:
    """So that none has to be forgotten when their turn comes."""
    keys = table(capacity=100)
    keys.reserve(1, client="till-1", waiting=79, now=FINAL.at)

    with pytest.raises(WriteError):
        keys.reserve(1, client="till-1", waiting=100, now=FINAL.at)


def test_no_client_takes_all_of_the_room() -> None:
    """The last fifth is for clients with less than an equal share: whatever one client does, the
    others sell on. A client that is alone has four fifths."""
    keys = table(capacity=100)
    fill(keys, 80, "hog")

    assert not room(keys, 1, "hog")
    assert room(keys, 1, "till-1")
    fill(keys, 15, "till-1")
    assert not room(keys, 1, "hog")
    assert room(keys, 5, "till-1")


def test_a_repeat_needs_no_room() -> None:
    """What may have been applied can always be settled, also by a client beyond its share."""
    keys = table(capacity=100)
    fill(keys, 100, "hog")

    keys.reserve(0, client="hog", waiting=0, now=FINAL.at)


def test_a_crowded_table_forgets_the_oldest_refusals_first() -> None:
    """They changed nothing. Answers of applied writes, and attempts, stay."""
    keys = table(ATTEMPT, capacity=100)
    fill(keys, 30, "till-1")
    fill(keys, 49, "hog", REFUSED)

    assert room(keys, 5, "till-1")

    assert [*range(5, 49)] == held(keys, "hog", REFUSED)
    assert [*range(30)] == held(keys, "till-1")
    assert ATTEMPT == keys.find(WRITE)


def test_a_flood_of_refusals_never_fills_the_table() -> None:
    """A client that is refused again and again neither loses its own room nor that of others."""
    keys = table(capacity=100)
    fill(keys, 20, "till-1")
    for number in range(1000):
        assert room(keys, 1, "hog")
        refusal = replace(FINAL, client="hog", outcome=REFUSED)
        keys.finish(f"other-{number}", refusal)

    assert 80 == len(keys)
    assert [*range(20)] == held(keys, "till-1")
    assert room(keys, 20, "till-1")


def test_the_room_of_each_client_is_known_after_a_restart() -> None:
    """Keys on disk count for the client that used them."""
    keys = table(capacity=100)
    fill(keys, 80, "hog")
    again = table(capacity=100)
    load(again, [*keys.encoded()], FINAL.at)

    assert not room(again, 1, "hog")
    assert room(again, 1, "till-1")
    assert (80, 100, True, "hog", 80) == astuple(again.room())


def test_the_room_that_is_taken_is_named() -> None:
    """For the health: a table that is not crowded is no problem, and refusals take no room."""
    keys = table(replace(ATTEMPT, client="till-1"), capacity=100)
    fill(keys, 90, "hog", REFUSED)

    assert (1, 100, False, "till-1", 1) == astuple(keys.room())
    keys.drop(ATTEMPT.key)
    assert (0, 100, False) == astuple(keys.room())[:3]


@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 8))))
def test_room_is_given_back(steps: list[tuple[str, int]]) -> None:
    """Whatever happens to keys, each client holds as many as there are."""
    keys, now = table(capacity=1000), 1000.0
    for step, number in steps:
        key, client, now = f"{number}", f"till-{number % 3}", now + DAY / 4
        attempt = replace(ATTEMPT, key=key, client=client, at=now)
        match step:
            case "put":
                keys.put(attempt)
            case "drop":
                keys.drop(key)
            case "finish":
                keys.finish(key, final_answer(attempt, APPLIED, now))
            case "refuse":
                keys.finish(key, final_answer(attempt, REFUSED, now))
            case _:
                keys.expire(now)

    again = reloaded(keys, now)
    keys.expire(now)
    assert astuple(again.room())[0] == astuple(keys.room())[0]
    assert again.room().largest_held == keys.room().largest_held


def test_a_refusal_is_remembered_for_minutes() -> None:
    """Tills that repeat without an answer get the same one; the next day the write is a new one."""
    keys = table(ATTEMPT, final=replace(FINAL, outcome=REFUSED))

    keys.expire(FINAL.at + REFUSAL_SECONDS)
    assert keys.find(WRITE) is not None
    keys.expire(FINAL.at + REFUSAL_SECONDS + SWEEP_SECONDS + 1.0)
    assert keys.find(WRITE) is None
    assert reloaded(table(ATTEMPT, final=FINAL), FINAL.at + REFUSAL_SECONDS * 2).find(WRITE)


def test_keys_are_forgotten_when_they_are_old_and_not_before() -> None:
    """The retention counts from the final answer, or from an attempt that has none."""
    unknown = replace(ATTEMPT, key="lost")
    keys = table(ATTEMPT, unknown, final=FINAL)

    assert [] == keys.expire(1000.0 + DAY)
    assert 2 == len(keys)
    assert [unknown] == keys.expire(1000.5 + DAY)
    assert 1 == len(keys)
    assert [] == keys.expire(1001.5 + DAY)
    assert 0 == len(keys)


def test_a_key_used_again_after_it_was_forgotten_has_an_age_of_its_own() -> None:
    """Neither the old entry nor the new one changes when the other is forgotten."""
    keys = table()
    for at, key in ((1.0, "a"), (2.0, "b"), (1.0 + DAY, "a")):
        keys.finish(key, replace(FINAL, at=at))
    again = reloaded(keys, now=2.0 + DAY)

    again.expire(2.5 + DAY)

    assert again.find(replace(WRITE, key="a")) is not None
    assert again.find(replace(WRITE, key="b")) is None


def test_a_key_with_two_answers_on_disk_has_the_age_of_the_later_one() -> None:
    """Entries on disk are forgotten in order of age, also behind one that was answered again."""
    records = [
        encode_final(key, replace(FINAL, at=at))
        for at, key in ((1.0, "a"), (2.0, "b"), (1.0 + DAY, "a"))
    ]
    load(keys := table(), records, 2.0 + DAY)

    keys.expire(2.5 + DAY)

    assert keys.find(replace(WRITE, key="a")) is not None
    assert keys.find(replace(WRITE, key="b")) is None


def test_a_dropped_attempt_frees_its_key() -> None:
    """It certainly never reached Central."""
    keys = table(ATTEMPT)
    keys.drop("sale")

    assert keys.find(replace(WRITE, delta=-3)) is None


def test_records_may_be_encoded_while_the_table_changes() -> None:
    """A snapshot is written in the background, and writes go on (D3)."""
    keys = table(ATTEMPT, replace(ATTEMPT, key="other"))
    records = keys.encoded()
    first = orjson.loads(next(records))
    keys.finish("other", FINAL)
    keys.put(replace(ATTEMPT, key="new"))

    rest = [orjson.loads(record) for record in records]

    assert "sale" == first["key"]
    assert [("other", True)] == [(each["key"], "applied" in each) for each in rest]


def test_a_record_can_be_read_by_a_person() -> None:
    """D1: JSON with names, and no secret in it."""
    attempt = {"key": "sale", "payload": PRINT.hex(), "attempt": 1, "version": 6, "at": 1001.0}
    answer = {"newQuantity": 8, "lastUpdated": "2024-01-15T10:30:00Z"}

    assert attempt | {"applied": answer} == orjson.loads(encode_final("sale", FINAL))
    odd = replace(FINAL, client='a "till"', minutes=3)
    named = {"key": 'ä"\\', "client": 'a "till"', "minutes": 3, "applied": answer}
    assert attempt | named == orjson.loads(encode_final('ä"\\', odd))


def test_a_remembered_key_takes_less_than_200_bytes_beyond_its_own() -> None:
    """500,000 of them fit beside a catalogue."""
    count = 20_000
    tracemalloc.start()
    keys = table(capacity=count)
    for number in range(count):
        keys.finish(f"{number:036}", FINAL)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert held / count < 36 + 200


def test_an_unreadable_record_does_not_stop_a_start() -> None:
    """[D4] It is counted and left out; the others are loaded."""
    bad = [b"{}", b'{"key":7}', b'{"key":"a","refused":[]}', b"null", b"7", b'{"key":"cut']
    loaded = table()

    assert len(bad) == load(loaded, [*bad, encode_attempt(ATTEMPT)], 1000.0)
    assert 1 == len(loaded.open_attempts())


def test_records_loaded_in_parts_are_those_loaded_at_once() -> None:
    """[W1] [D4] The later one of a key counts across parts, what is too old is forgotten after the
    last part, and unreadable records are counted."""
    records = [
        encode_final("old", replace(FINAL, at=1.0)),
        encode_attempt(ATTEMPT),
        b'{"key":"no record"}',
        encode_final(ATTEMPT.key, FINAL),
    ]
    whole, parted = table(), table()
    stored = StoredKeys(parted.clients)
    now = FINAL.at + DAY
    expected = load(whole, records, now)
    found = sum(map(stored.load, records))
    parted.add_stored(stored, now)

    assert 1 == expected == found
    assert [encode_final(ATTEMPT.key, FINAL)] == list(whole.encoded()) == list(parted.encoded())
