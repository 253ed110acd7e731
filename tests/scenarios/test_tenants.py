"""Two chains on one Central: neither sees anything of the other, whatever happens to both.

Both use the same product ids, the same store id and the same order ids, so that whatever is mixed
up is seen: each row and each event carries the name of its chain.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import orjson
import pytest

from central_stub.server import Running
from central_stub.settings import Settings
from central_stub.wire import Request
from tests.harness.clients import path_of
from tests.harness.clock import Clock
from tests.scenarios.in_process import Store
from tests.scenarios.shop import essence, until

CHAINS = ("acme", "globex")
PRODUCTS = [f"P-{number}" for number in range(6)]
STEPS = 60


class Chains:
    """One Central, and a store of each chain."""

    def __init__(self, folder: Path, clock: Clock, seed: int) -> None:
        self.chance = random.Random(seed)
        pairs = ",".join(f"{chain}:key-of-{chain}" for chain in CHAINS)
        settings = Settings(_env_file=None, port=0, data_dir=folder / "central", tenant_keys=pairs)  # type: ignore[arg-type]
        self.central = Running(settings, seed=seed, clock=clock.now)
        self._folder, self._clock = folder, clock
        self.stores: dict[str, Store] = {}
        self.orders = 0

    async def start(self) -> None:
        await self.central.start()
        for chain in CHAINS:
            for product_id in PRODUCTS:
                await self.put(chain, product_id, available=100)
            self.stores[chain] = Store(
                self._clock,
                self.central.url,
                self._folder / chain,
                central_api_key=f"key-of-{chain}",
                tenant_id=chain,
            )
            await self.stores[chain].start()

    async def close(self) -> None:
        for store in self.stores.values():
            await store.close()
        await self.central.stop()

    async def ask(self, chain: str, method: str, path: str, body: Any) -> None:
        request = Request(method, f"/v1/admin/{path}", "admin-demo", orjson.dumps(body))
        reply = await self.central.reply(request, tenant=chain)
        assert reply.status < 400, reply.body

    async def put(self, chain: str, product_id: str, **attributes: Any) -> None:
        product = {"productId": product_id, "name": product_id, "chain": chain} | attributes
        ledger = self.central.ledger_of(chain)
        is_held = ledger.read(product_id) is not None
        method, path = ("PUT", "set") if is_held else ("POST", "create")
        await self.ask(chain, method, f"products/{path}", {"products": [product]})

    # -- what happens ----------------------------------------------------------------------

    async def step(self) -> None:
        chain, product_id = self.chance.choice(CHAINS), self.chance.choice(PRODUCTS)
        happens: list[Callable[[str, str], Awaitable[None]]] = [
            *([self._sell] * 6),
            *([self._change] * 3),
            *(self._delete, self._replace, self._fail, self._restart_store, self._restart_central),
        ]
        await self.chance.choice(happens)(chain, product_id)
        await asyncio.sleep(self.chance.choice((0.0, 0.1, 2.0)))

    async def _sell(self, chain: str, product_id: str) -> None:
        """Under an order id that the other chain uses, too."""
        self.orders += self.chance.random() < 0.5
        await self.stores[chain].call(
            "PATCH",
            f"{path_of(product_id)}/inventory",
            json={"quantityChange": -1},
            headers={"Idempotency-Key": f"order-{self.orders}"},
        )

    async def _change(self, chain: str, product_id: str) -> None:
        await self.put(chain, product_id, available=self.chance.randrange(50, 150))

    async def _delete(self, chain: str, product_id: str) -> None:
        if self.central.ledger_of(chain).read(product_id) is not None:
            await self.ask(chain, "DELETE", "products/delete", {"productIds": [product_id]})

    async def _replace(self, chain: str, _: str) -> None:
        await self.ask(chain, "POST", "faults", {"kind": "new_generation"})

    async def _fail(self, chain: str, _: str) -> None:
        fault = {"kind": "status", "status": 503, "times": self.chance.randrange(1, 5)}
        await self.ask(chain, "POST", "faults", fault)

    async def _restart_store(self, chain: str, _: str) -> None:
        await self.stores[chain].kill()
        await self.stores[chain].start()

    async def _restart_central(self, _: str, __: str) -> None:
        await self.central.kill()
        await self.central.start()

    # -- what must hold --------------------------------------------------------------------

    async def check(self) -> None:
        """Nothing of another chain is held, told or remembered."""
        for chain in CHAINS:
            ledger = self.central.ledger_of(chain)
            assert {chain} >= {row["chain"] for row in ledger.everything()}
            events = ledger.events(ledger.head, 1000, self._clock.now()).events
            assert {chain} >= {event["data"]["chain"] for event in events}
            assert {chain} >= {row["chain"] for row in (await self.held(chain)).values()}

    async def held(self, chain: str) -> dict[str, Any]:
        store = self.stores[chain]
        return await store.rows() if await store.is_ready() else {}

    async def are_in_sync(self) -> bool:
        for chain in CHAINS:
            rows = {row["productId"]: row for row in self.central.ledger_of(chain).everything()}
            if essence(await self.held(chain)) != essence(rows):
                return False
        return True


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Callable[[int], Awaitable[Chains]]]:
    async with AsyncExitStack() as stack:

        async def open_chains(seed: int) -> Chains:
            chains = Chains(tmp_path, Clock(), seed)
            stack.push_async_callback(chains.close)
            await chains.start()
            return chains

        yield open_chains


@pytest.mark.parametrize("seed", range(2))
async def test_two_tenants_never_see_each_other(
    opened: Callable[[int], Awaitable[Chains]], seed: int
) -> None:
    """Through sales, deletions, replaced Centrals, faults and kills of all programs; and in the end
    each store holds its own chain's catalogue."""
    chains = await opened(seed)
    for _ in range(STEPS):
        await chains.step()
        await chains.check()
    for chain in CHAINS:
        await chains.ask(chain, "DELETE", "faults", None)
        for (
            product_id
        ) in PRODUCTS:  # a catalogue that has lost most of its products is refused (F5)
            await chains.put(chain, product_id, available=100)
    await until(chains.are_in_sync, within_seconds=600.0)

    generations = {chains.central.ledger_of(chain).generation for chain in CHAINS}
    assert len(CHAINS) == len(generations)


async def test_a_store_with_another_tenant_s_key_gets_nothing(
    opened: Callable[[int], Awaitable[Chains]], tmp_path: Path
) -> None:
    """Central refuses what TENANT_ID says, since the key belongs to the other one."""
    chains = await opened(0)
    stranger = Store(
        Clock(),
        chains.central.url,
        tmp_path / "stranger",
        central_api_key="key-of-acme",
        tenant_id="globex",
    )
    await stranger.start()
    try:
        await asyncio.sleep(5.0)
        assert not await stranger.is_ready()
        cause = (await stranger.status())["breaker"]["cause"]
        assert "to one that it knows, which must be of the tenant globex" in cause
    finally:
        await stranger.close()
