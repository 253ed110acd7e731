"""The HTTP APIs of the two programs, as tests call them: an admin of Central, and a till.

Programs that tests run, in process or as processes of their own, are clients of themselves.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from tests.harness.http import Reply

Row = dict[str, Any]

CENTRAL_KEY = "demo"
CENTRAL_ADMIN_KEY = "admin-demo"
TILL_KEY = "till-secret"
STORE_ADMIN_KEY = "office-secret"
INVENTORY = "/v1/store/inventory"
LOAD_ROWS = 500


class Client(ABC):
    """A session with one program. `address`: where requests come from; Central limits the
    requests of each address by itself."""

    key: str
    address: str | None = None

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    @property
    @abstractmethod
    def url(self) -> str: ...

    async def call(self, method: str, path: str, **options: Any) -> Reply:
        """Raises aiohttp.ClientError. `options` are those of aiohttp's `request`."""
        url = URL(f"{self.url}{path}", encoded=True)
        async with self._opened().request(method, url, **options) as response:
            headers = CIMultiDict(response.headers)
            return Reply(response.status, headers, await response.read())

    async def close_client(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _opened(self) -> aiohttp.ClientSession:
        """Made when first used: it belongs to the running loop."""
        if self._session is None:
            local = None if self.address is None else (self.address, 0)
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(local_addr=local),
                headers={"X-API-Key": self.key},
                timeout=aiohttp.ClientTimeout(total=600.0),
            )
        return self._session


class CentralAdmin(Client):
    """What an admin can do to Central."""

    key = CENTRAL_ADMIN_KEY

    async def create(self, *products: Row) -> None:
        for start in range(0, len(products), LOAD_ROWS):
            body = {"products": products[start : start + LOAD_ROWS]}
            await self.admin("POST", "products/create", body)

    async def set(self, product_id: str, **attributes: Any) -> None:
        await self.admin(
            "PUT", "products/set", {"products": [{"productId": product_id} | attributes]}
        )

    async def delete(self, *product_ids: str) -> None:
        await self.admin("DELETE", "products/delete", {"productIds": list(product_ids)})

    async def fault(self, kind: str, **options: Any) -> None:
        await self.admin("POST", "faults", {"kind": kind} | options)

    async def struck(self) -> int:
        """How often the faults that are set have struck."""
        answer = await self.admin("GET", "faults")
        return sum(fault["struck"] for fault in answer["faults"])

    async def clear_faults(self) -> None:
        await self.admin("DELETE", "faults")

    async def switch(self, **switches: Any) -> None:
        """Become another Central; a minute of its limit begins anew."""
        await self.admin("PUT", "switches", switches)

    async def backup(self) -> Any:
        """Its whole state: `products`, `events`, and more."""
        return await self.admin("GET", "backup")

    async def restore(self, backup: Any, *, keep_generation: bool = False) -> None:
        await self.admin("POST", "restore", {"backup": backup, "keepGeneration": keep_generation})

    async def wipe(self, *, keep_generation: bool = False) -> None:
        await self.admin("POST", "wipe", {"keepGeneration": keep_generation})

    async def rows(self) -> dict[str, Row]:
        """All products, whole, whatever its switches leave out of answers."""
        return {row["productId"]: row for row in (await self.backup())["products"]}

    async def admin(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        reply = await self.call(method, f"/v1/admin/{path}", json=body)
        answer = checked(reply)
        summary = answer.get("summary", {})
        assert not any(count for name, count in summary.items() if name.startswith("failed")), (
            answer
        )
        return answer


class StoreClient(Client):
    """What a till can ask of a store."""

    key = TILL_KEY

    async def get(self, product_id: str, **headers: str) -> Reply:
        return await self.call("GET", path_of(product_id), headers=headers)

    async def row(self, product_id: str) -> Row | None:
        reply = await self.get(product_id)
        return None if reply.status == 404 else dict(checked(reply))

    async def rows(self) -> dict[str, Row]:
        """All products, walked page by page."""
        held: dict[str, Row] = {}
        after: dict[str, str] = {}
        while True:
            page = checked(await self.call("GET", INVENTORY, params={"limit": "200"} | after))
            held |= {row["productId"]: row for row in page["products"]}
            if not page["pagination"]["hasMore"]:
                return held
            after = {"after": page["products"][-1]["productId"]}

    async def look_up(self, *product_ids: str) -> Reply:
        return await self.call("POST", f"{INVENTORY}/lookup", json={"productIds": product_ids})

    async def update(self, product_id: str, delta: int, version: int, key: str) -> Reply:
        body = {"productId": product_id, "delta": delta, "version": version, "idempotencyKey": key}
        return await self.call("POST", f"{INVENTORY}/updates", json=body)

    async def adjust(self, product_id: str, delta: int, key: str) -> Reply:
        path = f"{path_of(product_id)}/inventory"
        headers = {"Idempotency-Key": key}
        return await self.call("PATCH", path, json={"quantityChange": delta}, headers=headers)

    async def force(self, **params: str) -> Reply:
        headers = {"X-API-Key": STORE_ADMIN_KEY}
        return await self.call("POST", "/v1/store/sync/force", params=params, headers=headers)

    async def status(self) -> dict[str, Any]:
        return dict(checked(await self.call("GET", "/v1/store/sync/status")))

    async def state(self) -> str:
        return str((await self.status())["state"]["name"])

    async def health(self) -> dict[str, Any]:
        return dict(checked(await self.call("GET", "/health")))

    async def is_ready(self) -> bool:
        """Whether there is a catalogue to read."""
        return (await self.call("GET", "/ready")).status == 200

    async def reasons(self) -> list[str]:
        """Why each full sync of this process ran, the first one first."""
        syncs = (await self.status())["fullSyncs"]
        return ["; ".join(sync["reasons"]) for sync in reversed(syncs)]


def path_of(product_id: str) -> str:
    return f"{INVENTORY}/{quote(product_id, safe='')}"


def checked(reply: Reply) -> Any:
    """The JSON of a successful answer."""
    assert reply.status < 300, (reply.status, reply.body)
    return reply.json
