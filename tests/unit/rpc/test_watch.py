"""`WatchProducts`: the stream of changes, as messages."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from store_cache.api.stream.streams import Streams
from store_cache.rpc.generated import inventory_pb2 as pb
from tests.unit.rpc.conftest import TILL, Shop, refusal_of

Event = pb.WatchProductsResponse.Event


class Shelf:
    """What a watcher holds who applies what comes."""

    def __init__(self, messages: Any) -> None:
        self._messages = messages
        self.available: dict[str, int] = {}
        self.told: list[str] = []
        self.token = ""

    def until(self, condition: Callable[[], bool]) -> None:
        """Take messages until the condition holds, or the stream ends."""
        while not condition():
            for event in next(self._messages).events:
                self.take(event)

    def take(self, event: Event) -> None:
        kind = event.WhichOneof("kind") or "nothing"
        self.told.append(kind)
        self.token = event.resume_token or self.token
        if kind == "product":
            self.available[event.product.product_id] = event.product.available
        elif kind == "deleted":
            self.available.pop(event.deleted.product_id, None)
        elif kind == "reset":
            self.available.clear()


@contextmanager
def watching(shop: Shop, **request: Any) -> Iterator[Shelf]:
    call = shop.inventory.WatchProducts(
        pb.WatchProductsRequest(**request), metadata=TILL, timeout=20
    )
    try:
        yield Shelf(call)
    finally:
        call.cancel()


def streams_of(shop: Shop) -> Streams:
    streams = shop.store._running.streams
    assert streams is not None
    return streams


def test_from_start_every_product_then_ready_then_changes(shop: Shop) -> None:
    with watching(shop, from_start=True) as shelf:
        shelf.until(lambda: "ready" in shelf.told)
        assert ["state", "product", "product", "product", "ready"] == shelf.told
        assert {"TEA-001": 40, "JAM-001": 7, "MUG-001": 0} == shelf.available

        shop.central.sell("TEA-001", 3)
        shop.central.delete_products("MUG-001")
        shelf.until(lambda: "deleted" in shelf.told)

        assert {"TEA-001": 37, "JAM-001": 7} == shelf.available


def test_some_products_alone(shop: Shop) -> None:
    with watching(shop, from_start=True, product_ids=["JAM-001", "NEW-001"]) as shelf:
        shelf.until(lambda: "ready" in shelf.told)
        shop.central.sell("TEA-001")
        shop.central.set_products({"productId": "NEW-001", "available": 5})
        shelf.until(lambda: "NEW-001" in shelf.available)

        assert {"JAM-001": 7, "NEW-001": 5} == shelf.available


def test_a_watch_goes_on_where_another_ended(shop: Shop) -> None:
    """Nothing in between is missing, and nothing is told again."""
    with watching(shop, from_start=True) as shelf:
        shelf.until(lambda: "ready" in shelf.told)
    shop.central.sell("TEA-001")
    shop.store.wait_until_in_sync()

    with watching(shop, resume_token=shelf.token) as later:
        later.until(lambda: "product" in later.told)

        assert {"TEA-001": 39} == later.available
        assert "reset" not in later.told


def test_an_unknown_place_is_a_reset_and_all_products(shop: Shop) -> None:
    with watching(shop, resume_token="00000000:7") as shelf:
        shelf.until(lambda: "ready" in shelf.told)

        assert ["state", "reset"] == shelf.told[:2]
        assert 3 == len(shelf.available)


def test_the_state_is_told_when_it_changes(shop: Shop) -> None:
    with watching(shop) as shelf:
        first = next(shelf._messages).events[0]
        shop.central.restart()
        shop.central.reset()
        shop.store.wait_until_in_sync()
        shelf.until(lambda: "ready" in shelf.told)

        assert "live" == first.state.state
        assert shelf.told.count("state") > 0
        assert "reset" in shelf.told


def test_a_watcher_that_goes_frees_its_place(shop: Shop) -> None:
    streams = streams_of(shop)
    with watching(shop, from_start=True) as shelf:
        shelf.until(lambda: "ready" in shelf.told)
        assert 1 == len(streams)
    freed = threading.Event()

    def look() -> None:
        if len(streams) == 0:
            freed.set()

    for _ in range(200):
        shop.store._call(look)
        if freed.wait(0.02):
            break
    assert 0 == len(streams)


def test_more_watchers_than_places_are_told_when_to_come_again(shop: Shop) -> None:
    shop.store.reset(stream_readers=1)
    with grpc.insecure_channel(shop.store.grpc_address) as channel:
        few = Shop(shop.central, shop.store, channel, shop.http)
        with watching(few) as shelf:
            next(shelf._messages)
            with pytest.raises(grpc.RpcError) as caught, watching(few) as second:
                next(second._messages)
    refusal = refusal_of(caught.value)

    assert ("too_many_streams", grpc.StatusCode.RESOURCE_EXHAUSTED) == (
        refusal.reason,
        refusal.code,
    )
    assert refusal.retry_seconds is not None


def test_a_stopping_store_says_that_it_stops(shop: Shop) -> None:
    """It is not full: another STREAM_READERS would change nothing."""
    shop.store._call(streams_of(shop).stop)
    with pytest.raises(grpc.RpcError) as caught, watching(shop) as shelf:
        next(shelf._messages)

    assert "is stopping" in refusal_of(caught.value).message


def test_a_slow_watcher_gets_the_newest_state_once(shop: Shop) -> None:
    """It reads nothing while a thousand sales happen, and then not a thousand messages."""
    with watching(shop, from_start=True) as shelf:
        shelf.until(lambda: "ready" in shelf.told)
        before = len(shelf.told)
        shop.central.set_products({"productId": "TEA-001", "available": 5000, "note": "x" * 5000})
        for _ in range(300):
            shop.central.sell("TEA-001", 10)
        shop.store.wait_until_in_sync()
        shelf.until(lambda: shelf.available["TEA-001"] == 2000)

        assert len(shelf.told) - before < 300


def test_a_stop_of_the_store_ends_every_watch(shop: Shop) -> None:
    with watching(shop) as shelf:
        next(shelf._messages)
        shop.store.stop()
        with pytest.raises((StopIteration, grpc.RpcError)):
            shelf.until(lambda: False)


@pytest.mark.parametrize("setting", [{"stream_readers": 0}])
def test_what_is_switched_off_says_so(shop: Shop, setting: dict[str, int]) -> None:
    shop.store.reset(**setting)
    with grpc.insecure_channel(shop.store.grpc_address) as channel:
        without = Shop(shop.central, shop.store, channel, shop.http)
        with pytest.raises(grpc.RpcError) as caught, watching(without) as shelf:
            next(shelf._messages)
    assert "not_found" == refusal_of(caught.value).reason
    assert "STREAM_READERS=0" in refusal_of(caught.value).message
