"""The feed in JetStream: a stream whose sequence numbers are offset + 1, and an entry about it.

Rules
- Stream `FEED_<hash of the generation>`, subject `feed.<hash>`, one message for each offset. Every
  message is published with the last sequence that it expects, so that several publishers never
  write an offset twice or out of order.
- Entry `current` of the key-value bucket `FEED` names the stream to read, and says how far the feed
  of Central went, and when (`{head, at}`). `at` is in seconds of the NATS server's clock, so that
  neither the clock of the publisher nor that of a store matters.
- `created` of the entry tells a stream from another one of the same name that took its place, so
  that nobody reads on in a mirror of the one before.
- Each entry is published under `feed.report`, too: `$KV` does not pass the link of a leaf node.

Errors:
    StreamFailed        NATS did not do as asked; the stream is opened anew later
    Overtaken           another publisher was first
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import nats.errors
import nats.js.errors
import orjson
from nats.aio.client import Client
from nats.js import api

from central_stub.publisher.plan import GAP

BUCKET = "FEED"
ENTRY = "current"
ENTRY_SUBJECT = f"$KV.{BUCKET}.{ENTRY}"
ENTRY_STREAM = f"KV_{BUCKET}"
REPORT_SUBJECT = "feed.report"
STREAM_PREFIX = "FEED_"
REPLY_SECONDS = 5.0
HEADER_BYTES = 512
"""Of `max_payload`, which counts the headers, too."""

AT_ONCE = 500
"""Messages under way at a time."""

_WRONG_LAST_SEQUENCE = 10071

log = logging.getLogger(__name__)


class StreamFailed(Exception):
    """NATS is away, or refused; the message says why."""


class Overtaken(Exception):
    """Another publisher has written this offset."""


@dataclass(frozen=True, slots=True)
class StreamState:
    """`first`: the oldest offset held. `next`: the one to be published next. `created`: when the
    stream was, as NATS says."""

    first: int
    next: int
    is_empty: bool
    created: str


def stream_name(generation: str) -> str:
    return STREAM_PREFIX + _hash(generation)


def subject(generation: str) -> str:
    return f"feed.{_hash(generation)}"


def _hash(generation: str) -> str:
    return hashlib.sha256(generation.encode()).hexdigest()[:16]


class FeedStream:
    """The stream of one generation. `replicas`: on how many servers of a cluster it is kept."""

    def __init__(self, client: Client, generation: str, *, replicas: int = 1) -> None:
        self.generation = generation
        self.name = stream_name(generation)
        self._subject = subject(generation)
        self._replicas = replicas
        self._client = client
        self._stream = client.jetstream(timeout=REPLY_SECONDS)
        self._created = ""
        self._server_time = 0.0
        self._server_time_at = 0.0

    async def state(self) -> StreamState | None:
        """Return where the stream stands, or None if there is none. Raises StreamFailed."""
        info = await self._info(self.name)
        arrived_at = time.monotonic()
        if info is None:
            return None
        self._server_time = datetime.fromisoformat(info["ts"]).timestamp()
        self._server_time_at = arrived_at
        self._created = info["created"]
        state = info["state"]
        return StreamState(
            state["first_seq"] - 1, state["last_seq"], not state["messages"], self._created
        )

    async def _info(self, name: str) -> dict[str, Any] | None:
        """Return what NATS says of a stream, or None if there is none. Raises StreamFailed."""
        try:
            reply = await self._client.request(
                f"$JS.API.STREAM.INFO.{name}", b"", timeout=REPLY_SECONDS
            )
        except (nats.errors.Error, TimeoutError) as error:
            raise _failed(error) from error
        info: dict[str, Any] = orjson.loads(reply.data)
        if (problem := info.get("error")) is None:
            return info
        if problem.get("code") == 404:
            return None
        raise StreamFailed(f"NATS says of {name}: {problem.get('description')}")

    def server_time(self, at: float) -> float:
        """Return the server's time at a moment of the monotonic clock, or a little earlier."""
        return self._server_time + at - self._server_time_at

    async def create(self, first: int) -> None:
        """Create the stream, to begin at the offset `first`, unless it exists by now."""
        config = api.StreamConfig(
            name=self.name,
            subjects=[self._subject],
            description="Central's feed; sequence = offset + 1",
            metadata={"generation": self.generation},
            first_seq=first + 1,
            num_replicas=self._replicas,
            storage=api.StorageType.FILE,
        )
        await self._try(self._stream.add_stream(config))

    async def keep_bucket(self) -> None:
        """Create the bucket if there is none: it may be lost by itself."""
        if await self._info(ENTRY_STREAM) is not None:
            return
        bucket = api.KeyValueConfig(
            bucket=BUCKET, description="what stream to read, and how far", replicas=self._replicas
        )
        await self._try(self._stream.create_key_value(bucket))

    async def delete(self) -> None:
        """Delete the stream. The entry says so before, that no store reads in a mirror of it what
        the next one of this name has."""
        self._created = ""
        with suppress(StreamFailed):  # the bucket may be lost
            await self.report(-1, time.monotonic())
        await self._try(self._stream.delete_stream(self.name))

    async def forget_older(self) -> None:
        """Delete the streams of generations before the last one, which nobody reads any more."""
        streams = await self._try(self._stream.streams_info())
        others = sorted(
            (each.created, each.config.name)
            for each in streams
            if each.config.name.startswith(STREAM_PREFIX) and each.config.name != self.name
        )
        for _, name in others[:-1]:
            await self._try(self._stream.delete_stream(name))

    async def message(self, offset: int) -> bytes:
        """Return the message of an offset. Raises StreamFailed."""
        message = await self._try(self._stream.get_msg(self.name, seq=offset + 1))
        return message.data or b""

    async def append(self, offset: int, messages: Sequence[bytes]) -> None:
        """Write messages from `offset` on. Raises Overtaken, StreamFailed."""
        for start in range(0, len(messages), AT_ONCE):
            part = messages[start : start + AT_ONCE]
            # Not `publish_async`, which never says that the server refused (nats-py 2.16).
            outcomes = await asyncio.gather(
                *(self._write(each, offset + start + n) for n, each in enumerate(part)),
                return_exceptions=True,
            )
            for outcome in outcomes:
                if isinstance(outcome, BaseException):
                    raise outcome

    async def _write(self, message: bytes, offset: int) -> None:
        headers = {api.Header.EXPECTED_LAST_SEQUENCE.value: str(offset)}
        if len(message) > self._client.max_payload - HEADER_BYTES:
            log.warning(
                "event %d has %d bytes, more than NATS takes (max_payload): it becomes a gap",
                *(offset, len(message)),
            )
            message = GAP
        try:
            await self._stream.publish(self._subject, message, stream=self.name, headers=headers)
        except nats.js.errors.APIError as error:
            if error.err_code == _WRONG_LAST_SEQUENCE:
                raise Overtaken from error
            raise _failed(error) from error
        except (nats.errors.Error, nats.js.errors.Error, TimeoutError) as error:
            raise _failed(error) from error

    async def report(self, head: int, at: float, since: float | None = None) -> None:
        """Say that the stream has all that Central's feed had at `at`, a moment of the monotonic
        clock: events up to the offset `head`. Central has answered without a failure since `since`,
        a time of the server; None: that is not known. Raises StreamFailed."""
        entry = {
            "stream": self.name,
            "generation": self.generation,
            "created": self._created,
            "head": head,
            "at": round(self.server_time(at), 3),
            "since": since,
        }
        data = orjson.dumps(entry)
        await self._try(self._client.publish(REPORT_SUBJECT, data))
        await self._try(self._stream.publish(ENTRY_SUBJECT, data))

    async def trim(self, first: int) -> None:
        """Forget the messages of offsets before `first`."""
        await self._try(self._stream.purge_stream(self.name, seq=first + 1))

    async def _try(self, call: Any) -> Any:
        try:
            return await asyncio.wait_for(call, REPLY_SECONDS)
        except (nats.errors.Error, nats.js.errors.Error, TimeoutError) as error:
            raise _failed(error) from error


def _failed(error: Exception) -> StreamFailed:
    return StreamFailed(f"NATS did not do as asked: {str(error) or type(error).__name__}")
