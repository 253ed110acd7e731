"""Central in a simulation: the stub's own, in process. The chain sells and changes products all the
time, and Central is restored, replaced, or loses events.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from math import inf
from typing import Any

from central_stub.central import Central, Held
from central_stub.faults import Faults, Repeat
from central_stub.feed import Lateness, draw_lateness
from central_stub.keys import Remembered
from central_stub.ledger import Ledger, Part, PositionGone
from central_stub.rules import Write
from central_stub.switches import Feature, Switches
from central_stub.tenants import UNNAMED, AccessKeys
from central_stub.waiting import Waiters
from central_stub.wire import Refused, Reply, Request, Route
from tests.simulation.history import BackedUp, History
from tests.simulation.loop import pause
from tests.simulation.plan import Plan

KEY = "central-secret"
STOCKS = (0, 2, 5, 20, 60, 150, 500)
NAMES = 4
"""Of each product: with few names and stocks, two incarnations often look alike."""

BURSTS = (1, 4, 12, 24)
QUIET = 0.8
"""How likely the chain pauses instead, while the store must recover."""

GONE = 0.2
"""How likely a product that is lied about is removed."""

MOST_LOST = 3
"""Of the last events or writes, by a crash of Central."""

MEAN_BURST = sum(BURSTS) / len(BURSTS)


def key_of(tenant: str) -> str:
    """Return the key of the stores of a tenant; empty: the unnamed one."""
    return f"key-of-{tenant}" if tenant else KEY


def older(chance: random.Random) -> dict[str, Any]:
    """Return the switches of an older Central."""
    may_lack = (
        Feature.EVENT_OFFSET,
        Feature.HOLD,
        Feature.CURSOR,
        Feature.ZEROS,
        Feature.DIGEST,
    )
    return {
        "without": frozenset(feature for feature in may_lack if chance.random() < 0.3),
        "event_offset_means": chance.choice(("last", "next")),
        "page_shape": chance.choice(("products", "items", "list")),
        "total_names": chance.choice(("snake", "camel")),
        "batch_totals": chance.choice(("counts", "summary")),
        "refusal_status": chance.choice(("conflict", "varied")),
        "rate_limit_hint": chance.choice(("retry-after", "reset", "none")),
        "deletion_data": chance.choice(("before", "empty", "absent")),
        "old_event_names": chance.random() < 0.3,
        "unnamed_writes": chance.random() < 0.3,
        "null_events": chance.random() < 0.3,
        "hold_beyond_head": chance.random() < 0.3,
    }


class SellingLedger(Ledger):
    """A write changes an attribute, too, of which its answer says nothing."""

    def _write(self, write: Write, now: float, key: Remembered | None = None) -> None:
        if key is not None and write.row is not None:
            row = write.row | {"sales": write.row.get("sales", 0) + 1}
            write = Write(write.event | {"data": row}, row)
        super()._write(write, now, key)


class SimulatedCentral:
    """`now` returns unix seconds; `on_break` is called when all connections to Central break, and
    `on_restore` when Central is away until the store has noticed. `readings`: when it answered with
    the first page of its catalogue, in unix seconds.

    What Central has seen of the store decides which faults it plays, never the store itself. A
    restore that keeps Central's name leaves a sign only under conditions (the first point of the
    known limits, docs/reliability.md); without verification it takes another name elsewhere.

    What a `tenant` has bears its name."""

    def __init__(
        self,
        plan: Plan,
        now: Callable[[], float],
        note: Callable[[str], None],
        tenant: str = UNNAMED,
    ) -> None:
        self.tenant = tenant
        self.history = History(now)
        self.on_break: Callable[[], None] = lambda: None
        self.on_restore: Callable[[], None] = lambda: None
        self.readings: list[float] = []
        self._paged_head: int | None = None
        self._has_forgotten_log = False
        self._plan = plan
        self.now = now
        self._note = note
        self._chance = plan.chance("chain")
        self._late = plan.chance("lateness")
        self._waiters = Waiters()
        self._settles_at = inf
        self.first_events = 0
        self._names = 0
        self._backup: tuple[dict[str, Any], BackedUp] | None = None
        self.ledger: Ledger = SellingLedger(
            generation=self._new_name(),
            switches=self._switches(),
            lateness=self._lateness,
            record=self.history.record,
        )
        faults = Faults(plan.chance("faults").random)
        if plan.has("repeat"):
            faults.add(Repeat(kind="repeat", probability=plan.rates["repeat"]))
        keys = AccessKeys((key_of(tenant),), ())
        self.faults = faults
        self.central = Central(self.ledger, keys=keys, faults=faults, new_name=self._new_name)
        for product_id in plan.product_ids:
            self.create(product_id)
        self.first_events = self.history.events

    def _switches(self) -> Switches:
        chance, plan = self._plan.chance("switches"), self._plan
        given: dict[str, Any] = older(chance) if plan.has("older") else {}
        without = set(given.get("without", ()))
        if plan.has("older") and plan.chance("reports").random() < 0.5:
            without.add(Feature.REPORTS)
        if plan.has("disorder"):
            without.add(Feature.ORDER)
        given["without"] = frozenset(without)
        if plan.is_large:
            given["page_limit"] = chance.choice((300, 1000))
        elif plan.has("small_pages"):
            given["page_limit"] = chance.choice((2, 5, 9))
        if plan.has("rate_limit"):
            given["rate_limit"] = chance.choice((120, 300, 600))
            given["rate_limit_fields"] = chance.choice(("custom", "draft", "absent"))
        return Switches(**given)

    def _lateness(self) -> Lateness:
        return Lateness() if self._plan.is_calm else draw_lateness(self._late)

    def _new_name(self) -> str:
        self._names += 1
        return f"{self.tenant or 'g'}-{self._names}"

    @property
    def events(self) -> int:
        """How many there were since the creation of the products."""
        return self.history.events - self.first_events

    @property
    def orderly(self) -> bool:
        return self.ledger.switches.has(Feature.ORDER)

    # -- requests --------------------------------------------------------------------------

    async def answer(self, request: Request) -> Reply:
        """Return Central's answer when it comes; a poll is held as long as it asks for."""
        reply = self.central.answer(request, self.now())
        self._note_request(request)
        if request.method == "PUT" and isinstance(reply, Reply):
            self._note(f"reports {reply.status}")
        self.announce()
        if isinstance(reply, Held):
            reply = await self._held(reply)
        return self._spoiled(request, reply)

    async def _held(self, held: Held) -> Reply:
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + held.wait_seconds
        while (left := ends_at - loop.time()) > 0:
            await self._waiters.wait(left)
            reply = self.central.poll(held, self.now())
            if reply is not None:
                return reply
        return self.central.release(held, self.now())

    def _note_request(self, request: Request) -> None:
        """Note what a request tells of the store: which pages it has, and which events."""
        try:
            route, query = self.central.route(request), request.query
        except Refused:
            return
        if route is Route.PAGES and "bucket" not in query:
            self._paged_head = self.ledger.head
            if query.get("offset", "0") == "0" and not query.get("cursor"):
                self.readings.append(self.now())
        elif route is Route.EVENTS and (paged := self._paged_head) is not None:
            is_behind = not paged <= int(query["offset"]) <= self.ledger.head + 1
            self._paged_head = paged if is_behind else None

    @property
    def leaves_a_sign(self) -> bool:
        """Whether a restore that keeps Central's name does now: the store has asked for what
        follows all pages that it read, and the log was never forgotten."""
        return self._paged_head is None and not self._has_forgotten_log

    def _spoiled(self, request: Request, reply: Reply) -> Reply:
        try:
            route = self.central.route(request)
        except Refused:
            return reply
        for fault in self.faults.strike(route):
            self._note("repeat")
            reply = fault.spoil(reply)
        return reply

    def announce(self) -> None:
        self._waiters.wake()
        due_at = self.ledger.due_at
        if due_at is not None and due_at < self._settles_at:
            self._settles_at = due_at
            loop = asyncio.get_running_loop()
            loop.call_later(max(due_at - self.now(), 0.0) + 0.001, self._settle)

    def _settle(self) -> None:
        self._settles_at = inf
        self.ledger.settle(self.now())
        self.announce()

    # -- what others in the chain do -------------------------------------------------------

    def create(self, product_id: str) -> None:
        chance = self._chance
        row = {"productId": product_id, "name": self._name(), "available": chance.choice(STOCKS)}
        mark = {"chain": self.tenant} if self.tenant else {}
        self.ledger.create(row | mark, self.now())

    def _name(self) -> str:
        return f"Thing {self._chance.randint(1, NAMES)}"

    def product_ids(self) -> list[str]:
        return self.ledger.ids()

    async def trade(self) -> None:
        """Sell and change products elsewhere, until cancelled."""
        while True:
            seconds = self._chance.expovariate(self._plan.events_a_second / MEAN_BURST)
            await pause(seconds)
            if self._plan.is_calm and self._chance.random() < QUIET:
                continue
            for _ in range(self._chance.choice(BURSTS)):
                self._change()
            self.announce()

    def _change(self) -> None:
        chance, now = self._chance, self.now()
        ids = self.product_ids()
        kind = chance.random()
        if kind < 0.025 and len(ids) > self._plan.products // 2 + 2:
            self.ledger.delete(chance.choice(ids), now)
        elif kind < 0.05:
            missing = [i for i in self._plan.possible_ids if self.ledger.read(i) is None]
            if missing:
                self.create(chance.choice(missing))
        elif kind < 0.13:
            self.ledger.set({"productId": chance.choice(ids), "name": self._name()}, now)
        else:
            stock = chance.choice(STOCKS)
            self.ledger.set({"productId": chance.choice(ids), "available": stock}, now)

    # -- what happens to Centrals ----------------------------------------------------------

    async def suffer_faults(self) -> None:
        """Retention, replaced feeds, lost events and forgotten keys, until cancelled."""
        may_happen = [
            (name, happens)
            for name, happens in (
                ("retention", self.forget_log),
                ("lost_events", self.lose_events),
                ("forget_keys", self.forget_keys),
                ("lie", self.lie),
                ("crash_log", lambda: self.crash("events")),
                ("crash_stock", lambda: self.crash("stock")),
                ("generation", self.begin_generation),
                ("restore", self.back_up_or_restore),
            )
            if self._plan.has(name)
        ]
        while may_happen:
            await pause(1.0)
            for name, happens in may_happen:
                if self._plan.strikes(name, self._chance):
                    self._note(happens() or name)
                    self.announce()

    def forget_keys(self) -> None:
        """Forget the keys of writes, as after a day."""
        self.history.forgotten()
        self.ledger.forget_keys()

    def forget_log(self) -> str:
        """Forget the log, unless it alone may tell of a restore (the first point of the known
        limits, docs/reliability.md), or holds a single event that came after the pages (the ninth
        point). Returns what was done."""
        is_single = self._paged_head is not None and self.ledger.head == self._paged_head + 1
        if (self.history.unnamed_replacements or is_single) and not self._plan.verify_seconds:
            return "log kept"
        self._has_forgotten_log = True
        self.ledger.forget_log()
        return "retention"

    def lose_events(self) -> None:
        self.ledger.lose_next(self._chance.randint(1, 3))

    def lie(self) -> None:
        """Change or remove a product without an event."""
        product_id = self._chance.choice(self.product_ids())
        gone = self._chance.random() < GONE
        self.ledger.lie(product_id, None if gone else {"available": self._chance.choice(STOCKS)})

    def crash(self, loses: Part) -> None:
        """End as a Central does that saves its log and its stock apart: lose the end of one."""
        self.ledger.crash(loses, self._chance.randint(1, MOST_LOST))
        self.on_break()

    def begin_generation(self) -> None:
        self.ledger.settle(self.now() + 10.0)
        self.ledger.begin_generation(self._new_name())
        self.on_break()

    def back_up_or_restore(self) -> str:
        """Take a backup, or restore the one taken: offsets are then used again. Returns which."""
        self.ledger.settle(self.now() + 10.0)
        if self._backup is None:
            self._backup = self.ledger.backup(), self.history.memory()
            return "backup"
        backup, memory = self._backup
        self._backup = None
        same = self._chance.random() < 0.5 and (self._plan.verify_seconds or self.leaves_a_sign)
        self.ledger.restore(backup, backup["generation"] if same else self._new_name())
        self.history.restored(memory, keeps_name=bool(same))
        self._paged_head = None
        self.on_break()
        if same and not self._plan.verify_seconds:
            self.on_restore()
        if same:
            self._note("restore under its own name")
        return "restore"

    def heal(self) -> None:
        """End all faults, publish what is late, and add an event: a loss at the very end of a feed
        shows only by what follows."""
        self.faults.clear()
        self.ledger.settle(self.now() + 10.0)
        while self._is_losing():
            self._sell_any()
        self._sell_any()
        self.announce()

    def _is_losing(self) -> bool:
        return self.ledger._to_lose > 0

    def _sell_any(self) -> None:
        self.ledger.set({"productId": self.product_ids()[0], "available": 7}, self.now())

    # -- the truth -------------------------------------------------------------------------

    def backlog(self, offset: int) -> int:
        """Return how many events a store at this offset has still to fetch."""
        try:
            page = self.ledger.events(offset, 1_000_000, self.now())
        except PositionGone:
            return len(self.ledger)
        return len(page.events)
