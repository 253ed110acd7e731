"""A Central for the tests of software that talks to a store.

    with TestCentral(products=[{"productId": "TEA-001", "available": 40}]) as central:
        ...

It is the whole stub, served on a free port by an event loop in a thread of its own: a till under
test may block, and may run in any event loop or none. Every method is an ordinary call that takes
about a millisecond, so it may be called in a coroutine, too. `async with` is the same as `with`.

Its state is in memory unless it is given a folder. What a product, a fault and a switch may be, is
said in docs/central-stub.md; what is wrong raises ValueError with Central's words.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import anyio
import orjson
from anyio.from_thread import BlockingPortal, start_blocking_portal
from pydantic.alias_generators import to_camel

from central_stub.catalogue import Row
from central_stub.ledger import Change, Ledger
from central_stub.server import Running, new_name
from central_stub.settings import Settings
from central_stub.switches import LIKE, Switches
from central_stub.tenants import UNNAMED
from central_stub.wire import Request

__all__ = ["Row", "Sale", "TestCentral"]

KEY = "central-key"
ADMIN_KEY = "central-admin-key"


@dataclass(frozen=True, slots=True)
class Sale:
    """A write that Central applied. `quantity_change` is negative for what was sold; `version` is
    that of the product after it."""

    product_id: str
    quantity_change: int
    version: int
    store_id: str
    idempotency_key: str


class TestCentral:
    """A Central that begins with `products`, rows as `{"productId": …, "available": …}`.

    `like="older"` imitates the deployed, older Central; `switches` set single differences, such as
    `refuse_positive=True`. `folder` keeps the ledger on disk. All products, and the key, are those
    of `tenant`. Raises ValueError for switches that do not exist.
    """

    __test__ = False  # for pytest: no class of tests

    def __init__(
        self,
        products: Sequence[Row] = (),
        *,
        like: str | None = None,
        folder: Path | None = None,
        tenant: str = UNNAMED,
        **switches: Any,
    ) -> None:
        self._products = list(products)
        self._switches = _switches_of(like, switches)
        self._tenant = tenant
        settings = Settings(
            _env_file=None,
            port=0,
            # Texts are split.
            api_keys=KEY if tenant == UNNAMED else f"not-{KEY}",  # type: ignore[arg-type]
            tenant_keys="" if tenant == UNNAMED else f"{tenant}:{KEY}",  # type: ignore[arg-type]
            admin_api_keys=ADMIN_KEY,  # type: ignore[arg-type]
            data_dir=folder,
        )
        self._running = Running(settings, self._switches)
        self._is_in_memory = folder is None
        self._is_serving = False
        self._left: Change | None = None
        self._sales: list[Sale] = []
        self._thread = ExitStack()
        self._portal: BlockingPortal | None = None

    # -- its life --------------------------------------------------------------------------

    def __enter__(self) -> TestCentral:
        self._portal = self._thread.enter_context(start_blocking_portal())
        try:
            self.start()
            if not self.products():
                self.set_products(*self._products)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.stop()
        self._thread.close()
        self._portal = None

    async def __aenter__(self) -> TestCentral:
        return await anyio.to_thread.run_sync(self.__enter__)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        await anyio.to_thread.run_sync(self.__exit__, kind, error, at)

    @property
    def url(self) -> str:
        """Its address, the same after every restart."""
        return self._running.url

    @property
    def key(self) -> str:
        """The key that a store takes (`CENTRAL_API_KEY`)."""
        return KEY

    def stop(self) -> None:
        """Answer what is under way, and refuse connections until `start`."""
        self._end(self._running.stop)

    def kill(self) -> None:
        """Break every connection at once, as `kill -9` does, and refuse new ones until `start`."""
        self._end(self._running.kill)

    def start(self) -> None:
        """Serve again: the same products, feed and remembered keys, without faults."""
        if not self._is_serving:
            self._call(self._running.start)
            self._call(self._resume)
            self._is_serving = True

    def restart(self) -> None:
        self.stop()
        self.start()

    def reset(self, products: Sequence[Row] | None = None) -> None:
        """Begin anew between two tests: these products, or those of the beginning, in a new
        generation; no faults, the switches of the beginning, no sales, no remembered keys. One that
        was stopped serves again."""
        self.start()
        self.clear_faults()
        self.switch(**self._switches.model_dump())
        self._admin("POST", "wipe")
        self._products = self._products if products is None else list(products)
        self.set_products(*self._products)
        self._sales.clear()

    # -- products and sales ----------------------------------------------------------------

    def products(self) -> dict[str, Row]:
        """Return all products by id, whole, whatever the switches leave out of answers."""
        ledger = self._ledger
        return {row["productId"]: row for row in self._call(ledger.everything)}

    def product(self, product_id: str) -> Row | None:
        return self.products().get(product_id)

    def set_products(self, *products: Row) -> None:
        """Create these products, or change the named attributes of those that exist."""
        held = self.products()
        given = {product.get("productId"): product for product in products}
        new = [product for name, product in given.items() if name not in held]
        changed = [product for name, product in given.items() if name in held]
        if new:
            self._admin("POST", "products/create", {"products": new})
        if changed:
            self._admin("PUT", "products/set", {"products": changed})

    def delete_products(self, *product_ids: str) -> None:
        self._admin("DELETE", "products/delete", {"productIds": list(product_ids)})

    def sell(self, product_id: str, quantity: int = 1, *, store_id: str = "elsewhere") -> Row:
        """Sell as another store does; a negative quantity is a return. Return the product after it.
        Raises ValueError if Central refuses it."""
        row = self.product(product_id)
        update = {
            "productId": product_id,
            "delta": -quantity,
            "version": 1 if row is None else row["version"],
            "idempotencyKey": f"{store_id}-{new_name()}",
            "storeId": store_id,
        }
        self._ask("POST", "/v1/inventory/updates", KEY, update)
        after = self.product(product_id)
        assert after is not None, "it was just sold"
        return after

    def sales(self) -> list[Sale]:
        """Return the applied writes of all stores since the beginning or the last reset, oldest
        first."""
        return list(self._sales)

    # -- trouble ---------------------------------------------------------------------------

    def fault(self, kind: str, **options: Any) -> None:
        """Set a fault, or do what is done once: `fault("drop", when="after", routes=["updates"],
        times=1)`, `fault("status", status=503)`, `fault("lie", product_id=…, attributes={…})`."""
        named = {to_camel(name): value for name, value in options.items()}
        self._admin("POST", "faults", {"kind": kind} | named)

    def clear_faults(self) -> None:
        self._admin("DELETE", "faults")

    def switch(self, **switches: Any) -> None:
        """Become another Central: `switch(without=["hold"], page_limit=50)`."""
        named = {to_camel(name): value for name, value in switches.items()}
        self._admin("PUT", "switches", named)

    # -- how -------------------------------------------------------------------------------

    @property
    def _ledger(self) -> Ledger:
        return self._running.ledger_of(self._tenant)

    def _admin(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> None:
        self._ask(method, f"/v1/admin/{path}", ADMIN_KEY, body)

    def _ask(self, method: str, path: str, key: str, body: Mapping[str, Any] | None) -> None:
        """Have Central answer a request that no fault strikes. Raises ValueError."""
        request = Request(
            method, path, key, b"" if body is None else orjson.dumps(body, default=list)
        )
        reply = self._call(partial(self._running.reply, request, tenant=self._tenant))
        answer = orjson.loads(reply.body)
        if reply.status >= 400:
            raise ValueError(answer.get("errorMessage") or answer["message"])
        refused = [each for each in answer.get("results", ()) if not each["success"]]
        if refused:
            raise ValueError("; ".join(f"{r['productId']}: {r['errorMessage']}" for r in refused))

    def _call(self, function: Any, *arguments: Any) -> Any:
        """Call a function, or await a coroutine function, in the thread of its event loop."""
        if self._portal is None:
            raise RuntimeError("use it in a `with` or `async with` block")
        return self._portal.call(function, *arguments)

    def _end(self, end: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if not self._is_serving:
            return
        self._is_serving = False
        if self._is_in_memory:
            self._left = self._call(self._ledger.backup)
        self._call(end)

    def _resume(self) -> None:
        """Go on with the ledger that a stop left, and note what is sold from now on."""
        ledger = self._ledger
        if self._left is not None:
            ledger.restore(self._left, self._left["generation"])
            self._left = None
        keep = ledger.record

        def record(change: Change) -> None:
            self._note_sale(ledger, change)
            keep(change)

        ledger.record = record

    def _note_sale(self, ledger: Ledger, change: Change) -> None:
        """Note what a change, which is not applied yet, sells."""
        event = change.get("event", {})
        if "idempotencyKey" not in event:
            return
        before = ledger.read(event["productId"])
        assert before is not None, "only what is there is sold"
        self._sales.append(
            Sale(
                event["productId"],
                event["data"]["available"] - before["available"],
                event["version"],
                event["storeId"],
                event["idempotencyKey"],
            )
        )


def _switches_of(like: str | None, changes: Mapping[str, Any]) -> Switches:
    if like is not None and like not in LIKE:
        raise ValueError(f"like={like!r}: no such Central is known, only {', '.join(LIKE)}")
    base = Switches() if like is None else LIKE[like]
    return Switches.model_validate(base.model_dump() | dict(changes))
