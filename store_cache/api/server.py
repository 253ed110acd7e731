"""Serving the API: a listening socket with connection limits, and a clean stop."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Set
from typing import Any

from aiohttp import web
from aiohttp.http import HttpRequestParser
from aiohttp.typedefs import Handler

from store_cache.api.app import FAST_READS, PROXIES, STREAMS, UNROUTED
from store_cache.api.auth import CALLER
from store_cache.api.connection import ClientConnection
from store_cache.api.front import Front, bind
from store_cache.api.limits import ConnectionLimiter, ConnectionLimits
from store_cache.api.stream.streams import Streams
from store_cache.api.tls import ServerTls

# How long requests that are cancelled at a stop may take to end.
_CANCEL_SECONDS = 0.25

# The accept queue: clients that reconnect all at once wait in it rather than fail.
_BACKLOG = 1024

# The router looks at each part of a path; in one of thousands that takes longer than all else.
_MOST_SLASHES = 30


class TooManySlashes(Exception):
    """The path of a request has more parts than any route."""


class CannotServe(Exception):
    """The API cannot be served on this machine as configured; the message says what to change."""


class ApiServer:
    """A server that listens; `serve` makes it."""

    def __init__(
        self,
        *,
        runner: web.AppRunner,
        limiter: ConnectionLimiter,
        listener: asyncio.Server | Front,
        server: web.Server,
        requests: Set[asyncio.Task[Any]],
        streams: Streams | None = None,
    ) -> None:
        self._runner = runner
        self._limiter = limiter
        self._listener = listener
        self._server = server
        self._requests = requests
        self._streams = streams
        sockets = listener.listening if isinstance(listener, Front) else listener.sockets
        self.port: int = sockets[0].getsockname()[1]

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._limiter)

    @property
    def is_tls(self) -> bool:
        return isinstance(self._listener, Front) and self._listener.tls is not None

    def use_tls(self, tls: ServerTls) -> None:
        """Use these contexts for new connections. The server must have begun with TLS."""
        assert isinstance(self._listener, Front)
        self._listener.tls = tls

    async def stop(self, grace_seconds: float) -> None:
        """Accept no new connections, let requests in flight end within the grace, then close.

        Requests that are left are cancelled, which the middleware answers. That takes at most a
        second more.
        """
        if isinstance(self._listener, Front):
            await self._listener.close()
        else:
            self._listener.close()
        await asyncio.sleep(0)  # connections accepted a moment ago get to begin
        if self._streams is not None:
            self._streams.stop()
        self._server.pre_shutdown()
        self._limiter.close_idle()
        try:
            async with asyncio.timeout(grace_seconds):
                await self._limiter.wait_idle()
        except TimeoutError:
            for request in self._requests:
                request.cancel()
        await self._server.shutdown(_CANCEL_SECONDS)
        self._limiter.close()
        # Requests whose client has disconnected: the server no longer knows their connections.
        left = list(self._requests)
        for request in left:
            request.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self._runner.cleanup()


async def check_servable(host: str, port: int, *, setting: str = "PORT") -> None:
    """Raise CannotServe if `serve` would: so that nothing else is begun then. `setting` names the
    variable of the port."""
    _check_parser()
    try:
        bound = await bind(host, port)
    except OSError as problem:
        raise _cannot_listen(host, port, problem, setting) from problem
    for one in bound:
        one.close()


def _check_parser() -> None:
    if HttpRequestParser.__module__ != "aiohttp._http_parser":
        raise CannotServe(
            "aiohttp runs without its C parser, whose strictness about framing is relied on: "
            "install a wheel of aiohttp, and do not set AIOHTTP_NO_EXTENSIONS"
        )


def _cannot_listen(host: str, port: int, problem: OSError, setting: str = "PORT") -> CannotServe:
    cure = _CURES.get(problem.errno or 0, "check HOST and PORT").replace("PORT", setting)
    return CannotServe(
        f"cannot listen on {host} port {port}: {problem.strerror or problem}; {cure}"
    )


async def serve(
    app: web.Application,
    *,
    host: str,
    port: int,
    limits: ConnectionLimits | None = None,
    tls: ServerTls | None = None,
) -> ApiServer:
    """Listen on `host` and `port` (0: a free one) and answer with `app`, by https if there is
    `tls`.

    Raises CannotServe.
    """
    _check_parser()
    runner = web.AppRunner(app, handle_signals=False)
    await runner.setup()
    server = runner.server
    assert server is not None
    requests = track_requests(server, app[UNROUTED])
    proxies, fast_reads = app[PROXIES], app.get(FAST_READS)
    limiter = ConnectionLimiter(limits or ConnectionLimits(), proxies)

    def new_connection() -> ClientConnection:
        return ClientConnection(server, limiter, fast_reads)

    listener: asyncio.Server | Front
    try:
        if tls is None and not proxies.proxy_v2:
            listener = await asyncio.get_running_loop().create_server(
                new_connection, host, port, backlog=_BACKLOG
            )
        else:
            listening = await bind(host, port)
            for one in listening:
                one.listen(_BACKLOG)
            listener = Front(listening, new_connection, proxies, tls)
    except OSError as problem:
        limiter.close()
        await runner.cleanup()
        raise _cannot_listen(host, port, problem) from problem
    return ApiServer(
        runner=runner,
        limiter=limiter,
        listener=listener,
        server=server,
        requests=requests,
        streams=app.get(STREAMS),
    )


_CURES = {
    errno.EADDRINUSE: "stop the other process, or set PORT to another port",
    errno.EACCES: "set PORT to one above 1023, or give the process the right to it",
    errno.EADDRNOTAVAIL: "set HOST to an address of this machine",
}


def track_requests(server: web.Server, unrouted: Handler) -> Set[asyncio.Task[Any]]:
    """Tell each connection when a request on it begins and ends.

    `unrouted` answers those for what is no path. Return the tasks of the requests being answered,
    oldest first; the set changes as they do.
    """
    answer = server.request_handler
    tasks: dict[asyncio.Task[Any], None] = {}

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        connection = request.protocol
        assert isinstance(connection, ClientConnection)
        task = asyncio.current_task()
        assert task is not None
        tasks[task] = None
        connection.note_request_begun()
        try:
            path = request.rel_url.raw_path
            if path.count("/") > _MOST_SLASHES:
                return connection.handle_error(request, 400, TooManySlashes())
            if not path.startswith("/"):
                assert isinstance(request, web.Request)
                return await unrouted(request)
            return await answer(request)
        finally:
            connection.note_request_ended(is_authenticated=CALLER in request)
            del tasks[task]

    server.request_handler = handle
    return tasks.keys()
