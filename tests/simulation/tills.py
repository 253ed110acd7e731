"""Tills in a simulation: they read, sell at once, repeat what was settled and what was not, and
disconnect.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from store_cache.model.product import version_of
from tests.harness.http import Reply
from tests.simulation.checks import Checks
from tests.simulation.connection import ConnectionLost, TillConnection, request_bytes
from tests.simulation.loop import pause
from tests.simulation.outbox import SalesBook
from tests.simulation.plan import Plan
from tests.simulation.sales import Order, Sale
from tests.simulation.store import SimulatedStore

INVENTORY = "/v1/store/inventory"
UNSETTLED = (429, 500, 502, 503, 504)
MOST_REPEATS = 6
MOST_KNOWN = 100
REPEATS = 0.25
"""How likely a till repeats something of any time before, settled or not."""

TWICE = 0.1
FRESH = 0.95
"""How likely a till sells by the version that the store shows; else Central may refuse."""


ELSEWHERE = 0.3
"""How likely a till that has the choice turns to the other node: for a repeat, or after a line or
a write that failed."""


@dataclass(frozen=True)
class Node:
    """A node of the shop, with the checks and the book of what it told."""

    number: int
    store: SimulatedStore
    checks: Checks
    book: SalesBook


@dataclass
class SimulatedTill:
    """`node` is the one that the till talks to, `other` the second one of the shop, if any."""

    name: str
    plan: Plan
    node: Node
    other: Node | None
    note: Callable[[str], None]
    chance: random.Random
    sales: list[Sale] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)
    writes: int = 0
    """Sales that were sent, without repeats."""
    _connection: TillConnection | None = None
    _known: dict[str, int] = field(default_factory=dict)
    """The version of each product that the till has on its screen."""

    def __post_init__(self) -> None:
        """Sell from the first moment: yesterday's screen says that every product is new."""
        self._known = dict.fromkeys(self.plan.product_ids[:MOST_KNOWN], 1)

    async def work(self) -> None:
        while True:
            await pause(self.chance.expovariate(self.plan.acts_a_second))
            try:
                await self._act()
            except ConnectionLost:
                self.note("line_lost")
                self._may_turn()

    async def _act(self) -> None:
        kind = self.chance.random()
        if not self._known or kind < 0.08:
            await self._read_all()
        elif kind < 0.2:
            await self._read_one()
        elif kind < 0.2 + REPEATS and self.orders:
            await self._repeat(self.chance.choice(self.orders))
        elif kind < 0.67:
            await self._sell_basket()
        elif kind < 0.8:
            await self._adjust()
        else:
            await self._sell()
        if self.plan.strikes("force", self.chance):
            self.note("force")
            await self._call("POST", "/v1/store/sync/force")

    # -- reads -----------------------------------------------------------------------------

    async def _read_all(self) -> None:
        seen, told = self.checks.watermarks(), self.book.told()
        answer = await self._call("GET", f"{INVENTORY}?limit=200")
        if answer.status == 200:
            rows = answer.json["products"]
            self.checks.was_shown(rows, answer.headers["x-cache-generation"], seen)
            self.book.was_shown(rows, told)
            self._known = {row["productId"]: row["version"] for row in rows} or self._known

    def _any(self) -> str:
        return self.chance.choice(list(self._known))

    async def _read_one(self) -> None:
        product_id = self._any()
        seen, told = self.checks.watermarks(), self.book.told()
        headers = {}
        if self.plan.strikes("no_cache", self.chance):
            self.note("no_cache")
            headers = {"Cache-Control": "no-cache"}
        answer = await self._call("GET", f"{INVENTORY}/{quote(product_id)}", None, **headers)
        if answer.status == 200:
            row = answer.json
            self.checks.was_shown([row], answer.headers["x-cache-generation"], seen)
            self.book.was_shown([row], told)
            self._known[product_id] = row["version"]
        elif answer.status == 404:
            self._known.pop(product_id, None)

    # -- writes ----------------------------------------------------------------------------

    def _sale(self, product_id: str, *, with_version: bool = True) -> Sale:
        sale = Sale(
            key=f"{self.name}-{len(self.sales)}",
            product_id=product_id,
            delta=self.chance.choice((-3, -1, -1, 2)),
            version=self._version(product_id) if with_version else None,
            replacements=self.checks.replacements,
        )
        self.sales.append(sale)
        self.book.sales.append(sale)
        return sale

    def _version(self, product_id: str) -> int:
        """Return the version on the till's screen, which mostly was just refreshed."""
        store = self.store.parts
        catalogue = None if store is None else store.writer.catalogue
        body = None if catalogue is None else catalogue.get(product_id)
        if body is not None and self.chance.random() < FRESH:
            self._known[product_id] = version_of(body)
        return self._known[product_id]

    async def _sell(self) -> None:
        sale = self._sale(self._any())
        await self._place(Order([sale], "POST", f"{INVENTORY}/updates", sale.body()))

    async def _adjust(self) -> None:
        sale = self._sale(self._any(), with_version=False)
        path = f"{INVENTORY}/{quote(sale.product_id)}/inventory"
        body, headers = {"quantityChange": sale.delta}, {"Idempotency_Key": sale.key}
        await self._place(Order([sale], "PATCH", path, body, headers))

    async def _sell_basket(self) -> None:
        known = list(self._known)
        if self.chance.random() < TWICE:
            known *= 2  # a product that is sold twice in a basket is refused once, for its version
        self.chance.shuffle(known)
        sales = [self._sale(product_id) for product_id in known[: self.chance.randint(2, 14)]]
        body = {"updates": [sale.body() for sale in sales]}
        await self._place(Order(sales, "POST", f"{INVENTORY}/batch-updates", body))

    async def _place(self, order: Order) -> None:
        """Send an order, and repeat it some times unless it is settled."""
        order.node = self.node.number
        self.orders.append(order)
        for _ in range(self.chance.randint(1, MOST_REPEATS)):
            status = await self._send(order)
            if status and status not in UNSETTLED and self.chance.random() < 0.9:
                return
            self._may_turn()
            await pause(self.chance.uniform(0.1, 2.0))

    async def _repeat(self, order: Order) -> None:
        self.note("repeated settled" if all(sale.final for sale in order.sales) else "repeated")
        self._may_turn()
        await self._send(order)

    async def _send(self, order: Order) -> int:
        """Return the status of the answer, 0 if the connection was lost."""
        sales = self._sales_of(order)
        try:
            self._connect()
            if not order.is_counted:
                order.is_counted = True
                self.writes += len(order.sales)
            for sale in sales:
                sale.sent(self.book.now())
            answer = await self._call(order.method, order.path, order.body, **order.headers)
        except ConnectionLost:
            for sale in sales:
                sale.lost()
            return 0
        self._note_answer(sales, answer)
        return answer.status

    def _sales_of(self, order: Order) -> list[Sale]:
        """Return the sales of an order as this node knows them."""
        if order.node == self.node.number:
            return order.sales
        if not order.elsewhere:
            order.elsewhere = [sale.at_other_node() for sale in order.sales]
            self.book.sales += order.elsewhere
        return order.elsewhere

    def _note_answer(self, sales: list[Sale], answer: Reply) -> None:
        body, now = answer.json, self.book.now()
        results = body.get("results", [body] * len(sales))
        for sale, result in zip(sales, results, strict=True):
            if problem := sale.note_answer(answer.status, result, now):
                self.checks.find(problem)
            if result.get("queued"):
                self.note(f"told {result['state']}")
            elif result.get("applied") is True:
                self.note("applied")
                if "newVersion" in result:  # a person may have settled it, and not have known
                    self._known[sale.product_id] = result["newVersion"]
                    self.checks.was_applied(sale, result)
            elif "errorType" in result:
                self.note(f"refused {result['errorType']}")
            elif "error" in result:
                self.note(f"error {result['error']['code']}")

    # -- the connection --------------------------------------------------------------------

    @property
    def store(self) -> SimulatedStore:
        return self.node.store

    @property
    def checks(self) -> Checks:
        return self.node.checks

    @property
    def book(self) -> SalesBook:
        return self.node.book

    def _may_turn(self) -> None:
        """Turn to the other node, perhaps."""
        if self.other is None or self.chance.random() >= ELSEWHERE:
            return
        self.note("turned to the other node")
        self.node, self.other = self.other, self.node
        if self._connection is not None:
            self._connection.hang_up()
            self._connection = None

    async def _call(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        connection = self._connect()
        if self.plan.strikes("hang_up", self.chance):
            seconds = self.chance.choice((0.001, 0.01, 0.1))
            asyncio.get_running_loop().call_later(seconds, self._hang_up, connection)
        return await connection.call(request_bytes(method, path, body, **headers))

    def _connect(self) -> TillConnection:
        """Return the open connection, or a new one. Raises ConnectionLost."""
        if self._connection is None or not self._connection.is_open:
            self._connection = self.store.connect()
        return self._connection

    def _hang_up(self, connection: TillConnection) -> None:
        if connection.is_open:
            self.note("hang_up")
            connection.hang_up()
