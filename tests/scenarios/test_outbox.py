"""Selling while Central is away: a whole store with its outbox, in virtual time (rules O)."""

from __future__ import annotations

import asyncio
import errno
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import orjson
import pytest

from central_stub.rules import Update
from central_stub.switches import Switches
from store_cache.api.content import bodies
from store_cache.app.serve import api_of
from store_cache.writes.outbox.entry import UNSETTLED, Entry, State
from store_cache.writes.outbox.outbox import Outbox
from store_cache.writes.outbox.sender import LINES
from store_cache.writes.write import Adjustment, Answer, Write, WriteError
from tests.harness.central import LedgerTransport
from tests.harness.clock import Clock
from tests.harness.faulty_directory import FaultyDirectory
from tests.harness.store import RunningStore, a_store, settings_of

MINUTE, HOUR = 60.0, 3600.0
UPDATES = "/v1/inventory/updates"


class Central(LedgerTransport):
    """`lost`: so many answers to writes are lost after the write was applied. `refuses`: products
    whose writes are refused for good, with this error type. `takes_batches`: whether it knows
    requests with several writes. `lines` counts the writes of each request."""

    def __init__(self, *product_ids: str) -> None:
        super().__init__(Clock(), *product_ids)
        self.lost = 0
        self.refuses: dict[str, str] = {}
        self.denies = False
        self.takes_batches = True
        self.lines: list[int] = []

    def switch(self, **switches: Any) -> None:
        self.ledger.switch(Switches(**switches))

    @property
    def writes(self) -> int:
        return sum(UPDATES in asked for asked in self.asked)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        target = request.url.raw_path.decode()
        is_write = target == UPDATES and not self.is_cut
        if is_write and self.denies:
            self._note(target)
            body: dict[str, Any] = {"code": "unauthorized", "message": "?", "details": []}
            return httpx.Response(401, json=body)
        if is_write:
            sent = orjson.loads(await request.aread())
            updates = sent.get("updates", [sent])
            self.lines.append(len(updates))
            if len(updates) > 1 and not self.takes_batches:
                self._note(target)
                return httpx.Response(400, json={"code": "invalid_request", "message": "one only"})
            if any(update["productId"] in self.refuses for update in updates):
                self._note(target)
                results = [await self._one(request, update) for update in updates]
                return (
                    httpx.Response(200, json={"results": results})
                    if "updates" in sent
                    else httpx.Response(409, json=results[0])
                )
        response = await super().handle_async_request(request)
        if is_write and self.lost:
            self.lost -= 1
            raise httpx.ReadError("the connection broke")
        return response

    async def _one(self, request: httpx.Request, update: dict[str, Any]) -> dict[str, Any]:
        """Return the result of one of several writes."""
        product = update["productId"]
        if (error := self.refuses.get(product)) is not None:
            refused = {"productId": product, "applied": False, "errorType": error}
            return refused | {"errorMessage": "not here"}
        alone = httpx.Request("POST", request.url, headers=request.headers, json=update)
        response = await LedgerTransport.handle_async_request(self, alone)
        return dict(orjson.loads(response.content))


@asynccontextmanager
async def a_shop(
    central: Central | None = None, directory: FaultyDirectory | None = None, **settings: Any
) -> AsyncIterator[RunningStore]:
    """A store with an outbox that is in sync, unless Central is cut."""
    central = central or Central()
    given: dict[str, Any] = {"offline_writes": "queue"} | settings
    async with a_store(directory, central=central, **given) as store:
        if not central.is_cut:
            await store.until("live")
        yield store


def central_of(store: RunningStore) -> Central:
    assert isinstance(store.central, Central)
    return store.central


def outbox_of(store: RunningStore) -> Outbox:
    assert store.parts.outbox is not None
    return store.parts.outbox


async def adjust(store: RunningStore, key: str, *, product: str = "P-1", delta: int = -1) -> Answer:
    return await store.parts.forwarder.adjust(Adjustment(product, delta, key))


async def queued(store: RunningStore, key: str, **write: Any) -> Entry:
    """Sell while Central is away."""
    answer = await adjust(store, key, **write)
    assert 202 == answer.status
    return entry_of(store, key)


async def in_doubt(store: RunningStore, key: str, *, product: str = "P-1") -> WriteError:
    with pytest.raises(WriteError) as caught:
        await adjust(store, key, product=product)
    assert "central_timeout" == caught.value.code
    return caught.value


def entry_of(store: RunningStore, key: str) -> Entry:
    entry = outbox_of(store).get(key)
    assert entry is not None
    return entry


def read(store: RunningStore, product_id: str = "P-1") -> dict[str, Any]:
    catalogue = store.parts.writer.catalogue
    assert catalogue is not None
    content = bodies.product(catalogue, product_id, store.parts.pending)
    assert content is not None
    return dict(orjson.loads(content[0]))


async def cut(store: RunningStore) -> None:
    """Take Central away, and let the store notice."""
    central_of(store).cut()
    await asyncio.sleep(1.0)


async def back(store: RunningStore, *, seconds: float = 2.0) -> None:
    """Bring Central back, and give the outbox its two seconds (O8)."""
    central_of(store).is_cut = False
    central_of(store).wake()
    await asyncio.sleep(seconds)


# -- an outage ---------------------------------------------------------------------------------


async def test_what_is_sold_while_central_is_away_is_applied_at_its_return() -> None:
    """[O1, O8] In the order of the sales, within two seconds, each once."""
    async with a_shop() as store:
        await cut(store)
        for number in range(5):
            await queued(store, f"sale-{number}", product=f"P-{number % 3 + 1}", delta=-2)
        assert 10 == central_of(store).stock("P-1")[0]
        await back(store)

        assert [6, 6, 8] == [central_of(store).stock(f"P-{n}")[0] for n in (1, 2, 3)]
        assert 0 == len(outbox_of(store))
        answers = [
            await adjust(store, f"sale-{n}", product=f"P-{n % 3 + 1}", delta=-2) for n in range(5)
        ]
        assert {200} == {answer.status for answer in answers}
        assert [8, 8, 8, 6, 6] == [answer.body["newQuantity"] for answer in answers]


async def test_the_answer_to_a_queued_write_says_what_is_expected() -> None:
    """[O6] 202 names the entry, Central's stock and what is pending; a repeat gets the same."""
    async with a_shop() as store:
        await cut(store)
        await queued(store, "first", delta=-3)
        answer = await adjust(store, "second", delta=-2)
        entry = entry_of(store, "second")

        assert answer == await adjust(store, "second", delta=-2)
        assert {
            "productId": "P-1",
            "applied": False,
            "queued": True,
            "outboxId": entry.id,
            "state": "queued",
            "available": 10,
            "pendingDelta": -5,
            "expectedAvailable": 5,
        } == {name: item for name, item in answer.body.items() if name != "queuedAt"}
        with pytest.raises(WriteError) as reused:
            await adjust(store, "second", delta=-9)
        assert "idempotency_key_reused" == reused.value.code


async def test_a_queued_write_is_answered_in_no_time_once_central_is_known_to_be_away() -> None:
    """[O8] No till waits for a probe."""
    async with a_shop() as store:
        await cut(store)
        await queued(store, "the first one may wait")
        loop = asyncio.get_running_loop()
        for number in range(20):
            began_at = loop.time()
            await queued(store, f"sale-{number}")
            assert loop.time() - began_at < 0.05
            await asyncio.sleep(0.7)


async def test_reads_show_what_is_pending_until_it_is_settled() -> None:
    """[O10] Beside Central's own stock; the tag covers it; nothing is shown twice or left."""
    async with a_shop() as store:
        plain = read(store)
        await cut(store)
        await queued(store, "sale", delta=-12)

        shown = {"pendingDelta": -12, "expectedAvailable": -2, "oversold": True}
        assert plain | shown == read(store)
        assert "pendingDelta" not in read(store, "P-2")
        central_of(store).ledger.create(
            {"productId": "P-9", "name": "Tea", "available": 1}, central_of(store).clock.now()
        )
        central_of(store).sell("P-1", delta=30)
        await back(store)
        assert 28 == read(store)["available"]
        assert "pendingDelta" not in read(store)


async def test_a_write_queues_behind_queued_writes_to_its_product() -> None:
    """[O1] Also while the breaker is closed: its order is that of the sales."""
    async with a_shop() as store:
        await cut(store)
        await queued(store, "first")
        central_of(store).denies = True
        await back(store)
        assert "queued" == entry_of(store, "first").state

        assert 202 == (await adjust(store, "second")).status
        central_of(store).denies = False
        await asyncio.sleep(2 * MINUTE)
        entries = [entry_of(store, "first"), entry_of(store, "second")]
        assert [State.APPLIED] * 2 == [entry.state for entry in entries]
        assert entries[0].result is not None
        assert entries[1].result is not None
        assert entries[0].result.new_version == 2
        assert entries[1].result.new_version == 3


# -- conflicts ---------------------------------------------------------------------------------


async def test_a_write_without_a_version_is_rebased() -> None:
    """[O2] Others sold meanwhile: it is sent with the current version, at last under a derived
    key."""
    async with a_shop() as store:
        await cut(store)
        await queued(store, "sale", delta=-2)
        for _ in range(3):
            central_of(store).sell("P-1")
        await back(store)

        assert 5 == central_of(store).stock("P-1")[0]
        assert State.APPLIED == entry_of(store, "sale").state


def sale(key: str, version: int, *, delta: int = -1, rebases: bool = False) -> Write:
    return Write("P-1", delta, version, key, rebases=rebases)


@pytest.mark.parametrize("rebases", [False, True], ids=["parked", "rebased"])
async def test_a_write_with_a_stale_version_is_parked_unless_it_says_otherwise(
    *, rebases: bool
) -> None:
    """[O2] The till saw a stock that others have changed since: a person decides."""
    async with a_shop() as store:
        await cut(store)
        assert 202 == (await store.parts.forwarder.update(sale("s", 1, rebases=rebases))).status
        central_of(store).sell("P-1")
        await back(store)
        entry = entry_of(store, "s")

        assert (State.APPLIED if rebases else State.PARKED) == entry.state
        assert (8 if rebases else 9) == central_of(store).stock("P-1")[0]
        if not rebases:
            assert "version_conflict" == entry.error_type


async def test_writes_with_one_version_follow_each_other_if_only_this_shop_sold() -> None:
    """[O2] Three tills read version 1 while Central was away."""
    async with a_shop() as store:
        await cut(store)
        for number in range(3):
            await store.parts.forwarder.update(sale(f"s-{number}", 1))
        await back(store)

        assert (7, 4) == central_of(store).stock("P-1")
        assert 0 == len(outbox_of(store))


# -- refusals ----------------------------------------------------------------------------------


async def test_a_refusal_for_good_parks_the_write_with_central_s_words() -> None:
    """[O3] It stays shown, and degrades the health."""
    async with a_shop() as store:
        await cut(store)
        await queued(store, "sale")
        central_of(store).refuses["P-1"] = "insufficient_inventory"
        await back(store)
        entry = entry_of(store, "sale")

        assert (State.PARKED, "insufficient_inventory", "not here") == (
            entry.state,
            entry.error_type,
            entry.problem,
        )
        health = store.parts.status.health()
        assert "degraded" == health["checks"]["outbox"]["status"]
        assert 202 == (await adjust(store, "sale")).status
        assert "parked" == (await adjust(store, "sale")).body["state"]
        assert -1 == read(store)["pendingDelta"]


async def test_a_product_that_is_refused_for_ever_keeps_nobody_waiting() -> None:
    """[O1, O3] The other 500 go through at their usual pace."""
    names = [f"P-{number}" for number in range(501)]
    async with a_shop(Central(*names)) as store:
        await cut(store)
        for name in names:
            await queued(store, f"sale-{name}", product=name)
        central_of(store).refuses["P-0"] = "invalid_request"
        await back(store, seconds=4.0)

        assert (0, 1) == (outbox_of(store).counts[State.QUEUED], len(outbox_of(store)))
        assert {9} == {central_of(store).stock(name)[0] for name in names[1:]}


async def test_a_refused_key_is_central_being_away() -> None:
    """[O3] Everything waits, the cause is named, nothing is parked, and Central is not asked in a
    tight loop."""
    async with a_shop() as store:
        central_of(store).denies = True
        for number in range(3):
            assert 202 == (await adjust(store, f"sale-{number}")).status
        writes = central_of(store).writes
        await asyncio.sleep(5 * MINUTE)

        assert central_of(store).writes - writes < 30
        status = store.status["outbox"]
        assert (3, 0) == (status["queued"], status["parked"])
        assert "CENTRAL_API_KEY" in status["waitsFor"]
        central_of(store).denies = False
        await asyncio.sleep(2 * MINUTE)
        assert 7 == central_of(store).stock("P-1")[0]


async def test_a_probe_that_the_stores_own_limit_holds_back_is_tried_later() -> None:
    """[O3] Central cannot be reached and its limit is used up: nothing goes round in a loop."""
    async with a_shop() as store:
        central_of(store).switch(rate_limit=6)
        await asyncio.sleep(10 * MINUTE)
        await cut(store)
        await queued(store, "sale")
        await asyncio.sleep(10 * MINUTE)
        await back(store, seconds=3 * MINUTE)

        assert 9 == central_of(store).stock("P-1")[0]


# -- doubts ------------------------------------------------------------------------------------


async def test_a_write_in_doubt_is_settled_by_its_repeat() -> None:
    """[O4] The store repeats it under the same key; the till gets the outcome."""
    async with a_shop(write_timeout_seconds=1) as store:
        central_of(store).lost = 100
        error = await in_doubt(store, "sale")
        assert entry_of(store, "sale").id == error.details["outboxId"]
        central_of(store).lost = 0
        await asyncio.sleep(5.0)

        assert 9 == central_of(store).stock("P-1")[0]
        assert 200 == (await adjust(store, "sale")).status


async def test_a_queued_write_whose_answer_is_lost_is_applied_once() -> None:
    """[O4] The attempt is sent again as it was."""
    async with a_shop() as store:
        await cut(store)
        await queued(store, "sale", delta=-3)
        central_of(store).lost = 2
        await back(store, seconds=MINUTE)

        assert (7, 2) == central_of(store).stock("P-1")
        assert State.APPLIED == entry_of(store, "sale").state


async def test_what_nothing_settles_is_shown_and_never_sent_as_new() -> None:
    """[O4] Central forgets keys and names no writes: after a while the health says so."""
    async with a_shop(write_timeout_seconds=1) as store:
        central_of(store).switch(key_memory_seconds=0, unnamed_writes=True)
        central_of(store).lost = 1
        await in_doubt(store, "sale")
        await asyncio.sleep(10 * MINUTE)

        assert State.IN_DOUBT == entry_of(store, "sale").state
        assert (9, 2) == central_of(store).stock("P-1")
        assert "in doubt" in store.parts.status.health()["checks"]["outbox"]["problem"]
        assert ["sale"] == [doubt.key for doubt in store.parts.forwarder.in_doubt()]


async def test_a_refusal_of_a_queued_write_in_doubt_proves_nothing() -> None:
    """[O4] Central has applied it and forgotten its key: the conflict is with the write itself."""
    async with a_shop() as store:
        await cut(store)
        await queued(store, "sale")
        central_of(store).switch(key_memory_seconds=0, unnamed_writes=True)
        central_of(store).lost = 1
        await back(store, seconds=MINUTE)

        assert State.IN_DOUBT == entry_of(store, "sale").state
        assert (9, 2) == central_of(store).stock("P-1")


async def test_a_late_answer_is_not_shown_in_the_next_incarnation() -> None:
    """[O4, W6] The write was applied, then the product was deleted and created again: the answer to
    the repeat tells of the one before, though the version fits."""
    async with a_shop() as store:
        central, now = central_of(store), central_of(store).clock.now
        await cut(store)
        await queued(store, "sale")
        central.switch(unnamed_writes=True)
        central.lost = 1_000
        await back(store)
        central.ledger.delete("P-1", now())
        central.ledger.create({"productId": "P-1", "name": "Tea", "available": 50}, now())
        central.wake()
        await asyncio.sleep(2 * MINUTE)
        assert State.IN_DOUBT == entry_of(store, "sale").state
        settled = asyncio.Event()
        outbox_of(store).on_changed = lambda _: settled.set()
        central.lost = 0
        await settled.wait()

        assert State.APPLIED == entry_of(store, "sale").state
        assert (50, 1) == (read(store)["available"], read(store)["version"])


async def test_a_doubt_is_parked_once_central_may_have_forgotten_the_key() -> None:
    """[O4, O5] It is never sent again by itself."""
    async with a_shop(write_timeout_seconds=1, key_retention_hours=1) as store:
        central_of(store).switch(key_memory_seconds=0, unnamed_writes=True)
        central_of(store).lost = 1
        await in_doubt(store, "sale")
        await asyncio.sleep(HOUR + 2 * MINUTE)
        writes = central_of(store).writes
        await asyncio.sleep(5 * MINUTE)

        assert (State.PARKED, "forgotten") == (
            entry_of(store, "sale").state,
            entry_of(store, "sale").error_type,
        )
        assert writes == central_of(store).writes
        await refuses_without_an_outcome(store, "sale")


async def test_a_derived_key_is_remembered_from_its_own_first_sending() -> None:
    """[O5] A person has the sale sent again when the first key is nearly forgotten: its answer is
    lost, and only an hour after that sending may Central have forgotten it."""
    async with a_shop(write_timeout_seconds=1, key_retention_hours=1) as store:
        central_of(store).switch(key_memory_seconds=0, unnamed_writes=True)
        await cut(store)
        entry = await queued(store, "sale")
        central_of(store).refuses["P-1"] = "insufficient_inventory"
        await back(store)
        await asyncio.sleep(50 * MINUTE)
        del central_of(store).refuses["P-1"]
        central_of(store).lost = 1
        await outbox_of(store).retry(entry.id, by="office", reason="delivered", outcome="")
        await asyncio.sleep(50 * MINUTE)
        assert State.IN_DOUBT == entry_of(store, "sale").state
        await asyncio.sleep(12 * MINUTE)

        assert "forgotten" == entry_of(store, "sale").error_type
        assert 9 == central_of(store).stock("P-1")[0]


async def test_a_replaced_central_parks_what_is_in_doubt() -> None:
    """[O4] Whether the new one has it, no store can tell."""
    async with a_shop(write_timeout_seconds=1) as store:
        central_of(store).lost = 100
        await in_doubt(store, "sale")
        central_of(store).ledger.begin_generation("g-2")
        central_of(store).wake()
        await asyncio.sleep(2 * MINUTE)

        assert "central_replaced" == entry_of(store, "sale").error_type


async def test_an_event_that_names_the_write_settles_it() -> None:
    """[O4] Even if this store never sent it: another node of the same STORE_ID did."""
    async with a_shop() as store:
        await cut(store)
        await queued(store, "sale", delta=-2)
        other = Update("P-1", -2, 1, "store-s1-sale~2", "store-s1")
        assert central_of(store).ledger.update(other, central_of(store).clock.now())["applied"]
        central_of(store).failing = UPDATES
        await back(store, seconds=3.0)

        assert State.APPLIED == entry_of(store, "sale").state
        assert 8 == central_of(store).stock("P-1")[0] == read(store)["available"]
        assert "pendingDelta" not in read(store)


async def test_a_repeat_waits_until_the_event_that_settles_its_write_is_shown() -> None:
    """[W6, O4] Seed 99610969: the disk is slow. A till that is told the new stock must not read the
    one before."""
    async with a_shop() as store:
        central = central_of(store)
        central.refuses = {"P-1": "insufficient_inventory"}
        await cut(store)
        await queued(store, "sale", delta=-2)
        await back(store)
        assert State.PARKED == entry_of(store, "sale").state
        held = store.disk.hold("sync journal-2.jsonl")
        other = Update("P-1", -2, 1, "store-s1-sale~2", "store-s1")
        assert central.ledger.update(other, central.clock.now())["applied"]
        central.wake()
        await held.reached.wait()
        repeat = asyncio.create_task(adjust(store, "sale", delta=-2))
        await asyncio.sleep(1.0)

        assert (False, 10) == (repeat.done(), read(store)["available"])

        held.release.set()
        answer = await repeat

        assert (200, 8) == (answer.status, answer.body["newQuantity"])
        assert 8 == read(store)["available"]


async def test_a_restored_central_is_sent_its_own_version() -> None:
    """[O2] Seed 88000888: it is older than what the shop's own sales have made, and says so in its
    refusal. That version is sent, and nothing that those sales have made of it."""
    async with a_shop() as store:
        central = central_of(store)
        backup = central.ledger.backup()
        await cut(store)
        await queued(store, "before")
        await back(store)
        assert (9, 2) == central.stock("P-1")
        await cut(store)
        await queued(store, "after")
        central.ledger.restore(backup, "g-1")
        await back(store, seconds=10.0)

        assert (9, 2) == central.stock("P-1")
        assert State.APPLIED is entry_of(store, "after").state


async def test_a_version_of_another_generation_is_not_continued() -> None:
    """[O2] Versions start over: what the shop has made of one before says nothing of this one."""
    async with a_shop() as store:
        await cut(store)
        await queued(store, "before")
        await back(store)
        assert 2 == outbox_of(store).continued_version("P-1", 1, "g-1")

        assert 1 == outbox_of(store).continued_version("P-1", 1, "g-2")


# -- defects -----------------------------------------------------------------------------------


async def test_an_entry_whose_try_a_defect_has_ended_is_in_doubt_and_repeated(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """[O4, O10] Nobody waits for its answer any more: its attempt is sent again after a minute."""
    async with a_shop() as store:
        await cut(store)
        await queued(store, "sale")
        outbox, settle = outbox_of(store), outbox_of(store).settle
        states: list[State] = []

        async def broken(entry: Entry, stock: Any) -> None:
            monkeypatch.setattr(outbox, "settle", settle)
            raise RuntimeError("a defect")

        monkeypatch.setattr(outbox, "settle", broken)
        outbox.on_changed = lambda entry: states.append(entry.state)
        central_of(store).switch(unnamed_writes=True)
        await back(store)
        assert State.SENDING is entry_of(store, "sale").state
        await asyncio.sleep(2 * MINUTE)

        assert [State.SENDING, State.IN_DOUBT, State.APPLIED] == states
        assert (9, 2) == central_of(store).stock("P-1")
        assert "a defect" in caplog.text


async def test_what_is_not_to_be_sent_any_more_keeps_no_product_busy(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """[O1] An entry that is gone by its turn holds nobody up."""
    async with a_shop() as store:
        await cut(store)
        await queued(store, "sale")
        outbox_of(store).order.put_queued("gone", "P-1", 0)
        await back(store)

        assert State.APPLIED is entry_of(store, "sale").state
        assert "a defect" not in caplog.text


@pytest.mark.parametrize("ends", ["parked", "applied"])
async def test_failures_are_forgotten_with_the_entry(ends: str) -> None:
    """[O3] A retried one begins with the shortest pause; of settled ones nothing is left."""
    async with a_shop(write_timeout_seconds=1, key_retention_hours=1) as store:
        central = central_of(store)
        central.lost = 1_000
        if ends == "parked":
            central.switch(key_memory_seconds=0, unnamed_writes=True)
        else:
            central.failing = UPDATES
        await in_doubt(store, "sale")
        await asyncio.sleep(5 * MINUTE)
        assert outbox_of(store).failures["sale"] > 3
        if ends == "applied":
            other = Update("P-1", -1, 1, "store-s1-sale", "store-s1")
            central.ledger.update(other, central.clock.now())
            central.wake()
        await asyncio.sleep(HOUR if ends == "parked" else MINUTE)

        assert ends == entry_of(store, "sale").state
        assert not outbox_of(store).failures


async def test_a_batch_is_answered_though_the_feed_settles_a_line_that_was_not_sent() -> None:
    """[O4, W3] Another node has sold the line while this one could not reach Central: the other
    line is queued, with Central's absence as the reason, and both are answered."""

    class SoldElsewhere(Central):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if request.url.raw_path.decode() != UPDATES or not self.lost:
                return await super().handle_async_request(request)
            self.lost = 0
            node = Update("P-1", -1, 1, "store-s1-a", "store-s1")
            assert self.ledger.update(node, self.clock.now())["applied"]
            self.wake()
            await asyncio.sleep(0.5)
            self.cut()
            raise httpx.ConnectError("refused")

    central = SoldElsewhere()
    async with a_shop(central) as store:
        central.lost = 1
        writes = [Write(f"P-{n}", -1, 1, key) for n, key in ((1, "a"), (2, "b"))]
        answer = await store.parts.forwarder.update_batch(writes)

        assert [True, False] == [result["applied"] for result in answer.results]
        assert answer.results[1]["queued"]
        assert "cannot be reached" in entry_of(store, "b").problem
        assert "repeat" not in entry_of(store, "b").problem
        await back(store, seconds=5.0)
        assert [9, 9] == [central.stock(product)[0] for product in ("P-1", "P-2")]


# -- people ------------------------------------------------------------------------------------


async def test_a_person_retries_a_parked_write() -> None:
    """[O10] Under the next key, since Central remembers the refusal of the one before."""
    async with a_shop() as store:
        await cut(store)
        entry = await queued(store, "sale")
        central_of(store).refuses["P-1"] = "insufficient_inventory"
        await back(store)
        del central_of(store).refuses["P-1"]
        await outbox_of(store).retry(entry.id, by="office", reason="delivered", outcome="")
        await asyncio.sleep(1.0)
        after = entry_of(store, "sale")

        assert (State.APPLIED, 2) == (after.state, after.number)
        assert [("retried", "office", "delivered")] == [
            (step.action, step.by, step.reason) for step in after.steps
        ]
        assert 200 == (await adjust(store, "sale")).status


async def test_a_person_discards_a_parked_write() -> None:
    """[O10] Its delta goes, and a repeat gets 409 `discarded`."""
    async with a_shop() as store:
        await cut(store)
        entry = await queued(store, "sale")
        central_of(store).refuses["P-1"] = "product_not_found"
        await back(store)
        await outbox_of(store).discard(entry.id, by="office", reason="sold twice by mistake")
        answer = await adjust(store, "sale")

        assert (409, "discarded") == (answer.status, answer.body["errorType"])
        assert "sold twice by mistake" in answer.body["errorMessage"]
        assert "pendingDelta" not in read(store)
        assert 0 == len(outbox_of(store))


@pytest.mark.parametrize("is_applied", [False, True])
async def test_a_person_settles_a_doubt(*, is_applied: bool) -> None:
    """[O4, O10] The same call as for any write in doubt; nothing is sent any more."""
    async with a_shop(write_timeout_seconds=1) as store:
        central_of(store).switch(key_memory_seconds=0, unnamed_writes=True)
        central_of(store).lost = 1
        await in_doubt(store, "sale")
        await asyncio.sleep(MINUTE / 2)
        forwarder, sent = store.parts.forwarder, central_of(store).writes
        answer = await forwarder.settle("sale", is_applied=is_applied, by="office", reason="seen")
        await asyncio.sleep(MINUTE)

        assert (200 if is_applied else 409) == answer.status
        assert answer == await adjust(store, "sale")
        assert sent == central_of(store).writes
        assert "pendingDelta" not in read(store)


async def test_a_persons_settlement_says_nothing_of_a_version() -> None:
    """[O2] Another shop has made the version that Central shows by then: a write that names the one
    before it is stale."""
    async with a_shop(write_timeout_seconds=1) as store:
        central_of(store).lost = 100
        central_of(store).failing = UPDATES
        await in_doubt(store, "sale")
        await asyncio.sleep(5 * MINUTE)  # until it is between two tries
        central_of(store).sell("P-1")
        await store.parts.forwarder.settle("sale", is_applied=True, by="office", reason="found")
        result = entry_of(store, "sale").result
        assert result is not None
        assert result.new_version == 2

        assert 1 == outbox_of(store).continued_version("P-1", 1, "g-1")


async def test_a_doubt_is_retried_only_if_a_person_says_that_it_was_not_applied() -> None:
    """[O4] Else a sale could count twice."""
    async with a_shop(write_timeout_seconds=1) as store:
        central_of(store).switch(key_memory_seconds=0, unnamed_writes=True)
        central_of(store).lost = 1
        await in_doubt(store, "sale")
        await asyncio.sleep(MINUTE / 2)
        await refuses_without_an_outcome(store, "sale")
        entry = entry_of(store, "sale")
        await outbox_of(store).retry(entry.id, by="office", reason="counted", outcome="not_applied")
        await asyncio.sleep(1.0)

        assert State.APPLIED == entry_of(store, "sale").state
        assert (8, 3) == central_of(store).stock("P-1")


async def refuses_without_an_outcome(store: RunningStore, key: str) -> None:
    """Check that nobody sends an entry again, or gives it up, that may have been applied."""
    entry, outbox = entry_of(store, key), outbox_of(store)
    for refused in (
        outbox.retry(entry.id, by="office", reason="?", outcome=""),
        outbox.discard(entry.id, by="office", reason="?"),
    ):
        with pytest.raises(WriteError) as caught:
            await refused
        assert "outbox_entry_in_other_state" == caught.value.code


# -- requests with several entries --------------------------------------------------------------


async def test_entries_of_different_products_share_requests() -> None:
    """[O1] Those of one product stay in their order; each gets an outcome of its own."""
    products = [f"P-{number}" for number in range(1, 21)]
    central = Central(*products)
    async with a_shop(central) as store:
        await cut(store)
        for sale_ in ("first", "second"):
            for product in products:
                await queued(store, f"{sale_}-{product}", product=product)
        central.refuses["P-3"] = "invalid_request"
        central.lines.clear()
        await back(store)

        assert max(central.lines) == LINES
        assert len(central.lines) < 20
        assert {"P-3"} == {e.product_id for e in outbox_of(store).listed(None, limit=99, after="")}
        for product in products:
            expected = (10, 1) if product == "P-3" else (8, 3)
            assert expected == central.stock(product)


async def test_a_central_that_takes_no_batches_gets_each_write_alone() -> None:
    """[O3] It refuses the request as a whole, which says nothing of the entries."""
    central = Central()
    central.takes_batches = False
    async with a_shop(central) as store:
        await cut(store)
        for number in range(9):
            await queued(store, f"sale-{number}", product=f"P-{number % 3 + 1}")
        central.lines.clear()
        await back(store, seconds=5.0)

        assert [7, 7, 7] == [central.stock(f"P-{number}")[0] for number in (1, 2, 3)]
        assert 1 == sum(lines > 1 for lines in central.lines)


async def test_an_answer_to_several_that_is_lost_leaves_each_in_doubt() -> None:
    """[O4] Each attempt is repeated by itself, and nothing is sold twice."""

    class Losing(Central):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            response = await super().handle_async_request(request)
            if request.url.raw_path.decode() == UPDATES and self.lines[-1] > 1:
                raise httpx.ReadError("the connection broke")
            return response

    central, states = Losing(), set()
    central.switch(unnamed_writes=True)
    async with a_shop(central, write_timeout_seconds=1) as store:
        await cut(store)
        await queued(store, "probe", product="P-1")
        for number in (1, 2, 3):
            await queued(store, f"sale-{number}", product=f"P-{number}")
        outbox_of(store).on_changed = lambda entry: states.add((entry.key, entry.state))
        await back(store, seconds=MINUTE)

        assert max(central.lines) > 1
        assert ("sale-3", State.IN_DOUBT) in states
        assert [8, 9, 9] == [central.stock(f"P-{number}")[0] for number in (1, 2, 3)]
        assert 0 == len(outbox_of(store))


# -- bounds ------------------------------------------------------------------------------------


async def test_a_full_outbox_takes_no_more() -> None:
    """[O7] 503 `outbox_full`; of a batch that does not fit nothing is taken."""
    async with a_shop(outbox_limit=3) as store:
        await cut(store)
        await queued(store, "first")
        await queued(store, "second", product="P-2")
        writes = [Write(f"P-{n}", -1, 1, f"batch-{n}") for n in (1, 2)]
        with pytest.raises(WriteError) as caught:
            await store.parts.forwarder.update_batch(writes)

        assert "outbox_full" == caught.value.code
        assert 2 == len(outbox_of(store))
        await queued(store, "third")
        with pytest.raises(WriteError):
            await adjust(store, "fourth")
        assert 202 == (await adjust(store, "third")).status


async def test_a_batch_answers_line_by_line() -> None:
    """[O1] One line queues behind a queued write, the other one is applied."""
    async with a_shop() as store:
        await cut(store)
        await queued(store, "first")
        central_of(store).refuses["P-1"] = "invalid_request"
        central_of(store).denies = True
        await back(store)
        central_of(store).denies = False
        writes = [Write("P-1", -1, 1, "a"), Write("P-2", -1, 1, "b")]
        answer = await store.parts.forwarder.update_batch(writes)

        assert [True, None] == [result.get("queued") for result in answer.results]
        assert answer.results[1]["applied"]


async def test_a_failing_disk_queues_nothing() -> None:
    """[O7] What is not on disk was not queued."""
    async with a_shop() as store:
        await cut(store)
        store.disk.room = 0
        with pytest.raises(WriteError) as caught:
            await adjust(store, "sale")

        assert "storage_unavailable" == caught.value.code
        assert 0 == len(outbox_of(store))
        assert "pendingDelta" not in read(store)


async def test_a_failing_disk_holds_the_outbox_back(caplog: pytest.LogCaptureFixture) -> None:
    """[O6] Nothing is sent whose outcome could not be kept."""
    async with a_shop() as store:
        await cut(store)
        await queued(store, "sale")
        store.disk.room = 0
        central_of(store).sell("P-2")
        await back(store, seconds=10.0)
        assert 10 == central_of(store).stock("P-1")[0]
        store.disk.room = None
        await asyncio.sleep(MINUTE)
        assert 9 == central_of(store).stock("P-1")[0]
        assert "a defect" not in caplog.text


async def test_a_disk_that_works_again_queues_at_once() -> None:
    """[O7] It failed while a write was being queued."""
    async with a_shop() as store:
        await cut(store)
        store.disk.room = 0
        with pytest.raises(WriteError):
            await adjust(store, "sale")
        store.disk.room = None
        await asyncio.sleep(MINUTE)
        await queued(store, "sale")

        assert -1 == read(store)["pendingDelta"]


async def test_an_old_entry_is_parked_if_there_is_a_limit() -> None:
    """[O5] By itself a write may be sent at any age."""
    async with a_shop(outbox_max_age_hours=0.1) as store:
        await cut(store)
        await queued(store, "sale")
        await asyncio.sleep(10 * MINUTE)
        await back(store, seconds=MINUTE)

        entry = entry_of(store, "sale")
        assert ("too_old", True) == (entry.error_type, "HOURS (0.1)" in entry.problem)
        assert 10 == central_of(store).stock("P-1")[0]


async def test_an_old_entry_that_a_person_retries_is_sent_under_the_key_that_was_not_sent() -> None:
    """[O5, O10] The person's decision begins its time anew. Another node of the shop may have the
    sale as well, or a till may repeat it there: under another key it would be sold twice."""
    central = Central()
    async with a_shop(central, outbox_max_age_hours=0.1) as store:
        await cut(store)
        entry = await queued(store, "sale", delta=-3)
        await asyncio.sleep(10 * MINUTE)
        await back(store, seconds=MINUTE)
        assert "too_old" == entry_of(store, "sale").error_type
        await outbox_of(store).retry(entry.id, by="office", reason="asked for", outcome="")
        await asyncio.sleep(MINUTE)

        after = entry_of(store, "sale")
        assert (State.APPLIED, 1) == (after.state, after.number)
    async with a_shop(central, FaultyDirectory()) as other:
        with suppress(WriteError):
            await adjust(other, "sale", delta=-3)
        assert 7 == central.stock("P-1")[0]


# -- restarts ----------------------------------------------------------------------------------


async def test_a_restart_finds_every_entry_on_disk() -> None:
    """[O6] In its state and order, with what reads show; a repeat gets its entry."""
    central, directory = Central(), FaultyDirectory()
    async with a_shop(central, directory) as store:
        await cut(store)
        first = await queued(store, "first", delta=-2)
        await queued(store, "second", product="P-2")
    async with a_shop(central, directory) as store:
        assert first.id == entry_of(store, "first").id
        assert -2 == read(store)["pendingDelta"]
        assert 202 == (await adjust(store, "first", delta=-2)).status
        await back(store, seconds=5.0)

        assert [8, 9] == [central.stock(product)[0] for product in ("P-1", "P-2")]


async def test_what_was_on_its_way_at_a_crash_is_in_doubt() -> None:
    """[O4, O6] It is not sent as new: its attempt is repeated."""
    central, directory = Central(), FaultyDirectory()
    async with a_shop(central, directory) as store:
        await cut(store)
        await queued(store, "sale", delta=-2)
        central.is_cut = False
        central.may_answer.clear()
        central.wake()
        await asyncio.sleep(1.2)
        assert State.SENDING == entry_of(store, "sale").state
        directory = FaultyDirectory(directory.contents())
        central.may_answer.set()
    assert (8, 2) == central.stock("P-1")
    async with a_shop(central, directory) as store:
        await asyncio.sleep(5.0)

        assert State.APPLIED == entry_of(store, "sale").state
        assert (8, 2) == central.stock("P-1")


async def test_what_may_have_been_applied_before_a_crash_is_never_sent_as_new() -> None:
    """[O4, O6] Central has applied it, forgets keys and names no writes, and another shop sells:
    with the version of now it would be applied a second time."""
    central, directory = Central(), FaultyDirectory()
    central.switch(key_memory_seconds=0, unnamed_writes=True)
    async with a_shop(central, directory) as store:
        await cut(store)
        await queued(store, "sale", delta=-2)
        central.is_cut = False
        central.may_answer.clear()
        central.wake()
        await asyncio.sleep(1.2)
        directory = FaultyDirectory(directory.contents())
        central.may_answer.set()
    central.sell("P-1")
    async with a_shop(central, directory) as store:
        await asyncio.sleep(MINUTE)

        assert (7, 3) == central.stock("P-1")
        assert State.IN_DOUBT == entry_of(store, "sale").state


async def test_entries_survive_compaction() -> None:
    """[O6] A new snapshot has them, settled ones as well."""
    central, directory = Central(), FaultyDirectory()
    async with a_shop(central, directory) as store:
        await cut(store)
        await queued(store, "settled", product="P-2")
        await back(store)
        await cut(store)
        await queued(store, "waiting")
        await store.parts.writer.files.compact(store.parts.writer._keys.encoded)
    async with a_shop(central, directory) as store:
        assert State.QUEUED == entry_of(store, "waiting").state
        assert State.APPLIED == entry_of(store, "settled").state
        assert outbox_of(store).by_id(entry_of(store, "settled").id) is not None


async def test_entries_on_a_disk_that_is_read_late_are_told_and_sent() -> None:
    """[O6] The disk failed at the start: once it works, streams tell what is pending."""
    central, directory = Central(), FaultyDirectory()
    async with a_shop(central, directory) as store:
        await cut(store)
        await queued(store, "sale")
    directory = directory.after_kill()
    directory.failures[1] = errno.EIO
    async with a_shop(central, directory) as store:
        told: list[State] = []
        assert 0 == len(outbox_of(store))
        outbox_of(store).on_changed = lambda entry: told.append(entry.state)
        await asyncio.sleep(MINUTE)

        assert State.QUEUED == told[0]
        assert {"pendingDelta": -1, "expectedAvailable": 9}.items() <= read(store).items()
        await back(store)
        assert 9 == central.stock("P-1")[0]


async def test_damage_of_files_that_hold_entries_is_told() -> None:
    """[O9] What is certain is used; the health says that entries may be missing."""
    central, directory = Central(), FaultyDirectory()
    async with a_shop(central, directory) as store:
        await cut(store)
        for number in range(3):
            await queued(store, f"sale-{number}")
        files = directory.contents()
    journal = max(name for name in files if name.startswith("journal"))
    damaged = files[journal].replace(b'"key":"sale-1"', b'"key":"sale-X"', 1)
    assert damaged != files[journal]
    async with a_shop(central, FaultyDirectory(files | {journal: damaged})) as store:
        check = store.parts.status.health()["checks"]["outbox"]

        assert "may be missing" in check["problem"]
        assert {"sale-0", "sale-2"} == {
            entry.key for entry in outbox_of(store).listed(None, limit=9, after="")
        }


async def test_an_entry_that_cannot_be_read_prevents_no_start_and_is_told() -> None:
    """[O9] A newer version may have written it: it stays on disk, and is not sold anew."""
    central, directory = Central(), FaultyDirectory()
    async with a_shop(central, directory) as store:
        await store.parts.writer.record_write(b'{"key":"odd","outbox":{"id":"01","state":"sold"}}')
        await cut(store)
        await queued(store, "sale")
    for _ in range(2):
        async with a_shop(central, directory) as store:
            problem = store.parts.status.health()["checks"]["outbox"]["problem"]
            assert "under the key odd" in problem
            assert 1 == len(outbox_of(store))
            with pytest.raises(WriteError) as caught:
                await adjust(store, "odd")
            assert "storage_unavailable" == caught.value.code


async def test_a_store_that_queues_no_more_sends_what_is_left() -> None:
    """[O9] None is taken; once it is empty, the next start has no outbox."""
    central, directory = Central(), FaultyDirectory()
    async with a_shop(central, directory) as store:
        await cut(store)
        await queued(store, "sale")
    settings: dict[str, Any] = {"offline_writes": "refuse", "key_retention_hours": 1}
    async with a_shop(central, directory, **settings) as store:
        with pytest.raises(WriteError) as caught:
            await adjust(store, "other", product="P-2")
        assert "central_unavailable" == caught.value.code
        await back(store, seconds=5.0)
        assert 9 == central.stock("P-1")[0]
        await asyncio.sleep(HOUR + MINUTE)
        assert 0 == len(outbox_of(store))
    for _ in range(2):
        async with a_shop(central, directory, **settings) as store:
            assert store.parts.outbox is None
    assert b"outbox" not in b"".join(directory.contents().values())


async def test_a_store_without_an_outbox_has_nothing_of_it() -> None:
    """[O9] By default: no route, no field, no record."""
    async with a_shop(offline_writes="refuse") as store:
        await cut(store)
        with pytest.raises(WriteError) as caught:
            await adjust(store, "sale")

        assert "central_unavailable" == caught.value.code
        assert store.parts.outbox is None
        assert "outbox" not in store.status
        assert {} == store.parts.writer._keys.outbox
        assert not [path for path in paths_of(store, offline_writes="refuse") if "outbox" in path]
    async with a_shop() as store:
        assert [path for path in paths_of(store) if "outbox" in path]


def paths_of(store: RunningStore, **settings: Any) -> list[str]:
    """Return the paths of the API."""
    api = api_of(store.parts, settings_of(**settings))
    return [resource.canonical for resource in api.router.resources()]


async def test_settled_entries_can_be_asked_for_as_long_as_answers_are_kept() -> None:
    """[O10] By their id and key, for KEY_RETENTION_HOURS; then nothing of them is left."""
    async with a_shop(key_retention_hours=1) as store:
        await cut(store)
        entry = await queued(store, "sale")
        await back(store)
        outbox = outbox_of(store)
        await asyncio.sleep(HOUR - MINUTE)
        assert State.APPLIED == outbox.existing(entry.id).state == entry_of(store, "sale").state
        await asyncio.sleep(2 * MINUTE)

        assert outbox.get("sale") is None
        with pytest.raises(WriteError) as caught:
            outbox.existing(entry.id)
        assert "outbox_entry_not_found" == caught.value.code
        assert {} == store.parts.writer._keys.outbox


async def test_metrics_count_what_waits() -> None:
    """[O10] By state, with the age of the oldest; without an outbox there is no such metric."""
    async with a_shop() as store:
        await cut(store)
        await queued(store, "sale")
        await queued(store, "other")
        await asyncio.sleep(MINUTE)
        told = metrics_of(store)
        entries = "store_cache_outbox_entries"
        states = {state: told[f'{entries}{{state="{state}"}}'] for state in UNSETTLED}
        assert 2.0 == states[State.QUEUED] + states[State.SENDING]  # one may be the probe
        assert 0.0 == states[State.IN_DOUBT] == states[State.PARKED]
        assert MINUTE <= told["store_cache_outbox_oldest_seconds"] < MINUTE + 5.0
        assert 2.0 == told['store_cache_writes_total{outcome="queued"}']
    async with a_shop(offline_writes="refuse") as store:
        assert not [name for name in metrics_of(store) if name.startswith("store_cache_outbox")]


def metrics_of(store: RunningStore) -> dict[str, float]:
    """Return each sample, by its name with labels."""
    assert store.parts.metrics is not None
    lines = store.parts.metrics.exposition().decode().splitlines()
    samples = [line.rsplit(" ", 1) for line in lines if not line.startswith("#")]
    return {name: float(value) for name, value in samples}


# -- a day -------------------------------------------------------------------------------------

PRODUCTS = [f"P-{number}" for number in range(1, 9)]


class Day:
    """A shop that sells through its store while another shop sells the same products straight at
    Central, Central is away for a third of the time, in pieces, and answers get lost. The store is
    killed now and then."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.central = Central(*PRODUCTS)
        self.directory = FaultyDirectory()
        self.sold: dict[str, tuple[str, int]] = {}
        self.promised: set[str] = set()  # keys that got 202
        self.elsewhere: Counter[str] = Counter()
        for product in PRODUCTS:
            self.central.sell(product, delta=200)

    async def sell_here(self, store: RunningStore) -> None:
        """Sell as a till does that repeats what gets no answer."""
        product, delta = self.chance.choice(PRODUCTS), -self.chance.randint(1, 3)
        key = f"sale-{len(self.sold)}"
        self.sold[key] = product, delta
        await self.repeat(store, key)

    async def repeat(self, store: RunningStore, key: str) -> int:
        product, delta = self.sold[key]
        try:
            status = (await adjust(store, key, product=product, delta=delta)).status
        except WriteError as problem:
            return problem.status
        if status == 202:
            self.promised.add(key)
        return status

    async def hour(self, *, steps: int) -> None:
        """Run the store for some minutes; it is killed at the end."""
        async with a_shop(self.central, self.directory, write_timeout_seconds=1) as store:
            for _ in range(steps):
                self.central.is_cut = self.chance.random() < 1 / 3
                self.central.lost = self.chance.choice([0, 0, 0, 1])
                self.central.wake()
                await self.sell_here(store)
                if self.chance.random() < 1 / 2:
                    product = self.chance.choice(PRODUCTS)
                    self.central.sell(product)
                    self.elsewhere[product] += 1
                await asyncio.sleep(self.chance.random() * 3)
            self.directory = FaultyDirectory(self.directory.contents())

    async def evening(self) -> dict[str, int]:
        """Bring Central back for good; the tills repeat everything. Return the status that each
        sale gets at last, by key."""
        self.central.is_cut, self.central.lost = False, 0
        async with a_shop(self.central, self.directory, write_timeout_seconds=1) as store:
            for key in self.sold:
                await self.repeat(store, key)
            await asyncio.sleep(2 * MINUTE)
            assert 0 == len(outbox_of(store))
            assert not store.parts.pending
            return {key: await self.repeat(store, key) for key in self.sold}

    def expected(self, applied: set[str]) -> dict[str, int]:
        """Return the stock after these sales and those of the other shop."""
        stock = {product: 210 - self.elsewhere[product] for product in PRODUCTS}
        for key in applied:
            product, delta = self.sold[key]
            stock[product] += delta
        return stock


@pytest.mark.parametrize("seed", range(2))
async def test_a_day_of_outages_sells_every_line_once(seed: int) -> None:
    """[O1, O2, O4, O6] The final stock is exact: every sale that got 202 was applied, none twice.
    Of the others, a till may be told that Central refused one for its version: one that was on its
    way when the store was killed, before it got any answer."""
    day = Day(seed)
    for _ in range(4):
        await day.hour(steps=25)
    statuses = await day.evening()
    applied = {key for key, status in statuses.items() if status == 200}

    assert {200, 409} >= set(statuses.values())
    assert len(statuses) - len(applied) <= 4
    assert day.promised <= applied
    assert day.expected(applied) == {one: day.central.stock(one)[0] for one in PRODUCTS}


async def test_a_sale_that_a_till_repeats_at_another_node_is_applied_once() -> None:
    """[O4, O5] Two stores on one STORE_ID: the first one was cut off with the sale queued, and the
    till repeated it at the second one."""
    central, first, second = Central(), FaultyDirectory(), FaultyDirectory()
    async with a_shop(central, first) as store:
        await cut(store)
        await queued(store, "sale", delta=-3)
    central.is_cut = False
    async with a_shop(central, second) as other:
        assert 200 == (await adjust(other, "sale", delta=-3)).status
        central.sell("P-1")
        await asyncio.sleep(1.0)
    async with a_shop(central, first) as store:
        await asyncio.sleep(5.0)

        assert State.APPLIED == entry_of(store, "sale").state
        assert 6 == central.stock("P-1")[0] == read(store)["available"]
        assert "pendingDelta" not in read(store)


async def test_a_restored_backup_of_the_folder_sells_nothing_twice() -> None:
    """[O4, O6] The backup has a sale queued that was applied after it was made."""
    central, directory = Central(), FaultyDirectory()
    async with a_shop(central, directory) as store:
        await cut(store)
        await queued(store, "sale", delta=-3)
        backup = FaultyDirectory(directory.contents())
        await back(store, seconds=5.0)
        assert 7 == central.stock("P-1")[0]
        central.sell("P-1")
        await asyncio.sleep(1.0)
    async with a_shop(central, backup) as store:
        await asyncio.sleep(MINUTE)

        assert State.APPLIED == entry_of(store, "sale").state
        assert 6 == central.stock("P-1")[0]
