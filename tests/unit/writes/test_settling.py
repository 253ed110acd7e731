"""Writes in doubt: what is known of them, and what a person says became of one (W3, W9)."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from store_cache.central.failures import Unreachable
from store_cache.writes.idempotency import Attempt, KeyTable, StoredKeys
from store_cache.writes.write import Answer, Doubt, SeenEvent, WriteError
from tests.harness.clock import NOON
from tests.unit.writes.selling import Central, Store, Trouble, sale

AWAY = Unreachable("Central cannot be reached")


@pytest.fixture
async def store() -> Store:
    return Store(Central())


async def refused(store: Store, key: str = "sale") -> WriteError:
    """Settle a write that the store does not let anybody settle."""
    with pytest.raises(WriteError) as caught:
        await settled(store, key)
    return caught.value


async def settled(store: Store, key: str = "sale", *, is_applied: bool = False) -> Answer:
    return await store.forwarder.settle(key, is_applied=is_applied, by="office", reason="counted")


async def in_doubt(store: Store, trouble: Trouble = Trouble.ANSWER_LOST) -> WriteError:
    """Send a write that ends of unknown outcome; Central forgets the key and names no write."""
    store.switch(key_memory_seconds=0.0, unnamed_writes=True)
    store.central.troubles.append(trouble)
    with pytest.raises(WriteError) as caught:
        await store.forwarder.update(sale())
    return caught.value


async def test_a_write_in_doubt_says_what_is_known_of_it(store: Store) -> None:
    """[W9] When it was sent, with which version, what the feed has brought since, and what Central
    holds now."""
    error = await in_doubt(store)

    assert [Doubt("sale", "P-1", 1, NOON, at_central=(8, 2))] == [*error.doubts]
    await store.follow()
    assert (SeenEvent(3, 2, 8, None),) == store.forwarder.in_doubt()[0].seen


async def test_a_refused_repeat_tells_the_stock_of_the_refusal(store: Store) -> None:
    """[W9] Central is not asked again for what it has just said."""
    await in_doubt(store)
    reads = len(store.refetches.reads)
    with pytest.raises(WriteError) as caught:
        await store.forwarder.update(sale())

    assert (8, 2) == caught.value.doubts[0].at_central
    assert reads == len(store.refetches.reads)


async def test_a_central_that_cannot_be_read_leaves_the_stock_open(store: Store) -> None:
    """[W9] Nothing is claimed that Central has not said."""
    store.refetches.failure = AWAY
    error = await in_doubt(store)

    assert error.doubts[0].at_central is None


async def test_only_writes_in_doubt_are_listed_the_oldest_first(store: Store) -> None:
    """[W9] Not what is under way, and not what has an answer."""
    await store.forwarder.update(sale("answered"))
    await in_doubt_as(store, "first", "P-2")
    store.central.may_answer.clear()
    store.central.arrived.clear()
    task = asyncio.create_task(store.forwarder.update(sale("under way", version=2)))
    await store.central.arrived.wait()

    assert ["first"] == [doubt.key for doubt in store.forwarder.in_doubt()]
    store.central.may_answer.set()
    await task


async def in_doubt_as(store: Store, key: str, product_id: str) -> None:
    store.central.troubles.append(Trouble.REQUEST_LOST)
    with pytest.raises(WriteError):
        await store.forwarder.update(sale(key, product_id=product_id))


@pytest.mark.parametrize("restarts", [False, True], ids=["at once", "after a restart"])
async def test_what_is_settled_as_not_applied_is_never_sent_again(
    store: Store, restarts: bool
) -> None:
    """[W9] A repeat gets 409 with the person's words, also after a restart."""
    await in_doubt(store, Trouble.REQUEST_LOST)
    answer = await settled(store)
    sent = len(store.central.sent)
    again = await (store.restarted() if restarts else store).forwarder.update(sale())

    assert answer == again
    assert (409, "settled_not_applied") == (again.status, again.body["errorType"])
    assert "office" in again.body["errorMessage"]
    assert "counted" in again.body["errorMessage"]
    assert sent == len(store.central.sent)
    assert [] == store.forwarder.in_doubt()


async def test_what_is_settled_as_applied_answers_with_the_stock_of_then(store: Store) -> None:
    """[W9] The till sees it as applied, with what Central held when it was settled."""
    await in_doubt(store)
    answer = await settled(store, is_applied=True)

    expected = {"productId": "P-1", "applied": True, "newQuantity": 8, "newVersion": 2}
    assert Answer(200, expected) == answer
    assert answer == await store.forwarder.update(sale())


async def test_without_central_the_cache_says_the_stock(store: Store) -> None:
    """[W9] A person can settle a write while Central is away; the product is refetched later."""
    await in_doubt(store, Trouble.REQUEST_LOST)
    store.refetches.failure = AWAY
    answer = await settled(store)

    assert (10, 1) == (answer.body["newQuantity"], answer.body["newVersion"])
    assert ("P-1", None) == store.refetches.outdated[-1]


async def test_a_write_that_is_under_way_is_not_settled(store: Store) -> None:
    """[W9] Its own outcome comes first."""
    store.central.may_answer.clear()
    task = asyncio.create_task(store.forwarder.update(sale()))
    await store.central.arrived.wait()
    error = await refused(store)
    store.central.may_answer.set()

    assert "write_under_way" == error.code
    assert 200 == (await task).status


async def test_a_repeat_during_the_settling_gets_its_answer(store: Store) -> None:
    """[W9] Nothing is sent meanwhile."""
    await in_doubt(store)
    sent = len(store.central.sent)
    first, repeat = await asyncio.gather(settled(store), store.forwarder.update(sale()))

    assert first == repeat
    assert sent == len(store.central.sent)


async def test_only_what_is_in_doubt_can_be_settled(store: Store) -> None:
    """[W9] A known outcome stays, and an unknown key is no write."""
    await store.forwarder.update(sale())

    assert "write_not_in_doubt" == (await refused(store)).code
    assert "write_not_found" == (await refused(store, "nothing")).code


async def test_a_settlement_survives_compaction_and_lasts_as_long_as_an_answer(
    store: Store,
) -> None:
    """[W9] It is one of the key table's entries, and no refusal that is soon forgotten."""
    await in_doubt(store)
    await settled(store)
    table = KeyTable(retention_seconds=86_400.0)
    stored = StoredKeys(table.clients)
    assert 0 == stored.load(b"\n".join(store.keys.encoded()))
    table.add_stored(stored, NOON)
    table.expire(NOON + 86_000.0)

    found, expected = table.find(sale()), store.keys.find(sale())
    assert found is not None
    assert not isinstance(found, Attempt)
    assert expected == replace(found)


async def test_a_person_who_settles_is_named_in_the_log(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """[W9] With key, product, outcome and reason."""
    await in_doubt(store)
    await settled(store)
    [line] = [record.getMessage() for record in caplog.records if "settled" in record.msg]

    for part in ("store-s1-sale", "P-1", "not applied", "office", "counted"):
        assert part in line
