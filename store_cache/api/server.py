"""Serving the API: a listening socket with the guard before it, and a clean stop.

Knows: how to listen and to stop. Refuses to know: signals, settings, the application's inside.
"""

from __future__ import annotations

import asyncio
import errno
from typing import Any

from aiohttp import web
from aiohttp.http import HttpRequestParser

from store_cache.api.app import FAST_READS
from store_cache.api.limits import Connection, Guard, Limits

# Requests that outlive their grace are cancelled; this long they may take to notice.
_CANCEL_SECONDS = 0.25


# Tills that come back all at once wait here rather than fail.
_BACKLOG = 1024


Answering = dict[asyncio.Task[Any], None]
"""The tasks of requests that are being answered, the oldest first."""


class CannotServe(Exception):
    """The API cannot be served on this machine as told; the message says what to change."""


class Running:
    """A server that listens; made by `serve`."""

    def __init__(
        self,
        *,
        runner: web.AppRunner,
        guard: Guard,
        listener: asyncio.Server,
        server: web.Server,
        answering: Answering,
    ) -> None:
        self._runner = runner
        self._guard = guard
        self._listener = listener
        self._server = server
        self._answering = answering
        self.port: int = listener.sockets[0].getsockname()[1]

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._guard)

    async def stop(self, grace_seconds: float) -> None:
        """Accept nothing new, let requests in flight end within the grace, then close.

        Takes at most a second longer than the grace, for those that have to be cancelled.
        """
        self._listener.close()
        # Connections that were accepted a moment ago get their turn to begin.
        await asyncio.sleep(0)
        self._server.pre_shutdown()
        self._guard.close_quiet()
        try:
            async with asyncio.timeout(grace_seconds):
                await self._guard.wait_idle()
        except TimeoutError:
            pass  # what is left is cancelled below
        await self._server.shutdown(_CANCEL_SECONDS)
        self._guard.close()
        await self._end_unheard()
        await self._runner.cleanup()

    async def _end_unheard(self) -> None:
        """Requests whose tills have gone away wait on, and no connection stands for them."""
        left = list(self._answering)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


async def serve(
    app: web.Application, *, host: str, port: int, limits: Limits | None = None
) -> Running:
    """Listen on `host` and `port` (0: a free one) and answer with `app`.

    Raises CannotServe.
    """
    if HttpRequestParser.__module__ != "aiohttp._http_parser":
        raise CannotServe(
            "aiohttp runs without its C parser, whose strictness about framing is relied on: "
            "install a wheel of aiohttp, and do not set AIOHTTP_NO_EXTENSIONS"
        )
    loop = asyncio.get_running_loop()
    runner = web.AppRunner(app, handle_signals=False)
    await runner.setup()
    server = runner.server
    assert server is not None
    guard = Guard(limits or Limits(), loop, app.get(FAST_READS))
    answering = watch(server)
    try:
        listener = await loop.create_server(
            lambda: guard.protocol(server), host, port, backlog=_BACKLOG
        )
    except OSError as problem:
        guard.close()
        await runner.cleanup()
        raise CannotServe(_reason(problem, host, port)) from problem
    return Running(
        runner=runner, guard=guard, listener=listener, server=server, answering=answering
    )


def watch(server: web.Server) -> Answering:
    """Have each connection told when a request on it begins and ends; what is being answered."""
    answer = server.request_handler
    answering: Answering = {}

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        connection = request.protocol
        assert isinstance(connection, Connection)
        task = asyncio.current_task()
        assert task is not None
        answering[task] = None
        connection.begin()
        try:
            return await answer(request)
        finally:
            connection.end()
            del answering[task]

    server.request_handler = handle
    return answering


def _reason(problem: OSError, host: str, port: int) -> str:
    cures = {
        errno.EADDRINUSE: "stop the other process, or set PORT to another port",
        errno.EACCES: "set PORT to one above 1023, or give the process the right to it",
        errno.EADDRNOTAVAIL: "set HOST to an address of this machine",
    }
    cure = cures.get(problem.errno or 0, "check HOST and PORT")
    return f"cannot listen on {host} port {port}: {problem.strerror or problem}; {cure}"
