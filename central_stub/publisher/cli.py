"""`central-stub publish-feed`: connects to both sides, and copies until it is stopped."""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import signal
import ssl
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import nats.errors
from nats.aio.client import Client

from central_stub.cancellation import is_cancelled
from central_stub.publisher.central import CentralFeed
from central_stub.publisher.mirrors import Mirrors
from central_stub.publisher.publisher import Disconnected, Publisher

RECONNECT_SECONDS = 0.5
CLOSE_SECONDS = 2.0

log = logging.getLogger(__name__)


class CannotConnect(Exception):
    """NATS refuses the connection; the message says what to change."""


async def publish(options: argparse.Namespace) -> None:
    """Copy the feed until SIGINT or SIGTERM. Raises CannotConnect, Nameless of `central`, and
    NoDomain of `mirrors`."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s", level="INFO")
    logging.getLogger("httpx").setLevel("WARNING")
    loop, this_task = asyncio.get_running_loop(), asyncio.current_task()
    assert this_task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, this_task.cancel)
    central = CentralFeed(options.central, options.api_key)
    try:
        while not is_cancelled():
            await _publish_until_closed(options, central)
            await asyncio.sleep(RECONNECT_SECONDS * (1 + random.random()))
    except asyncio.CancelledError:
        log.info("stopped")
    finally:
        await central.close()


async def _publish_until_closed(options: argparse.Namespace, central: CentralFeed) -> None:
    """Copy until nats-py has given the connection up. Raises what `publish` does."""
    async with connected(options.nats, options.credentials, options.ca) as client:
        if is_cancelled():
            return
        print(f"central-stub publishes the feed of {options.central} to {options.nats}", flush=True)
        works = [Publisher(central, client, replicas=options.replicas).run()]
        if options.mirror:
            works.append(Mirrors(client, options.mirror).run())
        with suppress(Disconnected):
            await _first_end(works)


async def _first_end(works: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run all until one fails, or this is cancelled; raise what it failed with."""
    tasks = [asyncio.create_task(each) for each in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


@asynccontextmanager
async def connected(urls: str, credentials: Path | None, ca: Path | None) -> AsyncIterator[Client]:
    """Connect to one of the servers, however long that takes. Raises CannotConnect."""
    client = Client()
    try:
        await _connect(client, urls, credentials, ca)
        yield client
    finally:  # also if it was cancelled while it connected
        with suppress(TimeoutError, OSError):  # the server may be gone
            async with asyncio.timeout(CLOSE_SECONDS):
                await client.close()


async def _connect(client: Client, urls: str, credentials: Path | None, ca: Path | None) -> None:
    try:
        await client.connect(
            [url.strip() for url in urls.split(",")],
            name="central-stub publish-feed",
            error_cb=_Problems().note,
            max_reconnect_attempts=-1,
            reconnect_time_wait=RECONNECT_SECONDS,  # type: ignore[arg-type]
            tls=None if ca is None else ssl.create_default_context(cafile=str(ca)),
            **credential_options(credentials),
        )
    except (nats.errors.Error, OSError, ValueError) as error:
        raise CannotConnect(f"cannot connect to {urls}: {error}; see --credentials") from error


def credential_options(path: Path | None) -> dict[str, Any]:
    """Return how to show what is in a file: a JWT with its seed (`.creds`), or a seed alone."""
    if path is None:
        return {}
    if "BEGIN NATS USER JWT" in path.read_text():
        return {"user_credentials": str(path)}
    return {"nkeys_seed": str(path)}


class _Problems:
    """Logs what the client tells of its connection; the same thing once."""

    def __init__(self) -> None:
        self._last = ""

    async def note(self, error: Exception) -> None:
        text = str(error) or type(error).__name__
        if text != self._last:
            log.warning("NATS: %s", text)
        self._last = text
