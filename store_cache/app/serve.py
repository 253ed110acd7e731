"""`store-cache serve`: the store with its HTTP API, until a signal ends it."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from aiohttp import web

from store_cache.api.app import REQUEST_RATES, build_api
from store_cache.api.auth import AUTHENTICATOR, Caller
from store_cache.api.limits import ConnectionLimits
from store_cache.api.parts import StoreParts
from store_cache.api.proxies import TrustedProxies
from store_cache.api.request_rates import RequestRates
from store_cache.api.server import CannotServe, check_servable, serve
from store_cache.app.admin_token import admin_token
from store_cache.app.build import running
from store_cache.app.memory import freeze_imports, frozen_heap
from store_cache.app.reload import Reloader, ReloadSignal, key_ring
from store_cache.app.settings import Settings
from store_cache.app.tls import central_tls, server_tls, tls_files
from store_cache.tracing.setup import tracing

log = logging.getLogger(__name__)

REQUESTS_GRACE_SECONDS = 3.0
"""How long a stop waits for requests in flight."""


def api_of(store: StoreParts, settings: Settings, local: Caller | None = None) -> web.Application:
    """Return the API of `store` as configured. `local` is a key beside those of the settings.

    Raises KeyFileError.
    """
    return build_api(
        store,
        store_id=settings.store_id,
        keys=key_ring(settings, local),
        cors_origins=settings.cors_origins,
        fast_reads=settings.fast_reads,
        rates=RequestRates(reads=settings.rate_limit_reads, writes=settings.rate_limit_writes),
        proxies=TrustedProxies.parse(settings.trusted_proxies),
        console=settings.console,
        api_docs=settings.api_docs,
    )


@asynccontextmanager
async def serving_rpc(
    store: StoreParts, settings: Settings, app: web.Application
) -> AsyncIterator[int | None]:
    """Serve over gRPC beside the HTTP API `app`, if a port is set for it; yield that port.

    Raises CannotServe.
    """
    if settings.grpc_port is None:
        yield None
        return
    try:
        from store_cache.rpc.server import serving  # noqa: PLC0415 - its packages are an extra
    except ModuleNotFoundError as missing:
        raise CannotServe(
            f"GRPC_PORT is set, and the package {missing.name} is not installed: "
            "pip install 'store-cache[grpc]', or leave GRPC_PORT empty"
        ) from missing
    async with serving(
        store,
        store_id=settings.store_id,
        authenticator=app[AUTHENTICATOR],
        rates=app[REQUEST_RATES],
        host=settings.host,
        port=settings.grpc_port,
        tls=tls_files(settings),
        stop_seconds=REQUESTS_GRACE_SECONDS,
    ) as port:
        log.info("serving gRPC on %s:%d", settings.host, port)
        yield port


async def serve_until_signal(
    settings: Settings,
    reloads: ReloadSignal | None = None,
    *,
    show_start: Callable[[StoreParts], Coroutine[Any, Any, None]] | None = None,
) -> bool:
    """Serve until SIGTERM or SIGINT. Return whether everything acknowledged is on disk.

    At each of `reloads` the settings are read again; None: they never are. `show_start` tells a
    person how the first full sync goes on.

    Raises CannotServe, DirectoryRefused, KeyFileError and TlsFilesError.
    """
    # More connections are admitted than the usual soft limit of 1,024 open files has room for.
    _, open_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_files, open_files))
    tls = central_tls(settings)
    await check_servable(settings.host, settings.port)
    if settings.grpc_port is not None:
        await check_servable(settings.host, settings.grpc_port, setting="GRPC_PORT")
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    freeze_imports()
    async with (
        tracing(os.environ, store_id=settings.store_id, version=version("store-cache")) as spans,
        running(settings, tls=tls, spans=spans) as store,
        frozen_heap(store.writer.replaced),
        admin_token(settings.data_dir) as local,
        AsyncExitStack() as listeners,
    ):
        app = api_of(store, settings, local)
        limits = ConnectionLimits.within(open_files)
        server = await serve(
            app,
            host=settings.host,
            port=settings.port,
            limits=limits,
            tls=server_tls(settings),
        )
        await listeners.enter_async_context(serving_rpc(store, settings, app))
        log.info(
            "serving on %s:%d as %s, following %s",
            settings.host,
            server.port,
            settings.store_id,
            settings.central_api_url,
        )
        reloader = Reloader(settings, app[AUTHENTICATOR], server, central_tls=tls, local=local)
        reloading = None if reloads is None else loop.create_task(reloader.run(reloads))
        showing = None if show_start is None else loop.create_task(show_start(store))
        try:
            await stopped.wait()
        finally:
            for task in (reloading, showing):
                if task is not None:
                    task.cancel()
            log.info("stopping: no new requests; those in flight may end")
            await asyncio.gather(server.stop(REQUESTS_GRACE_SECONDS), listeners.aclose())
    writer = store.writer
    if writer.disk.is_durable:
        log.info("stopped; everything acknowledged is on disk")
        return True
    log.error(
        "stopped while the disk fails (%s): %d changes of the catalogue and %d entries of the key "
        "table since %s are not on disk, so the next start does without them",
        writer.disk.problem,
        writer.unsaved_changes,
        writer.unsaved_writes,
        datetime.fromtimestamp(writer.disk.since, UTC).isoformat(timespec="seconds"),
    )
    return False
