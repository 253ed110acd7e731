"""Safeguards of the HTTP API against what clients send, removed one by one (threats T)."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from store_cache.api import middleware
from store_cache.api.connection import ClientConnection
from store_cache.api.limits import ConnectionLimiter
from store_cache.api.throttled_log import SampledLog
from tests.removals.removal import Patch, Removals

of_connections = Removals()

_LIMITS = "tests/unit/api/test_limits.py"
_ODD = "tests/unit/api/test_odd_clients.py"


@of_connections(
    "T11",
    "connections are capped",
    test=f"{_LIMITS}::test_connections_are_capped_in_all",
    why="the simulation has a handful of tills",
)
def caps_on_connections(patch: Patch) -> None:
    """Every connection is admitted."""
    admit = ConnectionLimiter.admit

    def admitted(self: ConnectionLimiter, connection: Any) -> bool:
        if not admit(self, connection):
            patch.act()
        return True

    patch.replace(ConnectionLimiter, "admit", admitted)


@of_connections(
    "T11",
    "connections without a key make room at the cap",
    test=f"{_LIMITS}::test_the_oldest_stranger_makes_room",
    why="the simulation has a handful of tills",
)
def room_for_tills(patch: Patch) -> None:
    """At the cap, the new connection is refused, whoever holds the others."""

    def refuse(_self: ConnectionLimiter, _strangers: object) -> bool:
        patch.act()
        return False

    patch.replace(ConnectionLimiter, "_make_room", refuse)


@of_connections(
    "T10",
    "a connection that stays silent at first is closed soon",
    test=f"{_LIMITS}::test_a_till_between_requests_keeps_its_connection",
    why="the tills of the simulation all ask",
)
def first_bytes_in_time(patch: Patch) -> None:
    """It is kept for as long as one between two requests."""
    wait = ClientConnection._wait_for_request

    def wait_as_always(self: ClientConnection, seconds: float) -> None:
        limits = self._limiter.limits
        if seconds == limits.first_byte_seconds:
            patch.act()
            seconds = limits.idle_seconds
        wait(self, seconds)

    patch.replace(ClientConnection, "_wait_for_request", wait_as_always)


@of_connections(
    "T9",
    "an invalid `Host` and other transfer codings are refused",
    test=f"{_ODD}::test_another_transfer_coding_is_refused",
    why="the tills of the simulation send neither",
)
def ambiguous_messages(patch: Patch) -> None:
    """Whatever aiohttp's parser lets through is answered."""

    def check(_request: web.Request) -> None:
        patch.act()

    patch.replace(middleware, "_check_message", check)


@of_connections(
    "T15",
    "refused requests are sampled in the log",
    test="tests/unit/api/test_middleware.py::test_a_flood_of_refused_requests_is_sampled",
    why="nothing is wrong with the lines but their number",
)
def sampled_refusals(patch: Patch) -> None:
    """Each is a line, at any rate."""

    def note(self: SampledLog, level: int, facts: dict[str, object], **kind: object) -> None:
        patch.act()
        self._log.log(level, self._message, extra={**facts, **kind})

    patch.replace(SampledLog, "note", note)
