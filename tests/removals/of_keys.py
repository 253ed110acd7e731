"""Safeguards of who may call what, removed one by one (threats T)."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aiohttp import web

from store_cache.api import middleware
from store_cache.api.auth import Authenticator, Caller, Scope
from store_cache.api.connection import ClientConnection
from store_cache.api.fast.reads import FastConnection
from store_cache.api.front import Front
from store_cache.api.middleware import Middleware
from store_cache.api.problems import ApiError, render
from store_cache.api.proxies import SIGNATURE, TrustedProxies
from store_cache.api.request_rates import RatePolicy
from store_cache.api.wrong_keys import WrongKeys
from store_cache.app import admin_token
from store_cache.app.reload import Reloader
from store_cache.app.settings import Settings
from store_cache.central.client import CentralClient
from store_cache.cli import connect
from store_cache.writes import idempotency
from store_cache.writes.write import WriteError
from tests.removals.removal import Patch, Removals

of_keys = Removals()

_AUTH = "tests/unit/api/test_auth.py"
_TOKEN = "tests/unit/app/test_admin_token.py"
_PROXIES = "tests/unit/api/test_proxies.py"
_TILLS = "the tills of the simulation have one key and keep to it"


@of_keys(
    "T20",
    "a route needs its scope",
    test=f"{_AUTH}::test_each_role_on_each_route",
    why=_TILLS,
)
def scopes_of_routes(patch: Patch) -> None:
    """Every key may do everything."""

    authenticate = Middleware._authenticate

    def any_key(self: Middleware, request: web.Request, needed: Scope) -> None:
        patch.act()
        authenticate(self, request, min(needed, Scope.READ))

    patch.replace(Middleware, "_authenticate", any_key)


@of_keys(
    "T1",
    "a right key is looked up before the limit on wrong ones",
    test=f"{_AUTH}::test_a_right_key_is_accepted_after_any_number_of_wrong_ones",
    why=_TILLS,
)
def right_keys_first(patch: Patch) -> None:
    """While an address is limited, no key is accepted from it."""
    identify = Authenticator.identify

    def limited_first(
        self: Authenticator, values: Sequence[str], *, address: str, now: float
    ) -> Caller:
        held, of_all = self._wrong_keys._counts.get(address), self._wrong_keys._of_all
        is_limited = held is not None and held.count >= self._wrong_keys._limit
        if is_limited or of_all.count >= self._wrong_keys._limit_of_all:
            patch.act()
            return identify(self, ["wrong"], address=address, now=now)
        return identify(self, values, address=address, now=now)

    patch.replace(Authenticator, "identify", limited_first)


@of_keys(
    "T1",
    "wrong keys from many addresses are limited together",
    test=f"{_AUTH}::test_wrong_keys_from_many_addresses_are_limited_together",
    why=_TILLS,
)
def limit_of_all(patch: Patch) -> None:
    """Only those of one address are."""
    add = WrongKeys.add

    def add_alone(self: WrongKeys, address: str, now: float) -> float:
        limit = self._limit_of_all
        if self._of_all.count >= limit:
            patch.act()
            self._limit_of_all = self._of_all.count + 1
        try:
            return add(self, address, now)
        finally:
            self._limit_of_all = limit

    patch.replace(WrongKeys, "add", add_alone)


@of_keys("T1", "keys end", test=f"{_AUTH}::test_a_key_ends_at_its_time", why=_TILLS)
def end_of_keys(patch: Patch) -> None:
    """A key is accepted after its end."""

    def for_ever(_self: Authenticator, _caller: Caller) -> bool:
        patch.act()
        return True

    patch.replace(Authenticator, "is_current", for_ever)


@of_keys(
    "T1",
    "fast reads forget keys that were exchanged",
    test=f"{_AUTH}::test_keys_are_exchanged_under_requests",
    why=_TILLS,
)
def fast_reads_of_revoked_keys(patch: Patch) -> None:
    """An open connection goes on with a revoked key."""
    understand = FastConnection._understand

    def as_before(self: FastConnection, raw_fields: bytes, *, has_body: bool) -> Any:
        if self._ring is not self._reads.authenticator.ring:
            patch.act()
            self._ring = self._reads.authenticator.ring
        return understand(self, raw_fields, has_body=has_body)

    patch.replace(FastConnection, "_understand", as_before)


@of_keys(
    "T1",
    "a reload applies everything or nothing",
    test="tests/unit/app/test_tls.py::test_a_reload_reads_the_files_of_the_listener",
    why="the simulation sends no signals",
)
def whole_reloads(patch: Patch) -> None:
    """A reload that reads a wrong file ends in the middle, and says nothing."""
    read = Reloader._read

    def or_fall_over(self: Reloader) -> Any:
        try:
            return read(self)
        except ValueError as problem:
            patch.act()
            raise RuntimeError from problem

    patch.replace(Reloader, "_read", or_fall_over)


@of_keys(
    "T2",
    "only trusted proxies are believed about addresses",
    test=f"{_PROXIES}::test_the_log_names_the_client",
    why="the simulation has no proxies",
)
def believed_proxies(patch: Patch) -> None:
    """Whoever sends `X-Forwarded-For` is believed."""

    def believe(_self: TrustedProxies, peer: str, forwarded: Sequence[str]) -> str:
        if not forwarded:
            return peer
        patch.act()
        return forwarded[-1]

    patch.replace(TrustedProxies, "client_of", believe)


@of_keys(
    "T2",
    "a proxy that should send a header must send one",
    test=f"{_PROXIES}::test_a_proxy_that_sends_no_header_is_refused",
    why="the simulation has no proxies",
)
def demanded_headers(patch: Patch) -> None:
    """What sends none is taken for a client that calls by itself."""

    read = Front._read_header

    async def read_if_there(self: Front, accepted: socket.socket) -> str | None:
        await asyncio.sleep(0.05)
        with socket.socket(fileno=os.dup(accepted.fileno())) as same:
            begins = same.recv(len(SIGNATURE), socket.MSG_PEEK)
        if begins == SIGNATURE:
            return await read(self, accepted)
        patch.act()
        return None

    patch.replace(Front, "_read_header", read_if_there)


@of_keys(
    "T10",
    "connections are counted before the TLS handshake",
    test="tests/unit/api/test_tls.py::test_silent_connections_count_before_the_handshake",
    why="the simulation has no TLS",
)
def counted_handshakes(patch: Patch) -> None:
    """They count once they speak HTTP."""

    def accept_unseen(
        self: ClientConnection, accepted: Any, address: str, *, is_local: bool
    ) -> bool:
        patch.act()
        self._socket, self.address, self.is_local = accepted, address, is_local
        return True

    patch.replace(ClientConnection, "accept", accept_unseen)


@of_keys(
    "T11",
    "a client's requests a second are limited",
    test="tests/unit/api/test_request_rates.py::test_a_refused_request_says_how_to_go_on",
    why="the simulation sets no limits",
)
def limited_clients(patch: Patch) -> None:
    """One client may use all the time there is."""
    take = RatePolicy.take

    def take_any(self: RatePolicy, client: str) -> bool:
        if not take(self, client):
            patch.act()
        return True

    patch.replace(RatePolicy, "take", take_any)


@of_keys(
    "T16",
    "a reused key's first client is named",
    test="tests/unit/writes/test_idempotency.py::test_a_restart_remembers_who_used_a_key_first",
    why="the tills of the simulation form keys of their own",
)
def named_first_use(patch: Patch) -> None:
    """The answer says that the key was used, and not by whom."""

    def unnamed(key: str, **_first: Any) -> WriteError:
        patch.act()
        details = {"idempotencyKey": key, "firstUsedAt": None, "firstUsedBy": None}
        return WriteError("idempotency_key_reused", "This key was used before", details=details)

    patch.replace(idempotency, "key_reused", unnamed)


@of_keys(
    "T21",
    "the command line's token is for the store's user alone",
    test=f"{_TOKEN}::test_nobody_else_can_read_it",
    why="the simulation has no command line",
)
def token_for_one_user(patch: Patch) -> None:
    """The token is written as any file, and where a link leads."""

    def write(path: Path, token: str) -> None:
        patch.act()
        path.write_text(token)

    patch.replace(admin_token, "_write", write)


@of_keys(
    "T6",
    "the command line's token goes to this machine's store alone",
    test=f"{_TOKEN}::test_token_is_sent_to_this_machine_s_store_alone",
    why="the simulation has no command line",
)
def token_for_one_store(patch: Patch) -> None:
    """`store-cache status --url …` sends it to whatever answers there."""

    def is_own(_url: str, _settings: Settings) -> bool:
        patch.act()
        return True

    patch.replace(connect, "_is_own", is_own)


@of_keys(
    "T4",
    "refusals of Central are shown without the key",
    test="tests/unit/central/test_client.py::test_a_refusal_does_not_show_the_key",
    why="the Central of the simulation does not repeat keys",
)
def key_in_refusals(patch: Patch) -> None:
    """What Central says about a write is passed on as it is."""

    def as_it_is(_client: CentralClient, value: Any) -> Any:
        patch.act()
        return value

    patch.replace(CentralClient, "_without_key", as_it_is)


@of_keys(
    "T9",
    "a transfer coding that is not understood ends the connection",
    test="tests/unit/api/test_bad_requests.py::test_another_coding_ends_the_connection",
    why="the tills of the simulation use one program for HTTP",
)
def connection_of_odd_codings(patch: Patch) -> None:
    """It is kept, and what follows is answered."""

    def kept(request: web.Request, refusal: ApiError) -> web.Response:
        patch.act()
        return render(refusal, ",".join(request.headers.getall("Accept", ())))

    patch.replace(middleware, "_refused", kept)
