"""The outbox in a simulation, and its oracle (promise 11): a queued write is applied exactly once,
or shown to a person.

What became of a write is counted in Central's ledger, under its key and all derived ones. What the
store says of it is what its routes and reads say. A person who looks after the outbox knows what
the ledger knows, and decides by that.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from store_cache.api.parts import StoreParts
from tests.harness.http import Reply
from tests.simulation.central import SimulatedCentral
from tests.simulation.checks import Checks
from tests.simulation.connection import ConnectionLost, TillConnection, request_bytes
from tests.simulation.loop import SimulatedLoop, pause
from tests.simulation.plan import NODES, Plan
from tests.simulation.sales import STORE, Sale
from tests.simulation.store import SimulatedStore

OUTBOX = "/v1/store/outbox"
INVENTORY = "/v1/store/inventory"
PAGE = 200

CERTAIN_SECONDS = 25.0
"""A person decides about an entry that has stood so long: no copy of it is on the way any more."""

ROUNDS = 6
"""So often a person goes through what is left in the end, at most."""

RETRIES = 0.5
"""How likely a person has a parked write sent again, the first time."""

LONGEST_PAUSE_SECONDS = 60.0
"""Between two sendings of an entry (docs/outbox.md); what failed for another reason waits, too."""

LEAST_WRITES = 3
"""A minute: what is left of the lowest limit that a store takes for Central's, which has refused it
again and again, or whose minute its clock makes an hour of."""

DOUBTFUL = ("idempotency_key_taken", "forgotten", "central_replaced")
"""Why an entry is parked of which an attempt may have been applied."""

Entry = dict[str, Any]


def shown_rows(store: StoreParts, wanted: Collection[str] | None = None) -> dict[str, bytes]:
    """Return the rows of products as reads show them now; None: of all products."""
    catalogue, pending = store.writer.catalogue, store.pending
    if catalogue is None:
        return {}
    rows = catalogue.rows
    return {
        i: body if pending is None else pending.show(body)
        for i, body in rows.items()
        if wanted is None or i in wanted
    }


def pending_sums(store: StoreParts) -> dict[str, int]:
    """Return what is pending of each product, as reads show it now."""
    pending = store.pending
    return {} if pending is None else {i: pending.of(i) for i in pending.products()}


def may_lack(store: StoreParts) -> bool:
    """Whether a store may lack what it had kept: it has begun on a disk that fails (D5), or its
    files were damaged and its health says so (O9)."""
    checks = store.status.health()["checks"]
    problem = checks["outbox"].get("problem", "") if "outbox" in checks else ""
    return not store.writer.is_loaded or "may be missing" in problem


@dataclass
class SalesBook:
    """All sales of all tills, and what they were told. `now`: as a `Sale` takes it."""

    find: Callable[[str], None]
    now: Callable[[], float]
    sales: list[Sale] = field(default_factory=list)

    def told(self) -> set[str]:
        """Return the keys of sales whose final answer a till has: they count as pending no more."""
        return {
            sale.key
            for sale in self.sales
            if sale.final and not (sale.is_forgotten or sale.may_count_anew)
        }

    def store_may_lack(self, *, and_central: bool) -> None:
        """Note that a store may lack what it had kept, so that it sends a repeat as new.
        `and_central`: Central may have forgotten its key, too."""
        for sale in self.sales:
            sale.is_forgotten = sale.is_forgotten or bool(sale.entry_id) or and_central
            sale.may_count_anew = True

    def was_shown(self, rows: Iterable[dict[str, Any]], told: Collection[str]) -> None:
        """Check what a read shows as pending; `told`: what was final when it was asked for."""
        for row in rows:
            pending = row.get("pendingDelta", 0)
            expected = row.get("expectedAvailable", row["available"])
            is_oversold = row.get("oversold", False)
            if expected != row["available"] + pending or is_oversold != (expected < 0):
                self.find(f"the sum is wrong: {row}")
            now = self.now()
            deltas = [
                sale.delta
                for sale in self.sales
                if sale.product_id == row["productId"]
                and (sale.key not in told or sale.is_due(now))
            ]
            least, most = (sum(pick(0, each) for each in deltas) for pick in (min, max))
            if not least <= pending <= most:
                self.find(f"{row} shows what is settled; {deltas} are not")


class OutboxWatch:
    """After every step: an event that names a write settles it in that very step (O4), if the write
    was in the outbox when the batch before became visible: before this one was planned."""

    def __init__(
        self, central: SimulatedCentral, store: SimulatedStore, checks: Checks, book: SalesBook
    ) -> None:
        self.passed = 0
        self._book = book
        self._process: StoreParts | None = None
        self._central = central
        self._store = store
        self._checks = checks
        self._catalogue: object = None
        self._offset = 0
        self._listed: set[str] = set()  # keys, after the last batch

    def step(self) -> None:
        parts = self._store.parts
        if parts is not self._process:
            self._process = parts
            self._listed.clear()
        catalogue = None if parts is None else parts.writer.catalogue
        if parts is None or catalogue is None or (position := catalogue.position) is None:
            self._catalogue = None
            return
        is_followed = catalogue is self._catalogue  # else pages were read in place of events
        passed = range(self._offset, position.offset)
        self._catalogue, self._offset = catalogue, position.offset
        central = self._central
        is_certain = central.orderly and self._checks.has_seen_restores
        names_writes = not central.ledger.switches.unnamed_writes
        is_same_feed = position.named == central.ledger.generation
        if passed and is_followed and is_certain and names_writes and is_same_feed:
            self._check(parts, passed)

    def _check(self, parts: StoreParts, passed: range) -> None:
        assert parts.outbox is not None
        history = self._central.history
        feed = history.feeds[-1]
        before, entries = self._listed, parts.outbox.listed(None, limit=1_000_000, after="")
        self._listed = {entry.key for entry in entries}
        for entry in entries:
            product_id = entry.product_id
            if entry.key not in before or feed.has_lost(product_id, passed.stop):
                continue
            for offset, state in reversed(feed.products.get(product_id, ())):
                if offset < passed.start or state is None:
                    break
                name = history.keys.get((product_id, state), "")
                if offset < passed.stop and name.partition("~")[0] == f"{STORE}-{entry.key}":
                    self._checks.find(f"offset {offset} names {name}, and it is {entry.state}")
                self.passed += 1


@dataclass
class SimulatedManager:
    """The person who looks after the outbox, with a key of an admin. `_since`: when the manager has
    first seen an entry as it is, by its id."""

    plan: Plan
    loop: SimulatedLoop
    store: SimulatedStore
    central: SimulatedCentral
    checks: Checks
    book: SalesBook
    note: Callable[[str], None]
    chance: random.Random
    _connection: TillConnection | None = None
    _since: dict[str, tuple[str, float]] = field(default_factory=dict)

    # -- while chaos lasts -----------------------------------------------------------------

    async def work(self) -> None:
        """Decide now and then about what is parked, until cancelled."""
        while self.plan.queues:
            await pause(self.chance.uniform(2.0, 8.0))
            try:
                for entry in await self._listed("parked"):
                    if self._has_stood(entry):
                        await self._decide(entry)
            except ConnectionLost:
                self.note("line_lost")

    def _has_stood(self, entry: Entry) -> bool:
        now = self.loop.time()
        changed_at, since = self._since.get(entry["outboxId"], ("", now))
        if changed_at != entry["changedAt"]:
            since = now
        self._since[entry["outboxId"]] = entry["changedAt"], since
        return now - since >= CERTAIN_SECONDS

    async def _decide(self, entry: Entry) -> bool:
        """Settle what is in doubt by the ledger; retry or discard what was not applied. With two
        nodes, what is in doubt is not retried, and what the other node has applied is discarded.
        Return whether the store has taken it."""
        sale = self._sale(entry)
        was_applied = sale.times_applied(self.central.history.applied) > 0
        is_doubtful = entry["state"] == "in_doubt" or entry["errorType"] in DOUBTFUL
        may_retry = not was_applied and not (is_doubtful and self.plan.has(NODES))
        retries = may_retry and not entry["steps"] and self.chance.random() < RETRIES
        sale.knows_other_node = was_applied and not is_doubtful and self.plan.has(NODES)
        did = "retries" if retries else "settles" if is_doubtful else "discards"
        sale.decided.add(did)  # also if the answer is lost
        path, reason = f"{OUTBOX}/{entry['outboxId']}", {"reason": "by the ledger"}
        outcome = {"outcome": "applied" if was_applied else "not_applied"}
        if retries:
            told = await self._call("POST", f"{path}/retry", reason | outcome)
        elif is_doubtful:
            told = await self._call("POST", f"{path}/settle", reason | outcome)
        else:
            told = await self._call("DELETE", path, reason)
        self.note(f"person {did}")
        if told.status not in (200, 409, 503):
            self.checks.find(f"a person was answered {told.status} {told.json} for {entry}")
        return told.status == 200

    def _sale(self, entry: Entry) -> Sale:
        return next(sale for sale in self.book.sales if sale.key == entry["idempotencyKey"])

    # -- the end ---------------------------------------------------------------------------

    async def settle(self) -> None:
        """After healing: wait until nothing is queued or sending, decide about the rest, and check
        that each write ended as the store says."""
        if not self.plan.queues:
            return
        try:
            await self._until_none_waits()
            await pause(CERTAIN_SECONDS)
            for _ in range(ROUNDS):
                await self._until_none_waits()
                if not (entries := await self._listed()):
                    break
                await self._check_pending(entries)
                if not all([await self._decide(entry) for entry in entries]):
                    await pause(1.0)  # what is parked may be under way for a moment more
            else:
                self.checks.find(f"a person cannot settle {entries}")
            await pause(1.0)  # what is listed as settled may not be on disk yet, nor shown
            await self._check_ends()
        except ConnectionLost as problem:
            self.checks.find(f"a person is not answered: {problem}")

    async def _until_none_waits(self) -> None:
        entries = await self._waiting()
        ends_at = self.loop.time() + self._bound_seconds(len(await self._listed()))
        while entries:
            if self.loop.time() > ends_at:
                self.checks.find(f"these still wait after a quiet time: {entries[:3]}")
                return
            await pause(1.0)
            entries = await self._waiting()

    async def _waiting(self) -> list[Entry]:
        return await self._listed("queued") + await self._listed("sending")

    def _bound_seconds(self, count: int) -> float:
        """Return how long any of `count` unsettled entries may wait: each of a line for the longest
        pause, and three requests for each, under Central's limit or what the store takes for it."""
        limit = self.central.ledger.switches.rate_limit or 60
        is_misjudged = self.plan.has("limited") or self.plan.has("clock")
        per_minute = LEAST_WRITES if is_misjudged else limit / 10
        return 4 * LONGEST_PAUSE_SECONDS + count * 3 * 60.0 / per_minute

    async def _check_pending(self, entries: list[Entry]) -> None:
        """Check that reads show the sum of what is listed, by what the tills have sold."""
        sums: dict[str, int] = {}
        deltas = {sale.key: sale.delta for sale in self.book.sales}
        for entry in entries:
            product_id = entry["productId"]
            sums[product_id] = sums.get(product_id, 0) + deltas[entry["idempotencyKey"]]
        found = {}
        for product_id in sums:
            answer = await self._call("GET", f"{INVENTORY}/{quote(product_id)}")
            found[product_id] = answer.json.get("pendingDelta") if answer.status == 200 else None
        wrong = {i: (found[i], sums[i]) for i in sums if found[i] not in (None, sums[i])}
        if wrong and await self._listed() == entries:
            self.checks.find(f"reads show as pending, and listed is: {wrong}")

    async def _check_ends(self) -> None:
        """Check that each write that was queued is listed as settled, and is at Central so."""
        ended = {
            entry["idempotencyKey"]: entry
            for state in ("applied", "discarded")
            for entry in await self._listed(state)
        }
        parts, history = self.store.parts, self.central.history
        if parts is not None and (sums := pending_sums(parts)):
            self.checks.find(f"everything is settled, and still pending: {sums}")
        for sale in self.book.sales:
            entry = ended.get(sale.key)
            sale.end = "" if entry is None else entry["state"]
            if sale.is_forgotten:
                continue
            if entry is None:
                if sale.entry_id:
                    self.checks.find(f"key {sale.key} was queued and is not listed: {sale.words}")
                continue
            if sale.entry_id not in ("", entry["outboxId"]):
                self.checks.find(f"key {sale.key} was {sale.entry_id}, and is {entry}")
            times, ends = sale.times_applied(history.ever_applied), sale.end == "applied"
            was_applied = sale.final == "applied" and sale.is_judged_anew
            if times == 1 and (was_applied or self.plan.has(NODES)):
                continue  # before the store has lost the answer; or by the other node, see `nodes`
            if sale.replacements == history.replacements and times != ends:
                self.checks.find(f"key {sale.key} was applied {times} times, and is {entry}")

    # -- the connection --------------------------------------------------------------------

    async def _listed(self, state: str = "") -> list[Entry]:
        """Return the entries in a state, or all that are unsettled."""
        asked = f"&state={state}" if state else ""
        entries: list[Entry] = []
        after = ""
        while True:
            answer = await self._call("GET", f"{OUTBOX}?limit={PAGE}&after={after}{asked}")
            if answer.status != 200:
                raise ConnectionLost(f"the outbox answers {answer.status}")
            page = answer.json["entries"]
            entries += page
            if len(page) < PAGE:
                return entries
            after = page[-1]["outboxId"]

    async def _call(self, method: str, path: str, body: Any = None) -> Reply:
        if self._connection is None or not self._connection.is_open:
            self._connection = self.store.connect()
        return await self._connection.call(request_bytes(method, path, body))
