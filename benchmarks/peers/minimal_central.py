"""The least of a Central that can hold polls: aiohttp, one future for all, one prepared answer.

    python -m benchmarks.peers.minimal_central PORT

It has the routes that `benchmarks.harness.held_polls` uses, and no products, keys, log or faults.
"""

from __future__ import annotations

import asyncio
import resource
import sys

import orjson
import uvloop
from aiohttp import web

BACKLOG = 4096


class MinimalCentral:
    """The future that all polls wait for, and its result: their answer."""

    def __init__(self) -> None:
        self._offset = 1
        self._news: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def poll(self, request: web.Request) -> web.Response:
        if "wait" not in request.query:
            return self._reply(self._page())
        return self._reply(await self._news)

    async def change(self, request: web.Request) -> web.Response:
        await request.read()
        self._offset += 1
        news, self._news = self._news, asyncio.get_running_loop().create_future()
        news.set_result(self._page())
        return self._reply(b"{}")

    async def health(self, _: web.Request) -> web.Response:
        return self._reply(b"{}")

    def _page(self) -> bytes:
        return orjson.dumps({"events": [{"offset": self._offset}], "nextOffset": self._offset})

    def _reply(self, body: bytes) -> web.Response:
        return web.Response(body=body, content_type="application/json")


async def serve(port: int) -> None:
    central = MinimalCentral()
    app = web.Application()
    app.router.add_get("/health", central.health)
    app.router.add_get("/v1/inventory/events", central.poll)
    app.router.add_put("/v1/admin/products/set", central.change)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=BACKLOG).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    uvloop.run(serve(int(sys.argv[1])))
