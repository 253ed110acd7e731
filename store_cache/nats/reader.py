"""Reads a stream from an offset on, with a pull consumer that acknowledges nothing.

The consumer is this reader's own, and NATS forgets it half a minute after its last request. A
reader that is broken (the consumer is gone, the connection was lost, nothing is heard) is thrown
away, and another one begins at the position: the consumer's own place counts for nothing. The
stream may be another one by then, so a reader begins with the event before the position (E4).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js import api

from store_cache.nats.messages import GAP

AT_ONCE = 500
"""Messages that NATS may send before it is asked for more."""

MOST_BUFFERED = 2 * AT_ONCE
EXPIRES_SECONDS = 30.0
HEARTBEAT_SECONDS = 5.0
SILENT_SECONDS = 2.5 * HEARTBEAT_SECONDS
INACTIVE_SECONDS = 30.0

_NANOSECONDS = 1_000_000_000
_HEARTBEAT = "100"
_NO_MESSAGES = "404"
_EXPIRED = "408"


class StreamReader:
    """What NATS has sent of `stream` from `offset` on, in order: `messages` are (offset, bytes).

    `first`: the offset that the stream begins with. If it holds the message before `offset`, too,
    that one is `before`. `on_change` is called when there is a message, and when the reader breaks.
    """

    def __init__(
        self,
        client: Client,
        stream: str,
        offset: int,
        *,
        first: int,
        api_prefix: str,
        uptime: Callable[[], float],
        on_change: Callable[[], None],
    ) -> None:
        self._client = client
        self._stream = stream
        self._api_prefix = api_prefix
        self._uptime = uptime
        self._on_change = on_change
        self._requests = ""
        self._inbox = ""
        self._subscription: Subscription | None = None
        self._under_way = 0
        self._heard_at = uptime()
        self._offset = offset
        self._next = max(min(offset, first), offset - 1)
        self.began_at = uptime()
        self.before: bytes | None = None
        """The message before the first one, until somebody takes it away."""
        self.messages: deque[tuple[int, bytes]] = deque()
        self.problem = ""
        """Why the reader is broken; empty if it is not."""

    @property
    def next_offset(self) -> int:
        """The offset of the first message that was not taken yet."""
        return self.messages[0][0] if self.messages else max(self._next, self._offset)

    @property
    def awaits_before(self) -> bool:
        return self._next < self._offset

    @property
    def is_at_gap(self) -> bool:
        """Whether there is no event for the first offset, or for the one before it."""
        return self.before == GAP or bool(self.messages and self.messages[0][1] == GAP)

    @property
    def is_broken(self) -> bool:
        if self._under_way and self._uptime() - self._heard_at > SILENT_SECONDS:
            self.break_off("NATS sends nothing, not even a sign of life")
        return bool(self.problem)

    async def start(self) -> None:
        """Begin. Raises what nats-py raises."""
        if self._is_broken_off():
            return
        consumer = await self._client.jetstream(prefix=self._api_prefix).add_consumer(
            self._stream,
            api.ConsumerConfig(
                name=self._client.new_inbox().rpartition(".")[2],
                deliver_policy=api.DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=self._next + 1,
                ack_policy=api.AckPolicy.NONE,
                inactive_threshold=INACTIVE_SECONDS,
                mem_storage=True,
                num_replicas=1,
            ),
        )
        self._requests = f"{self._api_prefix}.CONSUMER.MSG.NEXT.{self._stream}.{consumer.name}"
        if self._is_broken_off():
            return
        self._inbox = self._client.new_inbox()
        self._subscription = await self._client.subscribe(self._inbox, cb=self._receive)
        if self._is_broken_off():
            await self._unsubscribe()
            return
        await self._ask()

    async def close(self) -> None:
        self.break_off("closed")
        await self._unsubscribe()

    async def _unsubscribe(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None and not self._client.is_closed:
            await subscription.unsubscribe()

    def _is_broken_off(self) -> bool:
        return bool(self.problem)

    def break_off(self, problem: str) -> None:
        """Take nothing more from this reader than what it has."""
        if not self.problem:
            self.problem = problem
            self._on_change()

    async def take(self) -> tuple[int, bytes]:
        """Return the first message, and have NATS asked for more if few are under way."""
        first = self.messages.popleft()
        if self._under_way <= AT_ONCE // 2:
            await self._ask()
        return first

    async def _ask(self) -> None:
        count = min(AT_ONCE, MOST_BUFFERED - len(self.messages)) - self._under_way
        if count <= 0 or self.problem:
            return
        if not self._under_way:
            self._heard_at = self._uptime()
        self._under_way += count
        request = {
            "batch": count,
            "expires": int(EXPIRES_SECONDS * _NANOSECONDS),
            "idle_heartbeat": int(HEARTBEAT_SECONDS * _NANOSECONDS),
        }
        await self._client.publish(self._requests, orjson.dumps(request), reply=self._inbox)

    async def _receive(self, message: Msg) -> None:
        self._heard_at = self._uptime()
        status = (message.headers or {}).get(api.Header.STATUS)
        if status is None:
            self._under_way = max(0, self._under_way - 1)
            self._add(message)
        elif status in (_NO_MESSAGES, _EXPIRED):
            pending = (message.headers or {}).get("Nats-Pending-Messages", "0")
            self._under_way = max(0, self._under_way - int(pending))
            if status == _NO_MESSAGES:
                self._under_way = 0
        elif status != _HEARTBEAT:
            about = (message.headers or {}).get(api.Header.DESCRIPTION, "")
            self.break_off(f"NATS ended the reading of {self._stream}: {status} {about}".strip())
            return
        if self._under_way <= AT_ONCE // 2:
            await self._ask()

    def _add(self, message: Msg) -> None:
        offset = message.metadata.sequence.stream - 1
        if offset != self._next:
            self.break_off(f"{self._stream} has offset {offset} where {self._next} was expected")
            return
        self._next += 1
        if offset < self._offset:
            self.before = message.data
        else:
            self.messages.append((offset, message.data))
        self._on_change()
