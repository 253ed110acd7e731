"""As little of a Central as can hold polls: aiohttp, one future for all, one answer made before.

    python -m benchmarks.peers.bell PORT

Knows: the addresses that `benchmarks.harness.crowd` asks. Keeps no products, keys, log or faults.
"""

from __future__ import annotations

import asyncio
import resource
import sys

import orjson
import uvloop
from aiohttp import web

BACKLOG = 4096


class Bell:
    """What the polls wait for, and what they then hear."""

    def __init__(self) -> None:
        self._offset = 1
        self._rung: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def poll(self, request: web.Request) -> web.Response:
        if "wait" not in request.query:
            return self._said(self._page())
        return self._said(await self._rung)

    async def change(self, request: web.Request) -> web.Response:
        await request.read()
        self._offset += 1
        rung, self._rung = self._rung, asyncio.get_running_loop().create_future()
        rung.set_result(self._page())
        return self._said(b"{}")

    async def health(self, _: web.Request) -> web.Response:
        return self._said(b"{}")

    def _page(self) -> bytes:
        return orjson.dumps({"events": [{"offset": self._offset}], "nextOffset": self._offset})

    def _said(self, body: bytes) -> web.Response:
        return web.Response(body=body, content_type="application/json")


async def serve(port: int) -> None:
    bell = Bell()
    app = web.Application()
    app.router.add_get("/health", bell.health)
    app.router.add_get("/v1/inventory/events", bell.poll)
    app.router.add_put("/v1/admin/products/set", bell.change)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=BACKLOG).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    uvloop.run(serve(int(sys.argv[1])))
