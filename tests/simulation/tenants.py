"""Two chains on one Central, with the same product ids, store ids and idempotency keys.

Whoever has a key must be answered from its own chain alone. What a chain has bears its name: each
row, each event and each generation. The checks look for the other's name, and for keys that the
chain itself never used; they ask nothing of what keeps the two apart.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from central_stub import tenants
from central_stub.tenants import UNNAMED, AccessKeys
from central_stub.wire import Refused, Reply, Request, error_reply
from tests.simulation.central import KEY, SimulatedCentral, key_of
from tests.simulation.connection import ConnectionLost, request_bytes
from tests.simulation.loop import pause
from tests.simulation.store import SimulatedStore

CHAINS = ("acme", "globex")
PATHS = ("?limit=50", "/events?offset=1", "/P01", "/digest")
SALE = {"productId": "P01", "delta": -1, "version": 1, "idempotencyKey": "store-s1-t0-0"}
MEAN_SECONDS = 2.0
"""Between two calls of a stranger."""

FORBIDDEN = 403


@dataclass(frozen=True)
class Chain:
    """`find` takes what is wrong."""

    name: str
    central: SimulatedCentral
    store: SimulatedStore
    find: Callable[[str], None]


class SharedCentral:
    """Has each request answered for its tenant, by the stub's own choice, and reads the answers."""

    def __init__(self) -> None:
        self._chains: dict[str, Chain] = {}
        self._keys = {UNNAMED: AccessKeys((KEY,), ())}
        self._rows: dict[str, dict[str, bytes]] = {}
        self._revisions: dict[str, int] = {}
        self.checks = 0

    def add(self, chain: Chain) -> None:
        self._chains[chain.name] = chain
        self._keys[chain.name] = chain.central.central.keys

    async def answer(self, request: Request, named: str | None) -> Reply:
        """Return Central's answer when it comes. `named`: the tenant in the request's header."""
        asker = next((each for each in CHAINS if request.api_key == key_of(each)), UNNAMED)
        try:
            tenant = tenants.tenant_of(request.api_key, named, self._keys)
            reply = await self._chains[tenant].central.answer(request)
        except Refused as refused:
            reply = error_reply(refused, self._chains[asker].central.ledger.switches)
        self._read(self._chains[asker], request, reply)
        return reply

    # -- what an answer tells --------------------------------------------------------------

    def _read(self, chain: Chain, request: Request, reply: Reply) -> None:
        told = reply.body + orjson.dumps(dict(reply.headers))
        if (stranger := _other_name(chain.name, told)) is not None:
            chain.find(f"{request.method} {request.target} tells {chain.name} of {stranger}")
        if request.method == "POST" and reply.status < 500:
            self._read_answers(chain, orjson.loads(request.body), orjson.loads(reply.body))

    def _read_answers(self, chain: Chain, asked: Any, reply: Any) -> None:
        history = chain.central.history
        answers = reply.get("results", [reply])
        for update, answer in zip(asked.get("updates", [asked]), answers, strict=False):
            key = update["idempotencyKey"]
            if answer.get("applied") and not history.ever_applied[key]:
                chain.find(f"{chain.name} is told that {key} was applied, which it never was there")
            figures = (answer.get("newVersion"), answer.get("newQuantity", 0))
            product_id = update["productId"]
            if figures[0] is not None and not history.answered(product_id, *figures):
                chain.find(f"{chain.name} is told {figures} of {product_id}, which it never was")

    # -- after every step ------------------------------------------------------------------

    def step(self) -> None:
        for chain in self._chains.values():
            self._check_central(chain)
            self._check_store(chain)

    def _check_central(self, chain: Chain) -> None:
        ledger = chain.central.ledger
        if self._revisions.get(chain.name) == ledger.revision:
            return
        self._revisions[chain.name] = ledger.revision
        self.checks += 1
        found = {row.get("chain") for row in ledger.everything()} - {chain.name}
        newest = ledger.events(max(ledger.head, ledger.oldest), 1, chain.central.now()).events
        found |= {event["data"].get("chain") for event in newest if event["data"]} - {chain.name}
        if found:
            chain.find(f"Central holds {found} for {chain.name}")

    def _check_store(self, chain: Chain) -> None:
        parts, before = chain.store.parts, self._rows.get(chain.name, {})
        catalogue = None if parts is None else parts.writer.catalogue
        if catalogue is None or catalogue.position is None:
            return
        for product_id, body in catalogue.rows.items():
            if before.get(product_id) is not body and _name_in(body) != chain.name:
                chain.find(f"the store of {chain.name} holds {body.decode()}")
        self._rows[chain.name] = dict(catalogue.rows)
        if not catalogue.position.label.startswith(chain.name):
            chain.find(f"the store of {chain.name} follows {catalogue.position}")


def _other_name(name: str, told: bytes) -> str | None:
    return next((each for each in CHAINS if each != name and each.encode() in told), None)


def _name_in(body: bytes) -> Any:
    return orjson.loads(body).get("chain")


class Stranger:
    """Asks Central and the stores, with a key of one chain, for the other one."""

    def __init__(
        self,
        shared: SharedCentral,
        chains: Mapping[str, Chain],
        note: Callable[[str], None],
        chance: random.Random,
    ) -> None:
        self._shared = shared
        self._chains = chains
        self._note = note
        self._chance = chance

    async def work(self) -> None:
        """Ask again and again, until cancelled."""
        while True:
            await pause(self._chance.expovariate(1.0 / MEAN_SECONDS))
            own, other = self._chance.sample(CHAINS, 2)
            await self._ask_central(own, other)
            await self._ask_store(own, other)

    async def _ask_central(self, own: str, other: str) -> None:
        request = Request("GET", f"/v1/inventory{self._chance.choice(PATHS)}", key_of(own))
        if self._chance.random() < 0.5:
            body = orjson.dumps(SALE)
            request = Request("POST", "/v1/inventory/updates", key_of(own), body)
        before = self._chains[other].central.ledger.revision
        reply = await self._shared.answer(request, other)
        self._note("stranger at Central")
        if reply.status != FORBIDDEN or self._chains[other].central.ledger.revision != before:
            self._chains[other].find(f"a key of {own} opens {other}: {reply.status}")

    async def _ask_store(self, own: str, other: str) -> None:
        call = request_bytes("GET", "/v1/store/inventory?limit=200", X_Tenant_ID=other)
        try:
            reply = await self._chains[own].store.connect().call(call)
        except ConnectionLost:
            return
        self._note("stranger at a store")
        if reply.status != FORBIDDEN:
            self._chains[own].find(f"the store of {own} answers {other}: {reply.status}")
