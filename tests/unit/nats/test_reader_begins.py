"""How a reader of the stream begins, and is thrown away."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from nats.aio.client import Client

from store_cache.nats.reader import StreamReader
from tests.harness.virtual_time import in_virtual_time
from tests.unit.nats.small_nats import Client as SmallClient
from tests.unit.nats.small_nats import SmallCentral, SmallNats, message, now


def reader_of(server: SmallNats, offset: int, first: int = 0) -> StreamReader:
    return StreamReader(
        cast("Client", cast("Any", SmallClient(server))),
        "FEED_1",
        offset,
        first=first,
        api_prefix="$JS.API",
        uptime=now,
        on_change=lambda: None,
    )


def sold(count: int) -> SmallNats:
    central = SmallCentral()
    central.sell(count)
    server = SmallNats(central)
    server.publish()
    return server


@in_virtual_time
async def test_a_reader_begins_with_the_message_before() -> None:
    """[E4] So that it can be compared with what is held."""
    reader = reader_of(sold(10), 8)
    awaited = [reader.awaits_before]
    await reader.start()
    await asyncio.sleep(1)
    awaited.append(reader.awaits_before)
    assert awaited == [True, False]
    assert reader.before == message(7)
    assert [offset for offset, _ in reader.messages] == [8, 9]


@in_virtual_time
async def test_nothing_is_before_the_beginning_of_the_stream() -> None:
    reader = reader_of(sold(10), 0)
    await reader.start()
    await asyncio.sleep(1)
    assert not reader.awaits_before
    assert reader.before is None
    assert [offset for offset, _ in reader.messages] == [*range(10)]


@in_virtual_time
async def test_a_reader_that_is_closed_while_it_starts_leaves_nothing_behind() -> None:
    server = sold(10)
    for moment in (0.0, 0.005, 0.0105, 0.02):
        reader = reader_of(server, 5)
        starting = asyncio.create_task(reader.start())
        await asyncio.sleep(moment)
        await reader.close()
        await starting
    assert server.subscriptions == 0
