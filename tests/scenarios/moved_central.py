"""A Central in this process whose answers a test limits, breaks or rewrites."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx
import orjson

from tests.harness.central import LedgerTransport
from tests.harness.clock import Clock

Rewrite = Callable[[str, Any], Any]
"""Returns another body in place of the one that answers an address."""


class MovedCentral(LedgerTransport):
    """`limits`: how many requests whose address contains a word are still refused with 429, and for
    how many seconds. `broken`: how many are still answered by 503. `unrouted`: what a proxy answers
    with a 404 of its own. `other_generation`: part of the addresses that are answered as by a feed
    that has replaced this one. `rewrite`: see there."""

    def __init__(self, *product_ids: str) -> None:
        super().__init__(Clock(), *product_ids)
        self.limits: dict[str, tuple[int, int]] = {}
        self.broken: Counter[str] = Counter()
        self.unrouted: set[str] = set()
        self.other_generation = ""
        self.rewrite: Rewrite = lambda _, body: body

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        target = request.url.raw_path.decode()
        for word, (times, seconds) in self.limits.items():
            if times and word in target:
                self.limits[word] = (times - 1, seconds)
                return httpx.Response(429, headers={"Retry-After": str(seconds)})
        for word, times in self.broken.items():
            if times and word in target:
                self.broken[word] -= 1
                return httpx.Response(503)
        if any(word in target for word in self.unrouted):
            return httpx.Response(404, html="<h1>Not Found</h1>")
        response = await super().handle_async_request(request)
        if response.status_code != 200:
            return response
        body = self.rewrite(target, orjson.loads(response.content))
        headers = {n: v for n, v in response.headers.items() if n.lower() != "content-length"}
        if self.other_generation and self.other_generation in target:
            headers["x-feed-generation"] = "another"
        return httpx.Response(200, content=orjson.dumps(body), headers=headers)

    def lie(self, product_id: str, **attributes: Any) -> None:
        self.ledger.lie(product_id, attributes)

    def asked_for(self, word: str) -> int:
        return sum(word in target for target in self.asked)
