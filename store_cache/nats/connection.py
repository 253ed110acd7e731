"""The connection to NATS, and what the publisher reports over it."""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nats.errors
import nats.js.errors
import orjson
from nats.aio.client import Client, Server
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from store_cache.nats.report import Report, ServerClock, read_report, supersedes

ENTRY_STREAM = "KV_FEED"
ENTRY_SUBJECT = "$KV.FEED.current"
"""The entry that names the stream (docs/nats.md)."""

REPORT_SUBJECT = "feed.report"
"""Where each entry is published, too: `$KV` does not pass the link of a leaf node."""

REPLY_SECONDS = 3.0
CLOCK_SECONDS = 60.0
"""How often the server's clock, and where the stream begins, is read again."""

CLOSE_SECONDS = 2.0
LONGEST_RECONNECT_SECONDS = 2.0
FAILURE_PAUSE_SECONDS = 1.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NatsSettings:
    """`urls`: servers of one cluster, separated by commas. `credentials_file`: a `.creds` file, or
    the seed of an nkey. `name`: the store's id, which also begins the names of its inboxes.
    `api_prefix`: how the subjects of JetStream's API begin."""

    urls: str
    name: str
    api_prefix: str = "$JS.API"
    credentials_file: Path | None = None
    ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """`created`: tells a stream from one of the same name that took its place; that of a mirror is
    the one of its origin."""

    name: str
    created: str
    first: int

    def is_same(self, other: StreamInfo) -> bool:
        return (self.name, self.created) == (other.name, other.created)


class FeedConnection:
    """Keeps the connection while `run` runs; `on_news` is called when any of this changes.

    `uptime`: seconds that go on while the machine is suspended.
    """

    def __init__(self, settings: NatsSettings, *, uptime: Callable[[], float]) -> None:
        self._settings = settings
        self._uptime = uptime
        self._clock = ServerClock()
        self._client: Client | None = None
        self._is_due = asyncio.Event()
        self.report: Report | None = None
        self.stream: StreamInfo | None = None
        """The stream that the report means, once NATS has said what it is."""
        self.problem = "not connected yet"
        self.on_news: Callable[[], None] = _ignore
        self.on_lost: Callable[[], None] = _ignore

    @property
    def client(self) -> Client | None:
        """The client, if it is connected."""
        client = self._client
        return client if client is not None and client.is_connected else None

    def jetstream(self, client: Client) -> JetStreamContext:
        return client.jetstream(prefix=self._settings.api_prefix, timeout=REPLY_SECONDS)

    @property
    def api_prefix(self) -> str:
        return self._settings.api_prefix

    @property
    def server(self) -> str:
        """The host and port of the server, without what is secret."""
        client = self.client
        address = client.connected_url.netloc if client and client.connected_url else ""
        if not address:
            address = urlsplit(self._settings.urls.partition(",")[0]).netloc
        return address.rpartition("@")[2]

    @property
    def true_at(self) -> float | None:
        """When the report was true, or a little earlier; None if nothing is known."""
        return None if self.report is None else self._clock.true_at(self.report)

    @property
    def age(self) -> float | None:
        """How many seconds ago the report was true, or a little more; None if nothing is known."""
        true_at = self.true_at
        return None if true_at is None else self._uptime() - true_at

    async def run(self) -> None:
        """Connect, and stay connected until cancelled. nats-py connects again by itself, but not
        after most errors that a server ends a connection with: its credentials have expired, or its
        configuration has changed. Credentials are then read anew."""
        while not _is_cancelled():
            try:
                await self._stay_connected()
            except (nats.errors.Error, OSError) as error:
                await self._note_problem(error)
            await asyncio.sleep(_pause())

    async def _stay_connected(self) -> None:
        """Connect, and return when nats-py has given the connection up."""
        options: dict[str, Any] = {"tls": _tls(self._settings.ca_file)}
        if (path := self._settings.credentials_file) is not None:
            is_jwt = "BEGIN NATS USER JWT" in await asyncio.to_thread(path.read_text)
            options["user_credentials" if is_jwt else "nkeys_seed"] = str(path)
        client = Client()
        try:
            await client.connect(
                [url.strip() for url in self._settings.urls.split(",")],
                name=f"store-cache {self._settings.name}",
                inbox_prefix=f"_INBOX.{self._settings.name}",
                error_cb=self._note_problem,
                disconnected_cb=self._note_lost,
                reconnected_cb=self._note_connected,
                closed_cb=self._note_closed,
                max_reconnect_attempts=-1,
                reconnect_to_server_handler=_any_server_soon,
                **options,
            )
            self._client = client
            log.info("event sync: connected to NATS at %s", self.server)
            await client.subscribe(REPORT_SUBJECT, cb=self._receive)
            await self._note_connected()
            while not _is_cancelled() and not client.is_closed:
                await self._look()
        finally:
            self._client = None
            with suppress(TimeoutError, OSError):  # the server may be gone
                async with asyncio.timeout(CLOSE_SECONDS):
                    await client.close()

    async def _look(self) -> None:
        """Read the entry if there is none yet, the server's clock, and what the stream is."""
        self._is_due.clear()
        try:
            if self.report is None:
                await self._read_entry()
            if self.report is not None:
                await self._read_stream(self.report)
        except (nats.errors.Error, nats.js.errors.Error, TimeoutError, ValueError) as error:
            await self._note_problem(error)
            await asyncio.sleep(FAILURE_PAUSE_SECONDS)
            return
        self.on_news()
        if _is_cancelled():
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOCK_SECONDS if self.stream else FAILURE_PAUSE_SECONDS):
                await self._is_due.wait()

    async def _read_entry(self) -> None:
        assert self._client is not None
        stream = self.jetstream(self._client)
        message = await stream.get_last_msg(ENTRY_STREAM, ENTRY_SUBJECT)
        self._take(message.data or b"")

    async def _read_stream(self, report: Report) -> None:
        """Learn what the stream of the report is. Raises ValueError if NATS has another one."""
        assert self._client is not None
        name = report.stream
        asked_at = self._uptime()
        reply = await self._client.request(
            f"{self._settings.api_prefix}.STREAM.INFO.{name}", b"", timeout=REPLY_SECONDS
        )
        info = orjson.loads(reply.data)
        if "error" in info:
            self.stream = None
            raise ValueError(f"{name}: {info['error'].get('description')}")
        server_time = datetime.fromisoformat(info["ts"]).timestamp()
        self._clock.note(server_time, asked_at=asked_at)
        is_mirror = "mirror" in info["config"]
        metadata = info["config"].get("metadata") or {}
        created = metadata.get("created", "") if is_mirror else info["created"]
        if created != report.created:
            self.stream = None
            what = "mirrors" if is_mirror else "is"
            raise ValueError(f"{name} {what} another stream than the one that is published")
        self.stream = StreamInfo(name, created, info["state"]["first_seq"] - 1)
        self.problem = ""

    async def _receive(self, message: Msg) -> None:
        self._take(message.data)

    def _take(self, data: bytes) -> None:
        report = read_report(data, self._uptime())
        if report is None or not supersedes(report, self.report, self.age):
            return
        self.report = report
        if self.stream is None or not report.means(self.stream.name, self.stream.created):
            self.stream = None
            self.look_again()
        self.on_news()

    def look_again(self) -> None:
        """Read again what the stream is."""
        self._is_due.set()

    async def _note_connected(self) -> None:
        self.stream = None  # it may be another one
        self.look_again()

    async def _note_lost(self) -> None:
        self.stream = None
        self.on_lost()

    async def _note_closed(self) -> None:
        await self._note_lost()
        self.look_again()

    async def _note_problem(self, error: Exception) -> None:
        problem = f"NATS: {str(error) or type(error).__name__}"
        if problem != self.problem:
            log.warning("event sync: %s", problem)
        self.problem = problem


def _is_cancelled() -> bool:
    """Whether the task is to end: `asyncio.wait_for` of Python 3.11, which nats-py uses, may lose a
    cancellation."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _any_server_soon(servers: list[Server], _: dict[str, Any]) -> tuple[Server, float]:
    """Return the server to connect to next, and after how many seconds: stores do not come back to
    a server all at once."""
    return random.choice(servers), _pause()


def _pause() -> float:
    return random.uniform(0.05, LONGEST_RECONNECT_SECONDS)


def _tls(ca_file: Path | None) -> ssl.SSLContext | None:
    return None if ca_file is None else ssl.create_default_context(cafile=str(ca_file))


def _ignore() -> None:
    """The callback where none is set."""
