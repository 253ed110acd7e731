"""The store in this process: its parts on a directory, and its API on a port."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from store_cache.api.app import build_api
from store_cache.api.parts import StoreParts
from store_cache.api.server import ApiServer, serve
from store_cache.app.settings import Settings
from store_cache.storage.directory import FileThread
from tests.harness.clients import CENTRAL_KEY, STORE_ADMIN_KEY, TILL_KEY

STOP_SECONDS = 1.0


def settings_of(**settings: Any) -> Settings:
    """Settings that no environment changes; keys are those of the harness, the port is any."""
    usual: dict[str, Any] = {
        "environment": "development",
        "host": "127.0.0.1",
        "port": 0,
        "api_keys": TILL_KEY,
        "admin_api_keys": STORE_ADMIN_KEY,
        "central_api_url": "http://central.test",
        "central_api_key": CENTRAL_KEY,
    }
    return Settings(_env_file=None, **(usual | settings))


def api_of(parts: StoreParts, settings: Settings) -> web.Application:
    return build_api(
        parts,
        store_id=settings.store_id,
        keys=[key.get_secret_value() for key in settings.api_keys],
        admin_keys=[key.get_secret_value() for key in settings.admin_api_keys],
        cors_origins=settings.cors_origins,
        fast_reads=settings.fast_reads,
    )


@asynccontextmanager
async def served(parts: StoreParts, settings: Settings) -> AsyncIterator[ApiServer]:
    """The API of these parts, served until the block ends."""
    server = await serve(api_of(parts, settings), host=settings.host, port=settings.port)
    try:
        yield server
    finally:
        await server.stop(STOP_SECONDS)


class ExecutorFileThread(FileThread):
    """In place of a thread for each file: the loop's executor, in the same order. A loop in virtual
    time performs its calls itself; one thread's can be counted."""

    def __init__(self) -> None:
        self.is_ended = False

    def call(self, perform: Callable[[], None]) -> asyncio.Future[None]:
        if self.is_ended:
            raise OSError(errno.EBADF, "the file is closed already")
        return asyncio.get_running_loop().run_in_executor(None, perform)

    def end(self, perform: Callable[[], None]) -> asyncio.Future[None]:
        done = self.call(perform)
        self.is_ended = True
        return done
