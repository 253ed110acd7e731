"""Readers of live changes that begin at the start and take what comes, as fast as they can.

    python -m tests.crash.draining_readers PORT READERS SECONDS

Exits with an error if one of them is refused or ended.
"""

from __future__ import annotations

import asyncio
import sys
import time

from tests.harness.clients import TILL_KEY
from tests.harness.http import head_of
from tests.harness.streams import STREAM

READ_AT_ONCE = 256 * 1024


Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def opened(port: int) -> Ends:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head_of("GET", f"{STREAM}?from=start", {"X-API-Key": TILL_KEY}, b""))
    assert (await reader.readline()).startswith(b"HTTP/1.1 200"), "a stream was refused"
    return reader, writer


async def drain(ends: Ends, until: float) -> None:
    reader, writer = ends
    while (seconds := until - time.monotonic()) > 0:
        try:
            async with asyncio.timeout(seconds):
                assert await reader.read(READ_AT_ONCE), "a stream was ended"
        except TimeoutError:
            break
    writer.close()


async def main(port: int, readers: int, seconds: float) -> None:
    until = time.monotonic() + seconds
    async with asyncio.TaskGroup() as group:
        for _ in range(readers):  # a client comes back at a random moment, as `retry` says
            group.create_task(drain(await opened(port), until))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
