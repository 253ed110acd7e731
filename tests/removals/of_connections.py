"""Safeguards of the HTTP API against what clients send, removed one by one (threats T)."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from store_cache.api import middleware
from store_cache.api.connection import ClientConnection
from store_cache.api.content import requests
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
    "T12",
    "a body has a limited number of names and items",
    test="tests/unit/api/test_request_bodies.py::test_a_body_of_too_many_members_is_too_large",
    why="the tills of the simulation send small bodies",
)
def members_of_bodies(patch: Patch) -> None:
    """Whatever fits into 256 KiB is parsed."""

    def has_more_members(_body: bytes, _limit: int) -> bool:
        patch.act()
        return False

    patch.replace(requests, "has_more_members", has_more_members)


@of_connections(
    "T10",
    "what arrives at once is parsed in parts",
    test="tests/unit/api/test_odd_clients.py::test_others_get_their_turn",
    why="the tills of the simulation send small requests",
)
def turns_between_parts(patch: Patch) -> None:
    """All of it is parsed in one turn of the event loop."""
    hand_over = ClientConnection._hand_over

    def hand_over_all(self: ClientConnection, data: bytes) -> None:
        patch.act()
        hand_over(self, data)
        while self._kept_back and not self._waits_for_answer:
            rest, self._kept_back = self._kept_back, b""
            hand_over(self, rest)

    patch.replace(ClientConnection, "_hand_over", hand_over_all)


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
