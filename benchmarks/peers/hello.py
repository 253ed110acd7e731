"""The least that an aiohttp application on uvloop can do: say hello. `PORT` is its port."""

from __future__ import annotations

import os

import uvloop
from aiohttp import web


async def hello(_: web.Request) -> web.Response:
    return web.Response(text="hello")


def main() -> None:
    app = web.Application()
    app.router.add_get("/hello", hello)
    web.run_app(
        app,
        host="127.0.0.1",
        port=int(os.environ["PORT"]),
        access_log=None,
        print=None,
        loop=uvloop.new_event_loop(),
    )


if __name__ == "__main__":
    main()
