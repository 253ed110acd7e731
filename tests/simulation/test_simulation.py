"""A slice of the simulation's campaigns: `python -m tests.simulation --schedules 10000` is one."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest

from central_stub.switches import Feature, Switches
from central_stub.wire import Request
from store_cache.catalogue.catalogue import Catalogue
from store_cache.catalogue.replica import Replica
from store_cache.model.change import PendingRefetch, RefetchReason
from store_cache.model.position import Position
from store_cache.writes.outbox.pending import PendingStock
from tests.simulation.campaign import (
    ENOUGH_SCHEDULES,
    SOMETIMES,
    Summary,
    seeds_named,
)
from tests.simulation.central import KEY, SimulatedCentral
from tests.simulation.checks import Checks, LastShown, has_stale_files
from tests.simulation.connection import TillConnection
from tests.simulation.history import History, look_of
from tests.simulation.loop import Listener, SimulatedLoop
from tests.simulation.marks import Marks
from tests.simulation.nodes import problems
from tests.simulation.outbox import Entry, SalesBook, SimulatedManager
from tests.simulation.plan import CLASSES, NODES, Plan
from tests.simulation.replays import differing
from tests.simulation.sales import Sale
from tests.simulation.simulation import simulate
from tests.simulation.store import SimulatedStore
from tests.simulation.stream import StreamWatch

SEEDS = range(1_000_000, 1_000_024)
REPLAYED = 2


@pytest.mark.parametrize("seeds", [SEEDS[n : n + 4] for n in range(0, len(SEEDS), 4)], ids=str)
def test_nothing_is_lost_shown_wrong_or_left_behind(seeds: range) -> None:
    """All promises, under chance's choice of faults."""
    findings = {seed: report.findings for seed in seeds if (report := simulate(seed)).findings}

    assert {} == findings, "python -m tests.simulation --seeds N replays one"


def a_central(*, verify_seconds: float = 0.0) -> SimulatedCentral:
    plan = Plan(0)
    plan.verify_seconds = verify_seconds
    return SimulatedCentral(plan, lambda: 0.0, lambda _: None)


def restore_often(central: SimulatedCentral) -> int:
    """Return how many of twenty restores kept Central's name."""
    for _ in range(20):
        central.back_up_or_restore()
        central.back_up_or_restore()
    return len(central.history.unnamed_replacements)


async def ask(central: SimulatedCentral, target: str) -> None:
    await central.answer(Request(method="GET", target=f"/v1/inventory{target}", api_key=KEY))


async def test_a_restore_that_leaves_no_sign_takes_another_name() -> None:
    """The store has read pages and not yet asked for what follows them: what is known not to hold
    is not looked for. Central knows that from the requests that it has answered."""
    central = a_central()
    head = central.ledger.head
    await ask(central, "?limit=100")

    assert not central.leaves_a_sign

    await ask(central, f"/events?offset={head - 1}")

    assert not central.leaves_a_sign

    await ask(central, f"/events?offset={head}")

    assert central.leaves_a_sign


async def test_restores_under_the_same_name_are_noticed_or_verified() -> None:
    """Without verification they have Central be away until the store has noticed."""
    away: list[bool] = []
    followed, verified = a_central(), a_central(verify_seconds=5.0)
    followed.on_restore = verified.on_restore = lambda: away.append(True)
    await ask(verified, "?limit=100")

    assert restore_often(verified)
    assert not away
    assert restore_often(followed) == len(away) > 0


async def test_a_log_that_alone_tells_of_a_restore_is_kept() -> None:
    """Another thing that is known not to hold, and looked for only with verification."""
    central = a_central()
    while not central.history.unnamed_replacements:
        central.back_up_or_restore()

    assert "log kept" == central.forget_log()
    assert 1 == central.ledger.oldest

    central = a_central()

    assert "retention" == central.forget_log()
    assert not central.leaves_a_sign


async def test_what_an_age_counts_is_shown_but_for_products_in_doubt() -> None:
    """Pages that were installed without the feed show what came behind their position. A product
    that they would lower stays as it was until it was refetched, which nothing but the status
    says."""
    central, catalogue = a_central(), Catalogue()
    loop, store = cast("SimulatedLoop", None), cast("SimulatedStore", None)  # neither is asked
    checks = Checks(Plan(0), loop, central, store)
    last = central.ledger.head

    assert not checks._is_shown(catalogue, last, last)

    product_id = central.product_ids()[-1]
    catalogue.pending_refetches[product_id] = PendingRefetch(RefetchReason.UNREADABLE, 0.0, 0.0)

    assert checks._is_shown(catalogue, last, last)
    assert not checks._is_shown(catalogue, last - 1, last)


@pytest.mark.parametrize("holds", [True, False])
@pytest.mark.parametrize("was_told_early", [True, False])
def test_only_a_central_that_holds_no_polls_may_be_taken_for_one_that_does(
    holds: bool, was_told_early: bool
) -> None:
    """Until an empty answer came sooner than a held poll's, nothing tells the two apart."""
    central, plan = a_central(), Plan(0)
    central.ledger.switches = Switches(without=frozenset({Feature.HOLD} if not holds else ()))
    loop, store = cast("SimulatedLoop", None), cast("SimulatedStore", None)  # neither is asked
    seconds = Checks(plan, loop, central, store)._unnoticed_seconds(was_told_early=was_told_early)

    assert (0.0 if holds or was_told_early else plan.wait_seconds) == seconds


def test_a_row_may_be_of_each_incarnation_that_looks_so() -> None:
    """Rows do not name theirs. What a reader is shown is wrong only if it is wrong for each."""
    history = History(lambda: 0.0)
    row = {"productId": "P", "name": "N", "available": 5, "version": 1, "lastUpdated": "1"}
    later = row | {"version": 2}
    for offset, (kind, data) in enumerate(
        [
            ("product_created", row),
            ("product_modified", later),
            ("product_deleted", later),
            ("product_created", row),
        ]
    ):
        event = {"productId": "P", "eventType": kind, "data": data}
        history.record({"op": "write", "offset": offset, "sequence": offset, "event": event})
    first, second = history.explain("P", look_of(row)), history.explain("P", look_of(later))
    marks = Marks(history)
    marks.set("g-1", "P", second)

    assert (2, 1) == (len(first), len(second))
    assert "" == marks.step_back("g-1", "P", first)


def test_incarnations_between_two_that_look_alike_may_be_shown_once_more() -> None:
    """Seed 101005768: a store far behind the feed refetched the second incarnation, then the third.
    The first one's event at that version had the same content, and the feed led on from there
    (point 2 of the known limits)."""

    def behind(names: str) -> str:
        history = History(lambda: 0.0)
        for offset, name in enumerate(names):
            row = {"productId": "P", "name": name, "available": 5, "version": 1}
            for number, kind in enumerate(("product_created", "product_modified")):
                data = row | {"version": 1 + number, "lastUpdated": f"{offset}"}
                event = {"productId": "P", "eventType": kind, "data": data}
                change = {"op": "write", "offset": 2 * offset + number, "event": event}
                history.record(change | {"sequence": change["offset"]})
        states = sorted(history.states["P"])
        marks = Marks(history)
        marks.set("g-1", "P", {states[3]})
        return marks.step_back("g-1", "P", {states[2]})

    assert "" == behind("ABA")
    assert "behind [" in behind("ABC")


def test_a_row_that_was_answered_for_has_a_stock_that_central_had() -> None:
    """A write may have changed attributes of which its answer says nothing; its version, stock and
    time are Central's own."""
    history = History(lambda: 0.0)
    row = {"productId": "P", "name": "N", "available": 5, "version": 1, "lastUpdated": "1"}
    sold = row | {"version": 2, "available": 4, "lastUpdated": "2"}
    for offset, (kind, data) in enumerate(
        [("product_created", row), ("inventory_updated", sold | {"sales": 1})]
    ):
        event = {"productId": "P", "eventType": kind, "data": data}
        history.record({"op": "write", "offset": offset, "sequence": offset, "event": event})

    assert not history.explain("P", look_of(sold))
    assert history.explain_answer("P", look_of(sold))
    assert not history.explain_answer("P", look_of(sold | {"available": 3}))
    assert not history.explain_answer("P", look_of(sold | {"name": "never"}))


class ShownCatalogues:
    """Checks of a store that shows what a test gives it. `central` has a clock of its own."""

    def __init__(self) -> None:
        self.now = 0.0
        plan = Plan(0)
        plan.verify_seconds = 5.0
        self.central = SimulatedCentral(plan, lambda: self.now, lambda _: None)
        disk = SimpleNamespace(is_durable=True)
        self.writer = SimpleNamespace(replica=None, catalogue=None, disk=disk, findings=())
        runner = SimpleNamespace(state=SimpleNamespace(in_sync_at=None))
        parts = SimpleNamespace(writer=self.writer, runner=runner)
        store: Any = SimpleNamespace(parts=parts, starts=1, is_trusted=True)
        loop: Any = SimpleNamespace(time=lambda: self.now)
        self.store, self.checks = store, Checks(plan, loop, self.central, store)

    def step(self) -> None:
        self.now += 1.0
        self.checks.step()

    def begin_replica(self) -> None:
        self.writer.replica = Replica(held=None, same_generation=True, now=0.0, grace_seconds=2.0)
        self.step()

    async def ask_for_the_first_page(self) -> None:
        await ask(self.central, "?limit=100")
        self.step()

    def install(self) -> None:
        self.writer.catalogue, self.writer.replica = self._filled(self.writer.replica), None
        self.step()

    def _filled(self, replica: Replica) -> Catalogue:
        """Return the replica's catalogue with what Central has."""
        rows = [(row["productId"], orjson.dumps(row)) for row in self.central.ledger.everything()]
        replica.catalogue.fill(rows)
        head = self.central.ledger.head
        replica.catalogue.position = Position(self.central.ledger.generation, head + 1)
        return replica.catalogue

    def restart(self, on_disk: Catalogue) -> None:
        """Have the next process show what is on disk."""
        self.checks.died()
        self.writer.catalogue = Catalogue()
        self.writer.catalogue.fill(on_disk.rows.items())
        self.writer.catalogue.position = on_disk.position
        self.step()

    def restore_under_the_same_name(self) -> None:
        self.central.ledger.restore(*self._backup)
        self.central.history.restored(self._memory, keeps_name=True)
        self.step()

    def back_up(self) -> None:
        backup = self.central.ledger.backup()
        self._backup, self._memory = (backup, backup["generation"]), self.central.history.memory()


async def test_a_catalogue_from_disk_has_not_seen_a_restore_since() -> None:
    """Seed 99000260: after a restore under Central's own name the store asked for the first page,
    the answer was lost, and the next process showed what was on disk. A catalogue that was read
    after the restore has to be right."""
    shop = ShownCatalogues()
    shop.back_up()
    shop.central.ledger.set({"productId": shop.central.product_ids()[0], "available": 7}, 0.0)
    shop.begin_replica()
    await shop.ask_for_the_first_page()
    shop.install()
    shop.restore_under_the_same_name()
    shop.begin_replica()
    await shop.ask_for_the_first_page()
    shop.restart(on_disk=shop.writer.catalogue)
    from_disk = shop.checks.has_seen_restores
    shop.begin_replica()
    await shop.ask_for_the_first_page()
    shop.install()

    assert (False, True) == (from_disk, shop.checks.has_seen_restores)
    assert [] == shop.checks.findings


async def test_a_catalogue_of_before_a_restore_may_come_back_from_a_failing_disk() -> None:
    """What was read after the restore was in memory only, and the next process shows what was on
    disk before: nothing tells its rows apart, until the catalogue is read again."""
    shop = ShownCatalogues()
    shop.back_up()
    shop.begin_replica()
    await shop.ask_for_the_first_page()
    shop.install()
    before = shop.writer.catalogue
    shop.restore_under_the_same_name()
    shop.store.is_trusted = False
    shop.begin_replica()
    await shop.ask_for_the_first_page()
    shop.install()
    in_memory = shop.checks.has_seen_restores
    shop.restart(on_disk=before)

    assert (True, False) == (in_memory, shop.checks.has_seen_restores)


async def test_only_the_pages_of_a_replica_say_what_it_has_seen() -> None:
    """Central is restored after it sent the first page of the replica. What asks for the first page
    after that, a late copy of the request or a comparison, puts nothing into the replica."""
    shop = ShownCatalogues()
    shop.back_up()
    shop.begin_replica()
    await shop.ask_for_the_first_page()
    shop.restore_under_the_same_name()
    await shop.ask_for_the_first_page()
    shop.install()

    assert not shop.checks.has_seen_restores


async def a_start_after(shown: int, *, on_disk: int, change: int, without: int = 0) -> list[str]:
    """Return what is found wrong at a start. `shown`: how many sales of a product the process
    before showed last, with change 7. The start shows `on_disk` sales with `change`, and leaves out
    `without` products."""
    shop = ShownCatalogues()
    product_id = shop.central.product_ids()[0]
    catalogues = []
    for sold in range(max(shown, on_disk) + 1):
        if sold:
            shop.central.ledger.set({"productId": product_id, "available": 90 + sold}, shop.now)
        shop.begin_replica()
        await shop.ask_for_the_first_page()
        catalogues.append(shop._filled(shop.writer.replica))
        if sold <= shown:
            shop.install()
    last = LastShown(dict(catalogues[shown].rows), 7)
    rows = list(catalogues[on_disk].rows.items())
    found = Catalogue()
    found.fill(rows[: len(rows) - without])
    found.position, found.sequence = catalogues[on_disk].position, change
    shop.checks.started_from_disk(found, last)
    return [each.split(": ")[1][:25] for each in shop.checks.findings]


async def test_a_start_may_show_what_was_recorded_and_not_yet_shown() -> None:
    """A stop came between disk and view. Anything older, or another state at the last change that
    was shown, was lost; and a stop takes no product away."""
    assert [] == await a_start_after(1, on_disk=1, change=7)
    assert [] == await a_start_after(1, on_disk=2, change=8)
    assert ["a start from disk shows {"] == await a_start_after(1, on_disk=0, change=6)
    assert ["a start from disk shows {"] == await a_start_after(1, on_disk=2, change=7)
    assert ["a start from disk shows {"] == await a_start_after(1, on_disk=2, change=8, without=1)
    assert any("went back" in each for each in await a_start_after(1, on_disk=0, change=8))


async def test_what_a_crash_of_central_loses_may_differ() -> None:
    """Nothing on the feed tells of it: only verification finds it, and nothing else explains it."""
    for kind in ("events", "stock"):
        central = a_central(verify_seconds=5.0)
        product_id = central.product_ids()[0]
        central.ledger.set({"productId": product_id, "available": 7}, central.now())
        history = central.history
        before = history.may_differ(product_id)
        central.crash("events" if kind == "events" else "stock")
        held = history.explain(product_id, look_of(central.ledger.read(product_id) or {}))

        assert (False, True) == (before, history.may_differ(product_id)), kind
        assert held, kind


def test_a_key_that_central_forgot_may_be_applied_to_another_incarnation() -> None:
    """Then only the version keeps a repeat from being applied, and that incarnation came to the
    same one; within Central's memory, or the same incarnation, it is one too many."""
    history = History(lambda: 0.0)
    row = {"productId": "P", "version": 1, "available": 5, "lastUpdated": "1"}

    def record(kind: str, **key: str) -> None:
        event = {"productId": "P", "eventType": kind, "data": row, **key}
        history.record({"op": "write", "offset": 1, "sequence": 1, "event": event})

    def applied() -> int:
        record("inventory_updated", idempotencyKey="k")
        return history.ever_applied["k"]

    record("product_created")

    assert 1 == applied()

    history.forgotten()
    record("product_created")

    assert 1 == applied()
    assert 2 == applied()

    history.forgotten()

    assert 3 == applied()


REFUSED: dict[str, Any] = {"final": "refused version_conflict"}


def a_sale(key: str = "t0-1", delta: int = -1) -> Sale:
    return Sale(key, "P", delta, version=None, replacements=0)


def test_a_queued_sale_is_applied_or_given_up_by_a_person() -> None:
    """It stays one entry, is never refused, and is counted under all derived keys."""
    waiting = {"applied": False, "queued": True, "outboxId": "01"}
    history = History(lambda: 0.0)
    history.ever_applied.update(["store-s1-t0-1~2", "store-s1-t0-10"])
    sale, moved, refused = a_sale(), a_sale(), a_sale()
    for each in (sale, moved, refused):
        assert "" == each.note_answer(202, waiting, 0.0)

    assert "" == sale.note_answer(200, {"applied": True}, 1.0) == sale.problem(history)
    assert "is entry 02, and was 01" in moved.note_answer(202, waiting | {"outboxId": "02"}, 1.0)
    conflict = {"applied": False, "errorType": "version_conflict"}
    assert "was queued, and then" in refused.note_answer(409, conflict, 1.0)
    assert "" == a_sale().note_answer(409, conflict | {"errorType": "discarded"}, 1.0)
    history.ever_applied["store-s1-t0-1"] += 1
    assert "was applied 2 times" in sale.problem(history)


@pytest.mark.parametrize(
    ("one", "other", "times", "problem"),
    [
        ({"final": "applied"}, {"final": "applied"}, 1, ""),
        (
            {"final": "applied", "result": {"newVersion": 8}},
            {"final": "applied", "result": {"newVersion": 9}},
            1,
            "was answered",
        ),
        ({"final": "applied"}, {"end": "applied"}, 2, "was applied 2 times"),
        ({"final": "applied"}, {"words": ["central_timeout"]}, 0, "was never applied"),
        ({"end": "discarded"}, {"words": ["central_unavailable"]}, 1, "no node knows of it"),
        ({"end": "discarded"}, {"end": "applied"}, 1, ""),
        ({"end": "discarded"}, {"words": ["central_timeout"], "final": ""}, 1, ""),
        ({"end": "discarded", "knows_other_node": True}, {"end": "discarded"}, 1, ""),
        (REFUSED, {"is_open": True}, 0, ""),
        (REFUSED, {"is_open": True}, 1, "after Central had refused"),
        (REFUSED, {"entry_id": "01", "end": "applied"}, 1, "after Central had refused"),
        (REFUSED, {"entry_id": "01", "end": "applied", "decided": {"retries"}}, 1, ""),
        (REFUSED, {"words": ["storage_unavailable"], "decided": {"retries"}}, 1, ""),
        (REFUSED | {"is_forgotten": True, "entry_id": "01"}, REFUSED, 1, "after Central had"),
        (REFUSED | {"is_forgotten": True, "decided": {"retries"}}, REFUSED, 1, ""),
        (REFUSED | {"entry_id": "01"}, REFUSED, 1, "no node knows of it"),
        (
            {"final": "applied", "result": {"newVersion": 8}},
            {"final": "applied", "result": {"newVersion": 9}, "decided": {"settles"}},
            1,
            "",
        ),
    ],
)
def test_two_nodes_sell_once_and_say_so(
    one: dict[str, Any], other: dict[str, Any], times: int, problem: str
) -> None:
    """Each derived key counts; what a node takes for not applied may have been applied by the
    other one, if that says so or does not know."""
    history, books = History(lambda: 0.0), []
    for told in (one, other):
        sale = Sale("t0-1", "P", -1, version=7, replacements=0)
        vars(sale).update(told)
        books.append(SalesBook(lambda _: None, lambda: 0.0, [sale]))
    history.ever_applied.update([f"store-s1-t0-1~{number}" for number in range(2, 2 + times)])

    found = [*problems(books, history)]
    assert len(found) == bool(problem)
    assert problem in "".join(found)


async def check_end(sale: Sale, state: str, central: SimulatedCentral) -> list[str]:
    """Return what a person finds wrong whose outbox has the sale as settled in `state`."""
    found: list[str] = []

    class Person(SimulatedManager):
        async def _listed(self, state_asked_for: str = "") -> list[Entry]:
            entry = {"outboxId": "01", "idempotencyKey": "t0-1", "state": state}
            return [entry] if state_asked_for == state else []

    book = SalesBook(lambda _: None, lambda: 0.0, [sale])
    store, checks = SimpleNamespace(parts=None), SimpleNamespace(find=found.append)
    parts = (cast("Any", None), cast("Any", store), central, cast("Any", checks), book)
    await Person(Plan(0, {NODES}), *parts, lambda _: None, cast("Any", None))._check_ends()
    return found


async def test_the_end_of_an_entry_counts_also_if_the_store_may_have_lost_it() -> None:
    """Seeds 99002195 and 99002280: a node lost a refusal with its disk, and queued the repeat. A
    person had that sent again, and it was applied: the node knows of it."""
    sale = a_sale()
    vars(sale).update(REFUSED, entry_id="01", is_forgotten=True)
    central = a_central()
    central.history.ever_applied["store-s1-t0-1~2"] = 1

    assert [] == await check_end(sale, "applied", central)
    assert "applied" == sale.end
    assert [] == [*problems([SalesBook(pytest.fail, lambda: 0.0, [sale])], central.history)]


@pytest.mark.parametrize(
    ("final", "end", "decided"),
    [("applied", "discarded", {"discards"}), ("refused version_conflict", "applied", {"retries"})],
)
async def test_an_entry_may_end_otherwise_than_the_answer_that_the_store_has_lost(
    final: str, end: str, decided: set[str]
) -> None:
    """Central knows what it has applied, and a person whether a till was told so. Nothing is
    applied twice."""
    sale, central = Sale("t0-1", "P", -1, version=7, replacements=0), a_central()
    vars(sale).update(final=final, entry_id="01", may_count_anew=True, decided=decided)

    async def found(times: int, **changed: Any) -> list[str]:
        one = replace(sale, **changed)
        central.history.ever_applied["store-s1-t0-1~2"] = times
        return [*await check_end(one, end, central), *filter(None, [one.problem(central.history)])]

    assert [] == await found(1)
    assert await found(2)
    assert await found(1, decided=set())
    assert await found(1, may_count_anew=False)


def test_a_refusal_may_be_forgotten_once_the_shop_s_clock_has_passed_ten_minutes() -> None:
    """Seed 88000848: the clock jumped ahead twice. The repeat was queued, as a new sale, and shown
    as pending before its till had that answer."""
    found: list[str] = []
    waiting = {"applied": False, "queued": True, "outboxId": "01"}
    conflict = {"applied": False, "errorType": "version_conflict"}
    row = {"productId": "P", "available": 4, "pendingDelta": -1, "expectedAvailable": 3}

    def repeated(now: float) -> str:
        sale = a_sale()
        book = SalesBook(found.append, lambda: now, [sale])
        sale.sent(0.0)
        sale.note_answer(409, conflict, 1.0)
        told = book.told()
        sale.sent(now)
        book.was_shown([row], told)
        return sale.note_answer(202, waiting, now)

    assert "" == repeated(600.0)
    assert [] == found
    assert "and then queued" in repeated(599.0)
    assert "shows what is settled" in found[0]


def test_a_forgotten_refusal_may_be_applied_after_all() -> None:
    """Seed 101005296: a repeat after ten minutes was judged anew and came into doubt, and a person
    had it sent again. The answer to such a repeat may also be lost."""
    history = History(lambda: 0.0)
    history.ever_applied["store-s1-t0-1~2"] = 1

    def problem(now: float, *in_doubt: str) -> str:
        """What is wrong in the end. `in_doubt`: what a batch was answered; none: it was lost."""
        sale = a_sale()
        sale.sent(0.0)
        refused = {"applied": False, "errorType": "version_conflict"}
        assert "" == sale.note_answer(409, refused, 0.0)
        sale.sent(now)
        if in_doubt:
            error = {"code": "central_timeout", "details": {"idempotencyKeys": [*in_doubt]}}
            assert "" == sale.note_answer(504, {"error": error}, now)
        return sale.problem(history)

    assert "" == problem(600.0, "t0-1", "t0-2")
    assert "" == problem(600.0)
    for found in (problem(599.0, "t0-1"), problem(600.0, "t0-2"), problem(599.0)):
        assert "was applied 1 times" in found


def test_a_call_that_is_given_up_leaves_no_answer_to_the_next_one() -> None:
    """A person was called away from a decision, and took its answer for the list of the outbox."""
    loop = SimulatedLoop(None)
    connection = TillConnection(loop, Listener(asyncio.Protocol, 0))

    async def give_up() -> None:
        call = asyncio.ensure_future(connection.call(b""))
        await asyncio.sleep(0.1)
        call.cancel()
        await asyncio.wait([call])

    loop.run_until_complete(give_up())
    loop.close()

    assert not connection.is_open


def test_an_old_refusal_that_is_given_once_more_may_be_forgotten_next() -> None:
    """Seed 93000244: the repeat came after ten minutes, got the same answer, and was then queued.
    That answer may be the old one still, or the same words once more; other words are new."""
    refused = {"applied": False, "errorType": "version_conflict", "newVersion": 7}
    waiting = {"applied": False, "queued": True, "outboxId": "01"}

    def queued_after(second: dict[str, Any]) -> str:
        sale = a_sale()
        for answer, now in ((refused, 0.0), (second, 605.0)):
            sale.sent(now)
            assert "" == sale.note_answer(409, answer, now)
        return sale.note_answer(202, waiting, 606.0)

    assert "" == queued_after(refused)
    assert "and then queued" in queued_after(refused | {"newVersion": 8})


@pytest.mark.parametrize("and_central", [True, False])
def test_a_store_that_began_without_its_keys_has_central_remember_them(and_central: bool) -> None:
    """Seeds 97000615 and 97000646: the disk hung while the store started, and Central had forgotten
    the key, too (the third point of the known limits). If Central knows it, nothing changes."""
    sale = a_sale()
    sale.note_answer(200, {"applied": True, "newVersion": 2}, 0.0)
    SalesBook(lambda _: None, lambda: 0.0, [sale]).store_may_lack(and_central=and_central)

    found = sale.note_answer(409, {"applied": False, "errorType": "version_conflict"}, 1.0)
    assert ("and then refused" in found) is not and_central


APPLIED = {"applied": True, "newVersion": 2}
WAITS = {"queued": True, "outboxId": "01"}
SHORT = {"applied": False, "errorType": "insufficient_inventory"}
CONFLICT = {"applied": False, "errorType": "version_conflict"}
DISCARDED = {"applied": False, "errorType": "discarded"}


@pytest.mark.parametrize(
    ("version", "decided", "answers", "problem"),
    [
        (7, "", [SHORT, WAITS, WAITS], ""),
        (7, "", [APPLIED, WAITS, WAITS, APPLIED], ""),
        (7, "", [APPLIED, WAITS, APPLIED | {"newVersion": 3}], "after {"),
        (7, "", [APPLIED, WAITS, APPLIED, WAITS], "and then queued"),
        (7, "", [APPLIED, APPLIED, WAITS], "and then queued"),
        (7, "", [SHORT, SHORT, WAITS], "and then queued"),
        (7, "settles", [APPLIED, WAITS, APPLIED | {"newVersion": 3}], ""),
        (7, "discards", [APPLIED, WAITS, DISCARDED, DISCARDED], ""),
        (7, "", [APPLIED, WAITS, DISCARDED], "and then refused discarded"),
        (7, "discards", [APPLIED, WAITS, SHORT], "and then refused insufficient"),
        (7, "", [SHORT, WAITS, APPLIED], "and then applied"),
        (7, "retries", [SHORT, WAITS, APPLIED, APPLIED], ""),
        (7, "retries", [SHORT, WAITS, APPLIED, WAITS], "and then queued"),
        (7, "discards", [SHORT, WAITS, DISCARDED], ""),
        (None, "", [CONFLICT, WAITS, APPLIED], ""),
    ],
)
def test_a_store_that_has_lost_its_answer_may_queue_a_repeat(
    version: int | None, decided: str, answers: list[dict[str, Any]], problem: str
) -> None:
    """Seed 101003088: its files were damaged, and Central, which knows the answer, was away (the
    third point of the known limits). The first answer is from before that."""
    sale = Sale("t0-1", "P", -1, version, replacements=0)
    first, *later = answers
    assert "" == sale.note_answer(200, first, 0.0)
    SalesBook(lambda _: None, lambda: 0.0, [sale]).store_may_lack(and_central=False)
    sale.decided |= {decided} - {""}

    found = [sale.note_answer(200, answer, 1.0) for answer in later]

    assert not any(found[:-1])
    assert problem in found[-1]
    assert bool(problem) == bool(found[-1])


def test_what_reads_show_as_pending_may_be_what_no_till_knows_the_end_of() -> None:
    """Neither a wrong sum, nor the delta of a sale whose final answer a till has."""
    found: list[str] = []
    settled, waiting = a_sale("settled", -3), a_sale("waiting", -1)
    book = SalesBook(found.append, lambda: 0.0, [settled, waiting])
    settled.note_answer(200, {"applied": True}, 0.0)
    row = {"productId": "P", "available": 0, "oversold": True}
    book.was_shown([row | {"pendingDelta": -1, "expectedAvailable": -1}], book.told())
    assert [] == found

    book.was_shown([row | {"pendingDelta": -4, "expectedAvailable": -4}], book.told())
    book.was_shown([row | {"pendingDelta": -1, "expectedAvailable": -2}], book.told())
    assert ["shows what is settled", "the sum is wrong"] == [
        next(words for words in ("shows what is settled", "the sum is wrong") if words in each)
        for each in found
    ]


def test_what_comes_and_goes_between_two_looks_is_a_change() -> None:
    """Seed 101002571: a write was queued and settled just before a look. Reads showed what they did
    at the look before, and the readers of the stream were still to be told."""
    now, pending, quiet_at = 0.0, PendingStock(), list[float]()
    catalogue = SimpleNamespace(sequence=1, rows={})
    writer = SimpleNamespace(catalogue=catalogue, announcer=SimpleNamespace(is_telling=False))
    parts = SimpleNamespace(writer=writer, pending=pending, streams=(), history=())
    loop, store = SimpleNamespace(time=lambda: now), SimpleNamespace(parts=parts)
    reader = SimpleNamespace(vanished_at=[], check_quiet=lambda _: quiet_at.append(now))
    watch = StreamWatch(cast("Any", loop), cast("Any", store), [cast("Any", reader)], pytest.fail)

    watch.look()
    now = 0.24
    pending.add("P", 2)
    watch.step()
    pending.remove("P", 2)
    watch.step()
    now = 0.25
    watch.look()
    now = 0.5
    watch.look()

    assert [0.5] == quiet_at


def test_files_stay_only_where_the_status_says_why() -> None:
    """The last sweep met a disk that failed: what it left goes with the next one."""
    pairs = [f"{kind}-{number}.jsonl" for kind in ("journal", "snapshot") for number in (7, 8, 9)]

    assert not has_stale_files([*pairs[1:3], *pairs[4:], "journal-2.jsonl.damaged-1"], "", 0)
    assert has_stale_files(pairs, "", 0)
    assert not has_stale_files(pairs, "", 1)
    assert has_stale_files(["snapshot-9.jsonl.new"], "", 1)
    assert not has_stale_files(pairs, "old files could not be removed from DATA_DIR", 0)


def test_a_seed_is_the_same_run_whatever_the_hash_seed() -> None:
    """A failure can be replayed: the trace does not depend on the process that made it."""
    assert [] == differing(range(REPLAYED))


def test_a_campaign_names_what_it_never_reached() -> None:
    """Ten thousand schedules in which no breaker ever opened would prove nothing about breakers."""
    total = Summary(schedules=ENOUGH_SCHEDULES, counters=Counter(SOMETIMES))
    del total.counters["410"]

    assert ["410"] == total.missing


def test_seeds_are_named_one_by_one_or_from_to() -> None:
    """One command replays what a campaign printed."""
    assert [17, 20, 21, 22] == seeds_named("17,20-22")


def test_a_class_that_is_switched_off_changes_no_other() -> None:
    """Shrinking compares like with like."""
    whole = Plan(7)
    name = next(iter(whole.rates))
    less = Plan(7, off=[name])

    assert whole.rates == less.rates | {name: whole.rates[name]}
    assert whole.verify_seconds == less.verify_seconds
    assert whole.chaos_seconds == less.chaos_seconds
    assert set(whole.rates) <= CLASSES.keys()
