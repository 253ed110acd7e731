"""A Central that answers what a script tells it: products, a feed, answers to writes.

It is written by hand, and not the stub, so that versions, times and bodies are those of the
recordings, byte by byte.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote, unquote

import httpx
import orjson

PAGES = "/v1/inventory"
EVENTS = "/v1/inventory/events"
UPDATES = "/v1/inventory/updates"

Json = dict[str, Any]


class CentralAnswer(NamedTuple):
    """One answer of Central."""

    status: int
    body: Any
    headers: Mapping[str, str] = MappingProxyType({})


FAILS = CentralAnswer(500, {"code": "internal_error", "message": "Central stumbled", "details": []})
REFUSES_KEY = CentralAnswer(401, {"code": "unauthorized", "message": "unknown key", "details": []})
NO_CATALOGUE = CentralAnswer(200, {"hello": "world"})


class ScriptedCentral(httpx.AsyncBaseTransport):
    """`is_away`: it cannot be reached; `loses_writes`: no write arrives. `publishes`: applied
    writes put their event on the feed. `instead`: answers by path, in place of the truth.
    `answers`: those of the next writes, one by one; None: it never answers. `pages_wait`: pages of
    the catalogue are not answered until it is set."""

    def __init__(self, *products: Json) -> None:
        self.rows: dict[str, Json] = {}
        self.feed: list[Json] = []
        self.generation = "g-1"
        self.is_away = False
        self.loses_writes = False
        self.publishes = True
        self.instead: dict[str, CentralAnswer] = {}
        self.answers: deque[CentralAnswer | None] = deque()
        self.pages_wait = asyncio.Event()
        self.pages_wait.set()
        self.asked: list[str] = []
        self._news = asyncio.Event()
        for row in products:
            self.create(row)

    def copy(self) -> ScriptedCentral:
        """Return one with the same products and feed, for another run."""
        other = ScriptedCentral()
        other.rows, other.feed = dict(self.rows), list(self.feed)
        other.instead = dict(self.instead)
        return other

    # -- what happens at Central -----------------------------------------------------------

    def create(self, row: Json) -> None:
        self.rows[row["productId"]] = dict(row)
        self.publish("product_created", row)

    def set(self, product_id: str, **attributes: Any) -> None:
        row = self.rows[product_id]
        after = row | attributes | {"version": row["version"] + 1, "lastUpdated": self._moment()}
        self.rows[product_id] = after
        self.publish("inventory_updated", after)

    def delete(self, product_id: str) -> None:
        row = self.rows.pop(product_id)
        self.publish("product_deleted", row | {"version": row["version"] + 1})

    def publish(self, event_type: str, row: Json, **fields: Any) -> None:
        """Put an event on the feed."""
        event = {
            "offset": len(self.feed) + 1,
            "timestamp": self._moment(),
            "eventType": event_type,
            "productId": row["productId"],
            "version": row["version"],
            "data": row,
        }
        self.feed.append(event | fields)
        self._wake()

    def go_away(self) -> None:
        self.is_away = True
        self._wake()

    def fail_to_read(self, *product_ids: str) -> None:
        for product_id in product_ids:
            self.instead[f"{PAGES}/{quote(product_id, safe='')}"] = FAILS

    def _wake(self) -> None:
        """Polls that are held look again."""
        self._news.set()
        self._news = asyncio.Event()

    def _moment(self) -> str:
        minutes, seconds = divmod(len(self.feed), 60)
        return f"2026-03-01T09:{minutes:02}:{seconds:02}Z"

    # -- what is asked of it ---------------------------------------------------------------

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        target = request.url.raw_path.decode()
        body = await request.aread()
        self.asked.append(f"{request.method} {target} {body.decode()}".rstrip())
        said = await self._answer(target, body)
        headers = {"Content-Type": "application/json", "X-Feed-Generation": self.generation}
        return httpx.Response(
            said.status, content=orjson.dumps(said.body), headers={**headers, **said.headers}
        )

    async def _answer(self, target: str, body: bytes) -> CentralAnswer:
        self._check_connection()
        path, _, query_string = target.partition("?")
        query = dict(parse_qsl(query_string))
        if path in self.instead:
            return self.instead[path]
        if path == EVENTS:
            return await self._events(int(query["offset"]), int(query["limit"]), query["wait"])
        if path == UPDATES:
            return await self._write(orjson.loads(body))
        if path == PAGES:
            await self.pages_wait.wait()
            self._check_connection()
            return self._page(int(query["offset"]), int(query["limit"]))
        return self._product(unquote(path.removeprefix(f"{PAGES}/")))

    def _check_connection(self) -> None:
        if self.is_away:
            raise httpx.ConnectError("nobody listens there")

    async def _events(self, offset: int, limit: int, wait: str) -> CentralAnswer:
        offset = max(offset, 1)
        if len(self.feed) < offset:
            with suppress(TimeoutError):
                async with asyncio.timeout(float(wait)):
                    await self._news.wait()
            self._check_connection()
        events = self.feed[offset - 1 : offset - 1 + limit]
        following = offset + len(events)
        more = following <= len(self.feed)
        return CentralAnswer(200, {"events": events, "nextOffset": following, "hasMore": more})

    def _page(self, offset: int, limit: int) -> CentralAnswer:
        rows = [self.rows[product_id] for product_id in sorted(self.rows)]
        shown = rows[offset : offset + limit]
        hints = {"total_count": len(rows), "has_more": offset + limit < len(rows)}
        return CentralAnswer(
            200, {"products": shown, "pagination": hints, "eventOffset": len(self.feed)}
        )

    def _product(self, product_id: str) -> CentralAnswer:
        if product_id not in self.rows:
            error = {"code": "product_not_found", "message": "no such product", "details": []}
            return CentralAnswer(404, error)
        return CentralAnswer(200, self.rows[product_id])

    # -- writes ----------------------------------------------------------------------------

    async def _write(self, payload: Json) -> CentralAnswer:
        if self.loses_writes:
            raise httpx.ConnectError("the line to Central is cut")
        if self.answers:
            said = self.answers.popleft()
            return said or await asyncio.get_running_loop().create_future()
        if "updates" in payload:
            results = [self._update(each, payload["storeId"]) for each in payload["updates"]]
            return CentralAnswer(200, {"results": results})
        result = self._update(payload, payload["storeId"])
        return CentralAnswer(200 if result["applied"] else 409, result)

    def _update(self, update: Json, store_id: str) -> Json:
        product_id = update["productId"]
        row = self.rows.get(product_id)
        if row is None:
            return refusal(product_id, "product_not_found")
        if row["version"] != update["version"]:
            return refusal(product_id, "version_conflict", row)
        if row["available"] + update["delta"] < 0:
            return refusal(product_id, "insufficient_inventory", row)
        after = row | {
            "available": row["available"] + update["delta"],
            "version": row["version"] + 1,
            "lastUpdated": self._moment(),
        }
        self.rows[product_id] = after
        if self.publishes:
            named = {"storeId": store_id, "idempotencyKey": update["idempotencyKey"]}
            self.publish("inventory_updated", after, **named)
        return {
            "productId": product_id,
            "newQuantity": after["available"],
            "newVersion": after["version"],
            "applied": True,
            "lastUpdated": after["lastUpdated"],
        }


def refusal(product_id: str, error_type: str, row: Json | None = None) -> Json:
    """Central's answer to a write that it does not apply."""
    state = {"newQuantity": row["available"], "newVersion": row["version"]} if row else {}
    said = {"errorType": error_type, "errorMessage": f"Central says {error_type}"}
    return {"productId": product_id, "applied": False} | state | said
