"""A client of a Central: as over HTTP, without a network, with a clock of its own."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, Protocol

import orjson

from central_stub.catalogue import Row
from central_stub.central import Central, Held
from central_stub.faults import Faults
from central_stub.ledger import Ledger
from central_stub.switches import Switches
from central_stub.tenants import AccessKeys
from central_stub.wire import Reply, Request
from tests.harness.postgres import Postgres, a_central

NOON = 1_750_000_000.0


class Answered(NamedTuple):
    status: int
    body: Any
    headers: dict[str, str]
    text: str


class AnyCentral(Protocol):
    def answer(self, request: Request, now: float) -> Reply | Held: ...
    def poll(self, held: Held, now: float) -> Reply | None: ...
    def release(self, held: Held, now: float) -> Reply: ...


class AnyLedger(Protocol):
    @property
    def head(self) -> int: ...
    def read(self, product_id: str) -> Row | None: ...
    def digest(self, buckets: int) -> tuple[list[int], list[str]]: ...


class Asker:
    """Sends requests to a Central at the time `now`."""

    central: AnyCentral
    ledger: AnyLedger

    def __init__(
        self,
        switches: Switches,
        postgres: Postgres | None = None,
        *,
        store_ids: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        self.now = NOON
        keys = AccessKeys(["demo", *(store_ids or {})], ["admin-demo"], store_ids or {})
        names = iter(f"g-{number}" for number in range(1, 100))
        if postgres is not None:
            in_database, self.ledger = a_central(postgres, switches, keys, lambda: next(names))
            self.central, self.struck = in_database, in_database.strike
            return
        faults = Faults(lambda: 0.5)
        ledger = Ledger(generation=next(names), switches=switches)
        self.ledger, self.struck = ledger, faults.strike
        self.central = Central(ledger, keys=keys, faults=faults, new_name=lambda: next(names))

    def raw(self, method: str, target: str, body: bytes = b"", key: str = "demo") -> Reply | Held:
        asked = Request(method, target, api_key=key, body=body, address="10.0.0.1")
        return self.central.answer(asked, self.now)

    def ask(self, method: str, target: str, body: Any = None, *, key: str = "demo") -> Answered:
        sent = b"" if body is None else orjson.dumps(body)
        reply = self.raw(method, target, sent, key)
        assert isinstance(reply, Reply)
        is_json = reply.content_type == "application/json"
        parsed = orjson.loads(reply.body) if is_json and reply.body else None
        return Answered(reply.status, parsed, dict(reply.headers), reply.body.decode())

    def get(self, target: str) -> Answered:
        return self.ask("GET", target)

    def admin(self, method: str, call: str, body: Any = None) -> Answered:
        return self.ask(method, f"/v1/admin/{call}", body, key="admin-demo")

    def create(self, *products: dict[str, Any]) -> Answered:
        return self.admin("POST", "products/create", {"products": list(products)})

    def sell(self, product_id: str, delta: int, version: int, key: str) -> Answered:
        update = {"productId": product_id, "delta": delta, "version": version}
        named = {"storeId": "s1", "idempotencyKey": key}
        return self.ask("POST", "/v1/inventory/updates", update | named)


AskerOf = Callable[[Switches], Asker]
