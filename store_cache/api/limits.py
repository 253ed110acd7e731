"""Caps on connections, in all and for each address, and the timer that checks their deadlines.

At a cap, a new connection takes the place of the oldest stranger: a connection on which no API key
has been accepted yet, and on which no request is being answered. Silent connections can so keep
nobody out, and what a till has opened is never closed to make room. Without a stranger the new
connection is refused. Connections from this machine, such as its own health checks, have a few
places more. The cap for each address does not apply to trusted proxies, from which many clients
come; to clients behind a proxy that names them by PROXY protocol v2, it does.

One timer checks all connections a few times a second: a timer for each of thousands of requests
would cost more than the requests.
"""

from __future__ import annotations

import asyncio
import logging
import resource
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from store_cache.api.proxies import TrustedProxies
from store_cache.api.throttled_log import SampledLog, ThrottledWarning

if TYPE_CHECKING:
    from store_cache.api.connection import ClientConnection

log = logging.getLogger(__name__)

# File descriptors for all else: files, up to 64 writes under way, polls, full syncs.
_OTHER_FILES = 200


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Deadlines in seconds; caps in connections."""

    first_byte_seconds: float = 5.0
    idle_seconds: float = 75.0
    head_seconds: float = 10.0
    unread_seconds: float = 30.0
    refused_seconds: float = 1.0
    check_seconds: float = 0.5
    most_connections: int = 2048
    most_connections_per_address: int = 512
    local_reserve: int = 16
    """How many more may come from this machine, beyond either cap."""
    cure: str = "close connections that are not needed"
    """What a person can do once the caps are reached."""

    @classmethod
    def within(cls, open_files: int) -> ConnectionLimits:
        """Return limits that leave files and connections to Central enough of `open_files`, the
        process's limit of file descriptors.

        Without a free one the system would cut connections, and nothing in the log would say so.
        """
        usual = cls()
        room = open_files - min(_OTHER_FILES, open_files // 2)
        if open_files == resource.RLIM_INFINITY or room >= usual.most_connections:
            return usual
        cure = f"raise the limit of open files, now {open_files}: LimitNOFILE= or ulimit -n"
        return cls(most_connections=room, cure=cure)


class ConnectionLimiter:
    """Applies the limits to all connections of one server. Built inside a running loop."""

    def __init__(self, limits: ConnectionLimits, proxies: TrustedProxies | None = None) -> None:
        self.limits = limits
        self._proxies = proxies or TrustedProxies()
        self._loop = asyncio.get_running_loop()
        self.now = self._loop.time
        # Dicts instead of sets, for their order: the oldest connection comes first.
        self._connections: dict[ClientConnection, None] = {}
        self._strangers: dict[ClientConnection, None] = {}
        self._strangers_of: defaultdict[str, dict[ClientConnection, None]] = defaultdict(dict)
        self._count_of: Counter[str] = Counter()  # by address
        self._too_many = ThrottledWarning(
            log, "connections are refused: too many are open", counted_as="refused"
        )
        self._made_room = ThrottledWarning(
            log, "connections without an API key were closed to make room", counted_as="closed"
        )
        self.malformed = SampledLog(log, "malformed HTTP request refused")
        self._request_ended = asyncio.Event()
        self._timer = self._loop.call_later(limits.check_seconds, self._check)

    def __len__(self) -> int:
        return len(self._connections)

    def admit(self, connection: ClientConnection) -> bool:
        """Count a new connection in; return False, counting nothing, if there is no place."""
        address, limits = connection.address, self.limits
        reserve = limits.local_reserve if connection.is_local else 0
        has_place = True
        # Many clients come from the address of a proxy that forwards HTTP.
        is_capped = not self._proxies.is_trusted(address)
        if is_capped and self._count_of[address] >= limits.most_connections_per_address + reserve:
            has_place = self._make_room(self._strangers_of.get(address, {}))
        elif len(self._connections) >= limits.most_connections + reserve:
            has_place = self._make_room(self._strangers)
        if not has_place:
            self._too_many.note(address=address, open=len(self._connections), cure=limits.cure)
            return False
        self._connections[connection] = None
        self._strangers[connection] = None
        self._strangers_of[address][connection] = None
        self._count_of[address] += 1
        return True

    def _make_room(self, strangers: dict[ClientConnection, None]) -> bool:
        """End the oldest stranger that waits for its client; return False if there is none."""
        oldest = next((one for one in strangers if not one.is_busy), None)
        if oldest is None:
            return False
        self._made_room.note(address=oldest.address, open=len(self._connections))
        self.forget(oldest)
        oldest.abort()
        return True

    def trust(self, connection: ClientConnection) -> None:
        """Note that an API key was accepted: the connection is no longer closed to make room. One
        that was lost before its request ended is not counted any more."""
        if connection.is_stranger and connection in self._connections:
            connection.is_stranger = False
            self._drop_stranger(connection)

    def _drop_stranger(self, connection: ClientConnection) -> None:
        del self._strangers[connection]
        strangers = self._strangers_of[connection.address]
        del strangers[connection]
        if not strangers:
            del self._strangers_of[connection.address]

    def forget(self, connection: ClientConnection) -> None:
        """Count a closed connection out; one that was refused is not counted."""
        if connection not in self._connections:
            return
        del self._connections[connection]
        if connection.is_stranger:
            self._drop_stranger(connection)
        self._count_of[connection.address] -= 1
        if not self._count_of[connection.address]:
            del self._count_of[connection.address]
        self.note_request_ended()

    def note_request_ended(self) -> None:
        """A request has been answered, or its connection is gone."""
        self._request_ended.set()

    def close_idle(self) -> None:
        """Close every connection on which no request is under way."""
        for connection in tuple(self._connections):
            connection.close_if_idle()

    async def wait_idle(self) -> None:
        """Wait until no request is being answered."""
        while any(connection.is_busy for connection in self._connections):
            self._request_ended.clear()
            await self._request_ended.wait()

    def close(self) -> None:
        """Abort all connections and stop checking."""
        self._timer.cancel()
        for connection in tuple(self._connections):
            connection.abort()

    def _check(self) -> None:
        now = self.now()
        for connection in [one for one in self._connections if one.is_overdue(now)]:
            connection.end_overdue()
        self._timer = self._loop.call_later(self.limits.check_seconds, self._check)
