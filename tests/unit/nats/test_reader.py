"""The reader of a stream: contiguous, asking for more in time, and broken rather than wrong."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

from nats.aio.client import Client

from store_cache.nats.reader import (
    AT_ONCE,
    EXPIRES_SECONDS,
    MOST_BUFFERED,
    SILENT_SECONDS,
    StreamReader,
)
from tests.harness.nats_stream import STREAM, MemoryStream
from tests.harness.virtual_time import in_virtual_time


@asynccontextmanager
async def reading(stream: MemoryStream, offset: int = 0) -> AsyncIterator[StreamReader]:
    reader = StreamReader(
        cast("Client", stream),
        STREAM,
        offset,
        first=offset,
        api_prefix="$JS.API",
        uptime=asyncio.get_running_loop().time,
        on_change=lambda: None,
    )
    await reader.start()
    try:
        yield reader
    finally:
        await stream.end()


def offsets(reader: StreamReader) -> list[int]:
    return [offset for offset, _ in reader.messages]


@in_virtual_time
async def test_messages_come_in_order_from_the_offset_on() -> None:
    stream = MemoryStream()
    stream.publish_events(0, 1, 2, 3)
    async with reading(stream, 2) as reader:
        await asyncio.sleep(0.1)
        stream.publish_events(4)
        await asyncio.sleep(0.1)
        assert offsets(reader) == [2, 3, 4]
        assert reader.next_offset == 2
        assert not reader.is_broken


@in_virtual_time
async def test_more_is_asked_for_in_time_and_not_without_end() -> None:
    """A reader whose messages nobody takes holds a bounded number; as they are taken, all come."""
    stream = MemoryStream()
    stream.publish_events(*range(3000))
    async with reading(stream) as reader:
        await asyncio.sleep(1)
        assert AT_ONCE <= len(reader.messages) <= MOST_BUFFERED
        taken: list[int] = []
        while len(taken) < 3000:
            while reader.messages:
                taken.append((await reader.take())[0])
            await asyncio.sleep(0.1)
        assert taken == [*range(3000)]


@in_virtual_time
async def test_a_message_that_was_left_out_breaks_the_reader() -> None:
    """[E1] What came before it can be taken, and nothing after it."""
    stream = MemoryStream()
    async with reading(stream) as reader:
        stream.publish_events(0, 1, 3, 4)
        await asyncio.sleep(0.1)
        assert offsets(reader) == [0, 1]
        assert reader.is_broken
        assert "has offset 3 where 2 was expected" in reader.problem
        asked = len(stream.asked)
        await reader.take()
        assert len(stream.asked) == asked


@in_virtual_time
async def test_a_stream_that_begins_later_breaks_the_reader() -> None:
    stream = MemoryStream()
    stream.publish_events(5)
    async with reading(stream, 3) as reader:
        await asyncio.sleep(0.1)
        assert not reader.messages
        assert "has offset 5 where 3 was expected" in reader.problem


@in_virtual_time
async def test_a_server_that_gives_no_sign_of_life_breaks_the_reader() -> None:
    stream = MemoryStream()
    async with reading(stream) as reader:
        await asyncio.sleep(60)
        assert not reader.is_broken  # nothing is new, and the server says so
        stream.is_silent = True
        await asyncio.sleep(SILENT_SECONDS + 6)
        assert reader.is_broken


@in_virtual_time
async def test_a_request_that_has_expired_is_made_again() -> None:
    stream = MemoryStream()
    async with reading(stream) as reader:
        await asyncio.sleep(EXPIRES_SECONDS)
        pending = {"Nats-Pending-Messages": str(AT_ONCE)}
        stream.send_status("408", "Request Timeout", **pending)
        await asyncio.sleep(0.1)
        assert stream.asked == [AT_ONCE, AT_ONCE]
        assert not reader.is_broken


@in_virtual_time
async def test_a_consumer_that_is_gone_breaks_the_reader() -> None:
    stream = MemoryStream()
    async with reading(stream) as reader:
        stream.send_status("409", "Consumer Deleted")
        await asyncio.sleep(0.1)
        assert reader.problem.endswith("409 Consumer Deleted")
        assert len(stream.asked) == 1


@in_virtual_time
async def test_a_closed_reader_takes_nothing_more() -> None:
    stream = MemoryStream()
    async with reading(stream) as reader:
        await reader.close()
        stream.publish_events(0)
        await asyncio.sleep(0.1)
        assert not reader.messages
