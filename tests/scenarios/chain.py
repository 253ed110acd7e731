"""The chain's Central in a scenario: a real stub on a port that stays, its ledger in a folder.

Knows: how to run it, replace its ledger while nobody can reach it, and change what it holds.
Refuses to know: the stores.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from central_stub.ledger import Ledger, Update
from central_stub.server import Running
from central_stub.settings import Settings
from central_stub.switches import Switches
from tests.scenarios.clock import Clock

Row = dict[str, Any]

ADMIN = {"X-API-Key": "admin-demo"}


def product(number: int, **attributes: Any) -> Row:
    return {"productId": f"P-{number:03}", "name": f"Product {number}", "available": 1000} | (
        attributes
    )


class Central:
    """`switches` are those that it starts with; a restart has them again. `seed` decides which
    events come late, where it does not keep them in order."""

    def __init__(
        self, folder: Path, switches: Switches, clock: Clock, *, port: int = 0, seed: int = 7
    ) -> None:
        self.switches = switches
        self._seed = seed
        self._clock = clock
        self._folder = folder
        self._running = self._made(port)
        self._http = httpx.AsyncClient(headers=ADMIN, trust_env=False, verify=False, timeout=10.0)
        self._sales = 0

    def _made(self, port: int) -> Running:
        settings = Settings(_env_file=None, port=port, data_dir=self._folder)
        return Running(settings, self.switches, seed=self._seed, clock=self._clock.now)

    # -- its life --------------------------------------------------------------------------

    async def start(self, switches: Switches | None = None) -> None:
        """Serve at the address that it had before, if it had one."""
        if switches is not None:
            self.switches = switches
            self._running = self._made(self.port)
        await self._running.start()

    async def stop(self) -> None:
        await self._running.stop()

    async def kill(self) -> None:
        """As `kill -9` does."""
        await self._running.kill()

    async def close(self) -> None:
        await self._http.aclose()
        await self.stop()

    @asynccontextmanager
    async def out_of_sight(self, switches: Switches | None = None) -> AsyncIterator[Central]:
        """Stop, and give the same ledger at another address that no store knows; then start
        again at the old one: what happened meanwhile happened at once."""
        await self.stop()
        hidden = Central(self._folder, switches or self.switches, self._clock)
        await hidden.start()
        try:
            yield hidden
        finally:
            await hidden.close()
        await self.start(switches)

    @property
    def url(self) -> str:
        return self._running.url

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def ledger(self) -> Ledger:
        return self._running.ledger

    @property
    def held_polls(self) -> int:
        return self._running.held_polls

    # -- what it holds ---------------------------------------------------------------------

    def rows(self) -> dict[str, Row]:
        return {row["productId"]: row for row in self.ledger.everything()}

    def stock(self, product_id: str) -> int:
        row = self.ledger.read(product_id)
        assert row is not None
        return int(row["available"])

    async def create(self, *products: Row) -> None:
        await self._admin("POST", "products/create", {"products": list(products)})

    async def set(self, product_id: str, **attributes: Any) -> None:
        await self._admin(
            "PUT", "products/set", {"products": [{"productId": product_id} | attributes]}
        )

    async def delete(self, *product_ids: str) -> None:
        await self._admin("DELETE", "products/delete", {"productIds": list(product_ids)})

    async def sell(self, product_id: str, delta: int) -> None:
        """A write of another shop's, which no limit or fault of the stores' line strikes."""
        row = self.ledger.read(product_id)
        assert row is not None
        self._sales += 1
        key = f"elsewhere-{id(self)}-{self._sales}"
        update = Update(product_id, delta, row["version"], key, "elsewhere")
        assert self.ledger.update(update, self._clock.now())["applied"]
        await self._admin("GET", "switches")  # whoever waits for news is told after an answer

    # -- what can be done to it ------------------------------------------------------------

    async def fault(self, kind: str, **options: Any) -> None:
        await self._admin("POST", "faults", {"kind": kind} | options)

    async def struck(self) -> int:
        """How often the faults that are set have struck."""
        answer = await self._admin("GET", "faults")
        return sum(fault["struck"] for fault in answer["faults"])

    async def clear_faults(self) -> None:
        await self._admin("DELETE", "faults")

    async def switch(self, **switches: Any) -> None:
        """Be another Central from now on; a minute of its limit begins anew."""
        await self._admin("PUT", "switches", switches)

    async def backup(self) -> Any:
        return await self._admin("GET", "backup")

    async def restore(self, backup: Any, *, keep_generation: bool = False) -> None:
        body = {"backup": backup, "keepGeneration": keep_generation}
        await self._admin("POST", "restore", body)

    async def wipe(self, *, keep_generation: bool = False) -> None:
        await self._admin("POST", "wipe", {"keepGeneration": keep_generation})

    async def _admin(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        response = await self._http.request(method, f"{self.url}/v1/admin/{path}", json=body)
        response.raise_for_status()
        answer = response.json()
        assert not answer.get("summary", {}).get("failed"), answer
        return answer
