"""A Central that may be told to attack, and sees what a store asks of it."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import unquote

import orjson

from tests.harness.hostile_central import HostileCentral, Query, Route, event, row

PRODUCTS = 61


class WatchedCentral(HostileCentral):
    """Holds every product that it is asked for, and applies every write.

    While `may_answer` is not set, it holds writes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rows = {f"P-{number}": row(f"P-{number}") for number in range(1, PRODUCTS + 1)}
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.writing = 0
        self.most_writing = 0

    async def _right_answer(self, route: Route, path: str, query: Query, body: bytes) -> Any:
        if route is Route.PRODUCT:
            product_id = unquote(path.rpartition("/")[2])
            return self.rows.get(product_id) or row(product_id)
        if route is not Route.UPDATES:
            return await super()._right_answer(route, path, query, body)
        self.writing += 1
        self.most_writing = max(self.writing, self.most_writing)
        try:
            await self.may_answer.wait()
        finally:
            self.writing -= 1
        return self._applied(**orjson.loads(body))

    def _applied(self, *, productId: str, version: int, **_: Any) -> dict[str, Any]:  # noqa: N803
        held = self.rows.get(productId)
        if held is None or held["version"] <= version:
            told = row(productId, version=version + 1, available=6)
            self.events.append(event(self.next_offset, productId, version=version + 1, data=told))
            self.rows[productId] = told
        return {
            "productId": productId,
            "applied": True,
            "newQuantity": 6,
            "newVersion": version + 1,
            "lastUpdated": "2026-11-20T14:39:43.653Z",
        }
