"""What the sender does with an entry that is settled meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import orjson

from store_cache.model.event import Event, Kind
from store_cache.writes.idempotency import KeyTable
from store_cache.writes.outbox.entry import State
from store_cache.writes.outbox.outbox import Outbox, OutboxSettings
from store_cache.writes.outbox.sender import OutboxSender, SenderSettings
from store_cache.writes.product_queue import ProductQueue
from store_cache.writes.write import Adjustment
from tests.harness.clock import NOON
from tests.harness.virtual_time import in_virtual_time

HOUR = 3600.0


class Store:
    """A store that holds the product at version 5, and keeps no file."""

    is_durable = True
    position = None

    def held_row(self, _: str) -> None: ...

    def held_version(self, _: str) -> int:
        return 5

    async def keep_write(self, _: bytes) -> None: ...

    async def record_write(self, *_: bytes) -> None: ...


class Central:
    """The admission to a Central that is away, and that nothing may be sent to."""

    is_open = False

    def wait_seconds(self) -> float:
        return 0.0

    async def send(self, payload: Any, *, deadline_at: float) -> None:
        raise AssertionError(f"{payload} was sent")


@in_virtual_time
async def test_what_the_feed_settles_before_the_sender_begins_stays_settled() -> None:
    """[O4] Another node has sold it, and the event comes in the very turn of the loop in which this
    one would park it as too old."""
    now = NOON
    store, settings = cast("Any", Store()), OutboxSettings("S1", 10, True, 24 * HOUR)
    keys = KeyTable(retention_seconds=24 * HOUR)
    outbox = Outbox(settings, keys=keys, store=store, now=lambda: now, random=lambda: 0.5)
    sender = OutboxSender(
        outbox,
        SenderSettings("S1", 5.0, 24 * HOUR, HOUR),
        admission=cast("Any", Central()),
        store=store,
        refetches=cast("Any", None),
        events=cast("Any", None),
        turns=ProductQueue(),
        now=lambda: now,
        random=lambda: 0.5,
    )
    await outbox.queue([(Adjustment("P-1", -2, "k1"), 1)], "away")
    now += 2 * HOUR
    running = asyncio.create_task(sender.run())
    await asyncio.sleep(0)
    assert sender._tasks, "its task begins in the next turn of the loop"
    body = orjson.dumps({"productId": "P-1", "name": "", "available": 8, "version": 6})
    origin = {"storeId": "S1", "idempotencyKey": "S1-k1"}
    with outbox.settled_by([Event(7, Kind.UPDATED, "P-1", 6, body, origin)]) as settled:
        assert settled is not None
        settled.shown()

    await asyncio.sleep(1.0)

    running.cancel()
    entry = outbox.get("k1")
    assert entry is not None
    assert (State.APPLIED, 0) == (entry.state, outbox.pending.of("P-1"))
