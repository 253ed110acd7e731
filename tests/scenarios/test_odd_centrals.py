"""Centrals whose products tell more than an answer to a write does, or more in one place than in
another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import orjson
import pytest

from store_cache.catalogue.apply import CROSSING_SECONDS
from store_cache.writes.write import Adjustment
from tests.harness.central import LedgerTransport
from tests.harness.clock import Clock
from tests.harness.store import RunningStore, a_store


class TellingMore(LedgerTransport):
    """`tells`: what it adds to a product, by the address that was asked for."""

    def __init__(self, tells: Callable[[str, dict[str, Any]], dict[str, Any]]) -> None:
        super().__init__(Clock(), "P-1", "A/1")
        self._tells = tells

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        value = self._with_more(request.url.raw_path.decode(), orjson.loads(response.content))
        headers = {k: v for k, v in response.headers.items() if k.lower() != "content-length"}
        return httpx.Response(response.status_code, content=orjson.dumps(value), headers=headers)

    def _with_more(self, target: str, value: Any) -> Any:
        if isinstance(value, list):
            return [self._with_more(target, each) for each in value]
        if not isinstance(value, dict):
            return value
        value = {name: self._with_more(target, each) for name, each in value.items()}
        return value | self._tells(target, value) if "name" in value else value


def counts_sales(_: str, product: dict[str, Any]) -> dict[str, Any]:
    """Each write changes one more attribute."""
    return {"sales": product["version"] - 1}


def weighs_single_products(target: str, _: dict[str, Any]) -> dict[str, Any]:
    """A product that is asked for by itself has an attribute that its events lack."""
    return {"weight": 3} if "/inventory/P-" in target else {}


def requests(store: RunningStore, begin: str) -> int:
    return sum(target.startswith(begin) for target in store.central.asked)


def row(store: RunningStore, product_id: str) -> dict[str, Any]:
    assert store.parts.writer.catalogue is not None
    body = store.parts.writer.catalogue.get(product_id)
    assert body is not None
    value: dict[str, Any] = orjson.loads(body)
    return value


@pytest.mark.parametrize("product_id", ["P-1", "A/1"])
async def test_writes_that_change_another_attribute_need_no_refetch(product_id: str) -> None:
    """[W7] [V1] The event of a write shows the attribute, and completes the answer. The product
    A/1 can only be listed: a refetch of it would end in a full sync."""
    async with a_store(central=TellingMore(counts_sales)) as store:
        await store.until("live")
        await asyncio.sleep(CROSSING_SECONDS + 1)  # from when the products were created
        store.central.asked.clear()
        for number in range(20):
            sale = Adjustment(product_id, 1, f"sale-{number}")
            assert 200 == (await store.parts.forwarder.adjust(sale)).status
            store.central.wake()
            await asyncio.sleep(0.1)
            told = {"available": 11 + number, "sales": number + 1}
            assert told.items() <= row(store, product_id).items()
        await asyncio.sleep(90.0)
        catalogue = store.parts.writer.catalogue

        assert 0 == requests(store, "/v1/inventory/P-1") + requests(store, "/v1/inventory/A")
        assert 0 == requests(store, "/v1/inventory?")
        assert catalogue is not None
        assert {} == catalogue.overrides


@pytest.mark.parametrize("pause_seconds", [0.3, 1.0, 5.0])
async def test_a_product_that_sells_all_the_time_is_followed(pause_seconds: float) -> None:
    """[W7] [V2] A refetch shows an attribute that no event has. The events after it are applied for
    all that, however often the product is sold elsewhere."""
    async with a_store(central=TellingMore(weighs_single_products)) as store:
        await store.until("live")
        await store.parts.refetcher.refresh("P-1")
        behind = 0
        for _ in range(100):
            store.central.sell("P-1", 1)
            await asyncio.sleep(pause_seconds)
            behind += row(store, "P-1")["version"] != store.central.stock("P-1")[1]
        catalogue = store.parts.writer.catalogue

        assert 0 == behind
        assert requests(store, "/v1/inventory/P-1") <= 3
        assert catalogue is not None
        assert {} == catalogue.overrides
