"""The API put together: one function, plain values in, an aiohttp application out.

Knows: its parts. Refuses to know: settings, sockets, and what the service does.
"""

from __future__ import annotations

from collections.abc import Iterable

from aiohttp import web

from store_cache.api.auth import Authority, Failures, KeyRing
from store_cache.api.cors import Cors
from store_cache.api.fast.reads import FastReads
from store_cache.api.handlers.admin import Admin
from store_cache.api.handlers.health import Health
from store_cache.api.handlers.reads import Reads
from store_cache.api.handlers.writes import Writes
from store_cache.api.middleware import exchange
from store_cache.api.parts import StoreParts
from store_cache.api.routes import Scopes, route_table

SCOPES = web.AppKey("scopes", Scopes)
"""Where the scope of each route is found, for whoever lists the routes."""

FAST_READS = web.AppKey("fast_reads", FastReads)
"""What answers the commonest reads before aiohttp does; missing where that is switched off."""


def build_api(
    store: StoreParts,
    *,
    store_id: str,
    keys: Iterable[str],
    admin_keys: Iterable[str],
    cors_origins: Iterable[str],
    body_seconds: float = 10.0,
    fast_reads: bool = True,
) -> web.Application:
    """The store's API over `store`.

    `keys` and `admin_keys` are plain or `sha256:<hex>`; without admin keys every key is one.
    `body_seconds` is how long a body may take to arrive.
    `fast_reads`: whether the commonest reads take the short way; their answers are the same.
    """
    scopes, cors = Scopes(), Cors(cors_origins)
    authority = Authority(KeyRing(keys=keys, admin_keys=admin_keys), Failures())
    middleware = exchange(authority=authority, scopes=scopes, cors=cors)
    app = web.Application(middlewares=[middleware])
    table = route_table(
        Reads(store, body_seconds=body_seconds),
        Writes(store, store_id=store_id, body_seconds=body_seconds),
        Admin(store),
        Health(store),
    )
    scopes.add(app, table)
    app[SCOPES] = scopes
    if fast_reads:
        app[FAST_READS] = FastReads(store, authority, cors)
    return app
