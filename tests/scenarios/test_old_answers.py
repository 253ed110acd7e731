"""A till repeats a write of unknown outcome long after it was sent."""

from __future__ import annotations

import asyncio

import httpx
import orjson
import pytest

from central_stub.rules import Update
from central_stub.switches import Switches
from store_cache.catalogue.apply import CROSSING_SECONDS
from store_cache.writes.write import Write, WriteError
from tests.harness.central import LedgerTransport
from tests.harness.clock import NOON, Clock
from tests.harness.store import RunningStore, a_store

SALE = Write("P-1", -3, 1, "sale-1")


class LosingAnswers(LedgerTransport):
    """`loses`: the answer to a write is lost on its way. `is_unreadable`: single products cannot
    be read."""

    def __init__(self) -> None:
        super().__init__(Clock())
        self.ledger.switches = Switches(unnamed_writes=True)
        self.loses = False
        self.is_unreadable = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        if self.loses and request.method == "POST":
            raise httpx.ReadError("the connection broke")
        if self.is_unreadable and "/inventory/P-" in request.url.path:
            return httpx.Response(503)
        return response

    def begin_again(self, product_id: str) -> None:
        """Delete the product, create it with 500 pieces, and let it come to version 1 again."""
        self.ledger.delete(product_id, self.clock.now())
        product = {"productId": product_id, "name": "Tea", "available": 500}
        self.ledger.create(product, self.clock.now())
        self.wake()


def shown(store: RunningStore) -> tuple[int, int]:
    assert store.parts.writer.catalogue is not None
    body = store.parts.writer.catalogue.get("P-1")
    assert body is not None
    row = orjson.loads(body)
    return row["available"], row["version"]


async def sell(store: RunningStore) -> None:
    with pytest.raises(WriteError) as unknown:
        await store.parts.forwarder.update(SALE)
    assert "central_timeout" == unknown.value.code


@pytest.mark.parametrize("is_unreadable", [False, True], ids=["read", "unreadable"])
async def test_an_old_answer_is_not_laid_over_another_incarnation(is_unreadable: bool) -> None:
    """[W6] [W3] Central applied the sale and its answer was lost. The product was deleted and
    created again, and is at the version that was sent, when the till repeats the sale after more
    than a minute: Central gives its answer of then. It is the till's answer, and not the product's
    stock."""
    async with a_store(central=(central := LosingAnswers())) as store:
        await store.until("live")
        central.loses = True
        await sell(store)
        central.loses = False
        central.begin_again("P-1")
        await asyncio.sleep(2 * CROSSING_SECONDS)
        before = shown(store)
        central.is_unreadable = is_unreadable
        answer = await store.parts.forwarder.update(SALE)

        assert (500, 1) == before
        assert (7, 2) == (answer.body["newQuantity"], answer.body["newVersion"])
        assert (500, 1) == shown(store)
        update = Update("P-1", -1, 1, "other-1", "other")
        assert central.ledger.update(update, NOON)["applied"]
        central.wake()
        central.is_unreadable = False
        await asyncio.sleep(10.0)
        assert (499, 2) == shown(store)


async def test_an_old_answer_is_shown_of_the_incarnation_that_it_was_for() -> None:
    """[W6] Nothing was deleted: the repeat is the first sending that arrives, and the next read
    shows what the till was told."""
    async with a_store(central=(central := LosingAnswers())) as store:
        await store.until("live")
        await asyncio.sleep(2 * CROSSING_SECONDS)
        central.may_answer.clear()
        await sell(store)
        central.may_answer.set()
        await asyncio.sleep(2 * CROSSING_SECONDS)
        answer = await store.parts.forwarder.update(SALE)

        assert 200 == answer.status
        assert (7, 2) == shown(store)
