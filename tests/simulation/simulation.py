"""One seed: chaos, recovery, and what is then wrong."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from itertools import count
from typing import Any

import orjson

from central_stub.tenants import UNNAMED
from central_stub.wire import Reply, Request
from store_cache.api.parts import StoreParts
from store_cache.app import build
from store_cache.storage import files as archive
from store_cache.sync.reading import Following
from store_cache.sync.states import FullSyncing
from tests.harness.virtual_time import Stuck
from tests.simulation.bound import LOOK_SECONDS, bound_seconds
from tests.simulation.central import SimulatedCentral
from tests.simulation.checks import Checks, LastShown, has_stale_files
from tests.simulation.loop import SimulatedLoop, pause
from tests.simulation.network import SimulatedNetwork
from tests.simulation.nodes import problems, sales_of_nodes
from tests.simulation.outbox import OutboxWatch, SalesBook, SimulatedManager, may_lack
from tests.simulation.plan import LEAST, NODES, STRIKES, TENANTS, Plan
from tests.simulation.store import SimulatedStore, settings_of
from tests.simulation.stream import SimulatedReader, StreamWatch
from tests.simulation.tenants import CHAINS, Chain, SharedCentral, Stranger
from tests.simulation.tills import Node, SimulatedTill

START = 1_700_000_000.0
SMALL_COMPACTION_BYTES = 3_000
LONGEST_MORE_SECONDS = 300.0
LONGEST_LULL_SECONDS = 700.0
MOST_TASKS = 300
READERS = 2
"""Of live changes; the second one wants some products only."""
NEIGHBOUR = 1 << 40
"""The seed of the other chain on the same Central is so much higher."""

FIRST_OF_NEIGHBOUR = 100_000
"""The number of its store's first process."""

FIRST_OF_SECOND_NODE = 200_000
"""The number of the first process of a shop's second node."""

KEYS_LOST = ("forget_keys", "restore", "crash_log", "crash_stock")
"""Classes by which Central may lose the keys of writes."""

DISK_FAULTS = ("disk_error", "disk_full", "sync_fails", "disk_hangs", "disk_gone")
MOST_WANTED = 50
"""An address has room for so many ids, and more."""

MOST_CLEANUPS = 50


@dataclass
class Report:
    """The outcome of a seed. `trace` is the same for every run of it."""

    seed: int
    classes: tuple[str, ...] = ()
    findings: list[str] = field(default_factory=list)
    counters: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    healed_within: float = 0.0
    bound: float = 0.0
    """How long recovery may take at most, see `bound`."""
    trace: int = 0


class Simulation:
    """`beside`: the schedule of another chain, with the same loop and Central. `first_node`: that
    of the shop's first node, whose Central this second one shares."""

    plan: Plan
    central: SimulatedCentral
    store: SimulatedStore
    checks: Checks
    book: SalesBook
    node: Node
    tills: list[SimulatedTill]
    check_step: Callable[[], None]

    def __init__(
        self,
        seed: int,
        off: Collection[str] = (),
        beside: Simulation | None = None,
        first_node: Simulation | None = None,
    ) -> None:
        self.first_node = first_node
        self.plan = plan = first_node.plan.of_second_node() if first_node else Plan(seed, off)
        self.counters: Counter[str] = Counter()
        order = plan.chance("order") if plan.has("shuffle") else None
        before = beside or first_node
        loop: SimulatedLoop = before.loop if before else SimulatedLoop(order)
        self.loop: SimulatedLoop = loop
        is_shared = beside is not None or plan.has(TENANTS)
        self.tenant = CHAINS[1 if beside else 0] if is_shared else UNNAMED
        self.first_process = (
            FIRST_OF_NEIGHBOUR if beside else FIRST_OF_SECOND_NODE if first_node else 1
        )
        self.clock_ahead = 0.0
        self.clock_skipped = 0.0  # by jumps ahead
        self.has_queue = False
        self.central = first_node.central if first_node else self._new_central()
        self.shared: SharedCentral | None
        self.shared = beside.shared if beside else SharedCentral() if is_shared else None
        answering = self.shared.answer if self.shared else self._answer_alone
        self.network = SimulatedNetwork(plan, answering, copy_context(), self.note)
        if first_node is None:
            self.central.on_break = self.network.break_connections
            self.central.on_restore = self.network.go_away
        self.network.times_forgotten = lambda: self.central.history.times_forgotten
        self.report = Report(seed, tuple(plan.rates))
        self.neighbour: Simulation | None = None
        self.second_node: Simulation | None = None
        self.meeting: asyncio.Barrier | None = first_node.meeting if first_node else None
        if before is None:
            self._build_beside(seed, off)

    def _build_beside(self, seed: int, off: Collection[str]) -> None:
        """Build the other chain at Central, or the second node of the shop, if there is one."""
        if self.shared is not None:
            less = {*off, TENANTS, NODES}
            other = next(n for n in count(seed + NEIGHBOUR) if not Plan(n).is_large)
            self.neighbour = Simulation(other, less, beside=self)
        elif self.plan.has(NODES):
            self.meeting = asyncio.Barrier(2)
            self.second_node = Simulation(seed, off, first_node=self)

    def _new_central(self) -> SimulatedCentral:
        """Return a Central with its own time: the clock that jumps is the shop's."""
        loop = self.loop
        return SimulatedCentral(self.plan, lambda: START + loop.time(), self.note, self.tenant)

    async def _answer_alone(self, request: Request, _: str | None) -> Reply:
        return await self.central.answer(request)

    def now(self) -> float:
        return START + self.loop.time() + self.clock_ahead

    def note(self, what: str) -> None:
        self.counters[what] += 1

    # -- the run ---------------------------------------------------------------------------

    def run(self) -> Report:
        report = self.report
        with _watched(self) as errors, _hastened(self.plan):
            try:
                self.loop.run_until_complete(self._play_all())
            except Stuck as stuck:
                report.findings.append(f"stuck: {stuck}")
            finally:
                report.findings += errors + self.loop.problems
                _free(self.loop)
        report.counters = self.counters
        report.seconds = self.loop.time()
        report.trace = self.loop.trace ^ self.loop.steps
        return report

    async def _play_all(self) -> None:
        neighbour, shared = self.neighbour, self.shared
        chains = [each for each in (self, neighbour) if each is not None]
        for each in chains:
            each.set_up()
        if self.second_node is not None:
            await self._play_both_nodes(self.second_node)
            return
        if neighbour is None or shared is None:
            await self._play()
            self.report.findings += self.checks.findings
            return
        all_chains = {each.tenant: each.as_chain() for each in chains}
        for chain in all_chains.values():
            shared.add(chain)
        self.loop.on_step = _all_of([self.check_step, neighbour.check_step, shared.step])
        chance = self.plan.chance("stranger")
        stranger = asyncio.ensure_future(Stranger(shared, all_chains, self.note, chance).work())
        await asyncio.gather(*(each._play() for each in chains))
        stranger.cancel()
        self.report.findings += self.checks.findings
        self.report.findings += [f"the other chain: {each}" for each in neighbour.checks.findings]
        self.counters["checks of tenants"] += shared.checks

    async def _play_both_nodes(self, second: Simulation) -> None:
        second.set_up()
        self.tills = self._tills_at(self.node, second.node)
        second.tills = second._tills_at(second.node, self.node)
        self.store.other_network, second.store.other_network = second.network, self.network
        self.loop.on_step = _all_of([self.check_step, second.check_step])
        await asyncio.gather(self._play(), second._play())
        books, history = (self.book, second.book), self.central.history
        self.report.findings += self.checks.findings
        self.report.findings += [f"the second node: {each}" for each in second.checks.findings]
        self.report.findings += problems(books, history)
        both = [sales for sales in sales_of_nodes(books).values() if len(sales) > 1]
        self.counters["schedules with two nodes"] += 1
        self.counters["sent to both nodes"] += len(both)
        self.counters["queued at both nodes"] += sum(all(s.entry_id for s in each) for each in both)

    def as_chain(self) -> Chain:
        return Chain(self.tenant, self.central, self.store, self.checks.find)

    def set_up(self) -> None:
        self.settings = settings_of(self.plan, self.tenant)
        self.store = store = self._new_store()
        self.checks = checks = Checks(self.plan, self.loop, self.central, store)
        store.on_start = self._started
        store.on_death = self._died
        self.book = SalesBook(checks.find, lambda: self.loop.time() + self.clock_skipped)
        self.outbox_watch = OutboxWatch(self.central, store, checks, self.book)
        self.manager = self._manager()
        self.node = Node(1 if self.first_node else 0, store, checks, self.book)
        self.tills = self._tills_at(self.node, None)
        self.readers = [self._reader(number) for number in range(READERS)]
        self.stream_watch = StreamWatch(self.loop, store, self.readers, checks.find)
        watches = [self.outbox_watch.step] if self.plan.queues else []
        self.check_step = _all_of([checks.step, self.stream_watch.step, *watches])
        self.loop.on_step = self.check_step

    async def _play(self) -> None:
        store, checks = self.store, self.checks
        works = (
            *(till.work() for till in self.tills),
            *(reader.work() for reader in self.readers),
            self.manager.work(),
            self.stream_watch.run(),
            *(() if self.first_node else (self.central.trade(), self.central.suffer_faults())),
            store.suffer_faults(),
            store.suffer_outages(),
            self._clock_jumps(),
            self._watches(),
        )
        running = asyncio.ensure_future(store.run())
        tasks = [asyncio.ensure_future(work) for work in works]
        if self.plan.is_calm:
            await self._lull()
        await pause(self.plan.chaos_seconds)
        await self._until_enough()
        await self._meet()
        await self._heal(tasks)
        await self._meet()
        store.heal()  # the other node may just have had an outage of both
        await self._converge(running)
        if self.plan.queues and not checks.findings:
            await self.manager.settle()
            await self._meet()
            await self._converge(running)
        else:
            await self._meet()
        await self._settle_readers()
        await self._end(running)
        self._count()

    async def _meet(self) -> None:
        """Wait for the other node of the shop, if there is one."""
        if self.meeting is not None:
            await self.meeting.wait()

    async def _lull(self) -> None:
        """Let no fault strike until tills see products: without any they have nothing to sell."""
        self.plan.calm()
        self.plan.lacking = frozenset()
        self.store.heal()
        ends_at = self.loop.time() + LONGEST_LULL_SECONDS
        while self.loop.time() < ends_at:
            await pause(0.25)
            if self._is_showing():
                break
        self.plan.resume()

    def _is_showing(self) -> bool:
        store = self.store.parts
        return store is not None and store.writer.catalogue is not None

    async def _until_enough(self) -> None:
        """Let chaos go on until the schedule has what each must have, at most for some time."""
        ends_at = self.loop.time() + LONGEST_MORE_SECONDS
        while lacking := self._lacking():
            if self.loop.time() > ends_at:
                if self.plan.is_whole:
                    self.checks.find(f"too little happened: {lacking}")
                return
            if not self._is_showing():
                calm_at = self.loop.time()
                await self._lull()
                ends_at += self.loop.time() - calm_at  # a slow Central alone may fill such a time
            self.plan.lacking = frozenset(lacking)
            await pause(1.0)

    def _lacking(self) -> dict[str, int]:
        """Return what there are too few of, and how many there are."""
        self._count()
        least = LEAST if self.plan.is_whole else {**LEAST, "faults": 0}
        return {name: self.counters[name] for name in least if self.counters[name] < least[name]}

    def _new_store(self) -> SimulatedStore:
        return SimulatedStore(
            self.plan,
            self.settings,
            self.loop,
            self.network,
            self.now,
            self.note,
            first_process=self.first_process,
        )

    def _tills_at(self, node: Node, other: Node | None) -> list[SimulatedTill]:
        letter, tills = "u" if self.first_node else "t", range(self.plan.tills)
        chances = [self.plan.chance(f"till-{number}") for number in tills]
        return [
            SimulatedTill(f"{letter}{number}", self.plan, node, other, self.note, chances[number])
            for number in tills
        ]

    def _manager(self) -> SimulatedManager:
        world = (self.plan, self.loop, self.store, self.central)
        chance = self.plan.chance("manager")
        return SimulatedManager(*world, self.checks, self.book, self.note, chance)

    def _reader(self, number: int) -> SimulatedReader:
        chance = self.plan.chance(f"reader-{number}")
        ids = self.plan.possible_ids
        wanted = None if number == 0 else chance.sample(ids, min(len(ids) // 2, MOST_WANTED))
        return SimulatedReader(self.plan, self.store, self.checks, self.note, chance, wanted)

    def _started(self, parts: StoreParts) -> None:
        if may_lack(parts):
            self.note("started without its keys")
            self.book.store_may_lack(and_central=any(map(self.plan.has, KEYS_LOST)))

    def _died(self) -> None:
        self.note("restarts")
        if not self.store.is_trusted:
            self.note("died_degraded")
            for reader in self.readers:
                reader.store_died_degraded()
            for sale in self.book.sales:
                sale.store_died_degraded()
        self._observe()
        self.checks.died()

    async def _clock_jumps(self) -> None:
        chance = self.plan.chance("clock")
        while self.plan.has("clock"):
            await pause(1.0)
            if self.plan.strikes("clock", chance):
                self.note("clock")
                seconds = chance.choice((-3600.0, -5.0, 5.0, 300.0))
                self.clock_ahead += seconds
                self.clock_skipped += max(seconds, 0.0)

    async def _watches(self) -> None:
        """Note the state of the store from time to time."""
        while True:
            await pause(0.5)
            if (store := self.store.parts) is None:
                continue
            self._watch(store)
            if self.loop.has_more_tasks(self.store.process, MOST_TASKS):
                self.checks.find("more tasks than any store needs")

    def _watch(self, store: StoreParts) -> None:
        state, writes = store.runner.state, store.forwarder.status()
        if state.health.fell_back:
            self.note("fallback")
        if isinstance(state.phase, FullSyncing):
            feed = state.phase.full_sync.reading.feed
            if isinstance(feed, Following) and not feed.is_open:
                self.note("resync racing the feed")
        breaker = writes.admission.breaker
        if breaker != "closed":
            self.note(f"breaker {breaker}")
            self.has_queue = self.has_queue or writes.under_way > 0
        elif self.has_queue and not writes.under_way:
            self.note("queue drained")
            self.has_queue = False

    # -- healing ---------------------------------------------------------------------------

    async def _heal(self, tasks: Sequence[asyncio.Future[None]]) -> None:
        self.plan.calm()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.store.heal()
        if self.first_node is None:
            self.central.heal()

    async def _converge(self, running: asyncio.Future[None]) -> None:
        healed_at, store, report = self.loop.time(), self.store.parts, self.report
        report.bound = bound_seconds(store, self.central, self.plan)
        while problem := self._difference():
            if running.done():
                running.result()
                return
            if self.loop.time() > healed_at + report.bound:
                self.checks.find(
                    f"not in sync {report.bound:.1f} s after the last fault: {problem()}"
                )
                return
            await pause(LOOK_SECONDS)
        report.healed_within = self.loop.time() - healed_at

    def _difference(self) -> Callable[[], str] | None:
        """Return what the store does not hold as Central does; None if it is in sync. The words are
        made only if they are read, since this is checked again and again."""
        store = self.store.parts
        if store is None:
            return lambda: "the store does not run"
        catalogue, head = store.writer.catalogue, self.central.ledger.head
        if catalogue is None or catalogue.position is None:
            return lambda: f"no catalogue: {store.runner.state}"
        if catalogue.position.offset != head + 1:
            return lambda: f"at {catalogue.position}, Central at {head}; {store.runner.state}"
        if catalogue.pending_refetches or catalogue.overrides:
            return lambda: f"owed {catalogue.pending_refetches}, ahead {catalogue.overrides}"
        truth = {row["productId"]: _essence(row) for row in self.central.ledger.everything()}
        held = {i: _essence(_json(body)) for i, body in catalogue.rows.items()}
        different = [i for i in truth | held if truth.get(i) != held.get(i)]
        if different:
            shown = {i: (truth.get(i), held.get(i)) for i in different[:3]}
            return lambda: f"{shown} at {catalogue.position}; {store.runner.state}"
        return None if self.store.is_trusted else lambda: "the disk is not trusted yet"

    # -- the end ---------------------------------------------------------------------------

    async def _end(self, running: asyncio.Future[None]) -> None:
        self._observe()
        parts, store = self.store.parts, self.store
        self.checks.died()
        process = store.process
        await store.stop()
        await running
        store.parts = None
        # Only now: a write that was under way may have been answered while the store stopped.
        catalogue = None if parts is None else parts.writer.catalogue
        last = LastShown({}, 0)
        if catalogue is not None:
            last = LastShown(dict(catalogue.rows), catalogue.sequence)
        await pause(0.001)  # what was cancelled has its turn to end
        if any(reader.ended_uncleanly() for reader in self.readers):
            self.checks.find("a stream was cut off by a stop")
        if left := self.loop.alive_tasks(process):
            self.checks.find(f"left behind: {left}")
        problem = "" if parts is None else parts.writer.files.sweep_problem
        failures = sum(self.counters[name] for name in DISK_FAULTS)
        if has_stale_files(names := sorted(store.directory.entries), problem, failures):
            self.checks.find(f"files left behind: {names}")
        if self.meeting is None:  # else both nodes are judged together
            self._check_sales()
        if not self.checks.findings:
            await self._start_from_disk(last)

    async def _settle_readers(self) -> None:
        """Check that readers that come back hold in the end what reads show."""
        for reader in self.readers:
            if problem := await reader.settle():
                self.checks.find(problem)
        self.stream_watch.look()

    def _check_sales(self) -> None:
        for sale in self.book.sales:
            if problem := sale.problem(self.central.history):
                self.checks.find(problem)

    async def _start_from_disk(self, last: LastShown) -> None:
        """Check that a start shows what was shown, with Central down (D7)."""
        self.network.is_down = True
        old, store = self.store, self._new_store()
        store.directory.take_over(old.directory.after_power_cut(self.plan.chance("end")))
        store.starts = old.starts
        running = asyncio.ensure_future(store.run())
        async with asyncio.timeout(60):
            await store.is_serving.wait()
        assert store.parts is not None
        self.checks.started_from_disk(store.parts.writer.catalogue, last)
        await store.stop()
        await running

    # -- counting --------------------------------------------------------------------------

    def _observe(self) -> None:
        """Note what a process has been through, by its own status."""
        store = self.store.parts
        if store is None:
            return
        for run in store.runner.state.full_syncs:
            for reason in run.reasons:
                self.note(f"full sync: {reason.split(' ')[0]} {reason.split(' ')[-1]}")
            self.note("full_sync_failed" if run.problem else "full_sync")
        if not store.writer.disk.is_durable:
            self.note("degraded")
        for finding in store.writer.findings:
            self.note("torn" if "cut off" in finding else "file_finding")
        if store.writer._compaction is not None:
            self.note("fold")
        self._observe_verification(store)

    def _observe_verification(self, store: StoreParts) -> None:
        """Count comparisons, and check that each mismatch has a cause that the schedule played."""
        if store.verifier is None:
            return
        findings = store.verifier.findings
        self.counters["comparisons"] += findings.compared
        self.counters["comparisons raced"] += findings.raced
        self.counters["comparisons given up"] += findings.given_up
        self.counters["mismatches"] += findings.mismatches
        for mismatch in findings.recent:
            if mismatch.is_defect and not self.central.history.may_differ(mismatch.product_id):
                self.checks.find(f"nothing explains that {mismatch} was found")

    def _count(self) -> None:
        counters = self.counters
        counters["events"] = self.central.events
        counters["large"] = int(self.plan.is_large)
        counters["writes"] = sum(till.writes for till in self.tills)
        counters["faults"] = sum(counters[name] for name in STRIKES)
        counters["checks"] = self.checks.count
        counters["named writes passed"] = self.outbox_watch.passed
        counters["ages checked"] = self.checks.ages
        counters["steps"] = self.loop.steps
        counters["exchanges"] = self.network.exchanges
        counters["disk operations"] = self.store.operations + self.store.directory.operations


def _all_of(steps: Sequence[Callable[[], None]]) -> Callable[[], None]:
    def each() -> None:
        for step in steps:
            step()

    return each


def _essence(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value or value == ""}


def _json(body: bytes) -> dict[str, Any]:
    value: dict[str, Any] = orjson.loads(body)
    return value


class _Errors(logging.Handler):
    """Collects what the store itself logs as a defect: a finding."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []
        self._format = logging.Formatter()

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[0] is not None:
            said = self._format.formatException(record.exc_info)
            self.found.append(f"{record.getMessage()}\n{said}")


@contextmanager
def _watched(simulation: Simulation) -> Iterator[list[str]]:
    errors = _Errors()
    names = ("store_cache", "aiohttp")
    before = [logging.getLogger(name).level for name in names]
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
        logging.getLogger(name).addHandler(errors)
        logging.getLogger(name).propagate = False
    try:
        yield errors.found
    finally:
        for name, level in zip(names, before, strict=True):
            logging.getLogger(name).setLevel(level)
            logging.getLogger(name).removeHandler(errors)
            logging.getLogger(name).propagate = True


_version = cache(metadata.version)


@contextmanager
def _hastened(plan: Plan) -> Iterator[None]:
    """Look nothing up twice. With the class `fold`, compact journals all the time, though the
    catalogue is small."""
    before = archive.COMPACTION_BYTES
    vars(build)["version"] = _version  # else looked for in the folders of packages at every start
    if plan.has("fold"):
        archive.COMPACTION_BYTES = SMALL_COMPACTION_BYTES
    try:
        yield
    finally:
        archive.COMPACTION_BYTES = before
        vars(build)["version"] = metadata.version


@contextmanager
def _collected_once() -> Iterator[None]:
    """Collect garbage once, after the run: collections would take a third of its time."""
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        with _silence():
            gc.collect()
        gc.enable()
        gc.unfreeze()


@contextmanager
def _silence() -> Iterator[None]:
    """Silence the code of dead processes."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.unraisablehook = hook


def _free(loop: SimulatedLoop) -> None:
    """Free what dead processes left."""
    for tasks in loop.tasks.values():
        for task in tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.set_exception_handler(lambda *_: None)
    with _silence():
        loop._ready.clear()
        loop._scheduled.clear()
        loop.close()
        # Each by hand while its task is whole: the collector, which takes the task apart
        # first, crashes the interpreter in the clean-up of a timeout.
        for tasks in loop.tasks.values():
            for task in tasks:
                if not task.done():
                    _close(task.get_coro())
        loop.tasks.clear()


def _close(work: Any) -> None:
    """Close a coroutine, again and again if it awaits something on the way."""
    for _ in range(MOST_CLEANUPS):
        with suppress(BaseException):
            work.close()
            return


def simulate(seed: int, off: Collection[str] = ()) -> Report:
    """Run one seed to its end. `off`: classes of faults that are switched off."""
    with _collected_once():
        return Simulation(seed, off).run()
