"""The HTTP API as an aiohttp application, built from the store's parts and plain values."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from aiohttp import web
from aiohttp.typedefs import Handler

from store_cache.api.auth import AUTHENTICATOR, Authenticator, KeyRing, Scope
from store_cache.api.console.console import console_routes
from store_cache.api.content.models import NoteUnknown
from store_cache.api.cors import Cors
from store_cache.api.fast.reads import FastReads
from store_cache.api.handlers.admin import Admin
from store_cache.api.handlers.dump import dump_routes
from store_cache.api.handlers.health import Health
from store_cache.api.handlers.history import history_routes
from store_cache.api.handlers.in_doubt import InDoubt
from store_cache.api.handlers.metrics import MetricsRoutes
from store_cache.api.handlers.reads import Reads
from store_cache.api.handlers.verification import verification_routes
from store_cache.api.handlers.writes import Writes
from store_cache.api.metrics.counts import OTHER
from store_cache.api.middleware import Middleware
from store_cache.api.openapi.docs import ApiDocs
from store_cache.api.outbox.routes import OutboxRoutes
from store_cache.api.parts import StoreParts
from store_cache.api.proxies import TrustedProxies
from store_cache.api.request_rates import RequestRates
from store_cache.api.routes import refuse_no_path, route_table
from store_cache.api.routing import Route, add_routes
from store_cache.api.search.reads import SearchingReads
from store_cache.api.stream.handler import stream_routes
from store_cache.api.stream.streams import Streams
from store_cache.api.throttled_log import ThrottledWarning
from store_cache.api.wrong_keys import WrongKeys

log = logging.getLogger(__name__)

_LONGEST_NAME = 100
_NO_PROXIES = TrustedProxies()

UNROUTED: web.AppKey[Handler] = web.AppKey("unrouted")
"""Answers requests for what is no path, which no route can match."""

PROXIES = web.AppKey("proxies", TrustedProxies)
"""Whose word on the address of a client is taken."""

REQUEST_RATES = web.AppKey("request_rates", RequestRates)
"""The limits on the requests of each client."""

FAST_READS = web.AppKey("fast_reads", FastReads)
"""Answers the commonest reads in front of aiohttp; absent if that is switched off."""

STREAMS = web.AppKey("streams", Streams)
"""The open streams of changes; absent if they are switched off."""


def build_api(
    store: StoreParts,
    *,
    store_id: str,
    keys: KeyRing,
    cors_origins: Iterable[str],
    body_seconds: float = 10.0,
    fast_reads: bool = True,
    proxies: TrustedProxies = _NO_PROXIES,
    rates: RequestRates | None = None,
    console: bool = False,
    api_docs: bool = False,
) -> web.Application:
    """Return the API of `store`.

    `rates` limit each client. `proxies` are believed about the addresses of clients.
    `app[AUTHENTICATOR]` exchanges the `keys`.
    `body_seconds` is how long the body of a request may take to arrive. `fast_reads` changes the
    speed of the commonest reads, not their answers. `console` adds the page for operators at `/`,
    `api_docs` the description of the API at `/openapi.json` and `/docs`.
    """
    cors = Cors(cors_origins)
    authenticator = Authenticator(keys, WrongKeys())
    rates = rates or RequestRates()
    counts = None if store.metrics is None else store.metrics.counts
    middleware = Middleware(
        authenticator=authenticator,
        rates=rates,
        proxies=proxies,
        cors=cors,
        counts=counts,
        traced=store.traced,
    )
    app = web.Application()
    note_unknown = _noting_unknown_fields()
    features: list[Route] = [*dump_routes(store)]
    if store.metrics is not None:
        features += MetricsRoutes(store.metrics).routes()
    features += _features_with_bodies(store, body_seconds, note_unknown)
    if console:
        features += console_routes(api_docs=api_docs)
    if store.streams is not None:
        features += stream_routes(store, store.streams, authenticator)
        app[STREAMS] = store.streams
    if store.history is not None:
        features += history_routes(store, store.history)
    docs = ApiDocs() if api_docs else None
    if docs is not None:
        features += docs.routes()
    reads_of = Reads if store.search is None else SearchingReads
    routes = route_table(
        reads_of(store, body_seconds=body_seconds, note_unknown=note_unknown),
        Writes(store, store_id=store_id, body_seconds=body_seconds, note_unknown=note_unknown),
        InDoubt(store, body_seconds=body_seconds, note_unknown=note_unknown),
        Admin(store),
        Health(store),
        features,
    )
    if docs is not None:
        docs.describe(routes)
    add_routes(app, routes, middleware.around)
    app[UNROUTED] = middleware.around(refuse_no_path, OTHER, Scope.OPEN)
    app[AUTHENTICATOR] = authenticator
    app[REQUEST_RATES] = rates
    app[PROXIES] = proxies
    if fast_reads:
        app[FAST_READS] = FastReads(store, authenticator, cors, counts, rates.reads)
    return app


def _noting_unknown_fields() -> NoteUnknown:
    """Return what is told of unknown fields in bodies, and logs some."""
    warning = ThrottledWarning(log, "unknown fields in bodies are ignored", counted_as="ignored")

    def note(name: str) -> None:
        warning.note(field=name[:_LONGEST_NAME])

    return note


def _features_with_bodies(
    store: StoreParts, body_seconds: float, note_unknown: NoteUnknown
) -> list[Route]:
    """Return the routes of the parts that can be switched off and take bodies."""
    routes: list[Route] = []
    if store.verifier is not None:
        routes += verification_routes(
            store.verifier, body_seconds=body_seconds, note_unknown=note_unknown
        )
    if store.outbox is not None:
        outbox = OutboxRoutes(
            store, store.outbox, body_seconds=body_seconds, note_unknown=note_unknown
        )
        routes += outbox.routes()
    return routes
