"""The operations of the API as they are published, in the order of the route table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from store_cache.api.content import documents
from store_cache.api.content.models import (
    DEFAULT_CHANGES,
    DEFAULT_LIMIT,
    IDEMPOTENCY_HEADER,
    KEY_MUST_BE,
    KEY_SCHEMA,
    LARGEST_LIMIT,
    MOST_LOOKUPS,
    MOST_STREAMED,
    MOST_UPDATES,
    SENDABLE_SCHEMA,
    AdjustmentBody,
    BatchBody,
    IdLookupBody,
    SettleBody,
    UpdateBody,
    VerifyBody,
)
from store_cache.api.metrics.history import MOST_MINUTES
from store_cache.api.openapi.operation import Answer, Header, Operation, Parameter

READING, WRITING, SYNC = "Reading", "Writing", "Sync and cache"
HEALTH, METRICS, PAGES, OUTBOX = "Health", "Metrics", "Pages", "Outbox"

TAGS: Mapping[str, str] = {
    READING: "Answered from memory, also while Central is away.",
    WRITING: "Forwarded to Central. Repeat a write without an answer with the same key: it is not "
    "applied twice, and a key that was answered gives the same answer again.",
    SYNC: "How the store keeps in sync with Central.",
    HEALTH: "For probes.",
    METRICS: "For Prometheus and for charts.",
    OUTBOX: "Writes that could not reach Central, kept on disk and sent later.",
    PAGES: "Files that say nothing about the shop.",
}

# -- headers of answers ------------------------------------------------------------------------

HEADERS: Mapping[str, Header] = {
    "X-Request-ID": Header(
        "The caller's, if it sent a proper one; otherwise a new one. Logs have it too."
    ),
    "Cache-Control": Header(
        "`private, no-cache`: revalidate before each use; `no-cache`: the same, for "
        "any cache; `no-store`: do not keep it."
    ),
    "X-Cache-Offset": Header(
        "The last event of Central's feed that the answer reflects.",
        {"type": "integer", "minimum": 0},
    ),
    "X-Cache-Generation": Header(
        "The feed that the offset belongs to. After a change, versions may be lower than before. "
        "Characters other than visible ASCII are percent-encoded."
    ),
    "Age": Header(
        "Seconds, rounded up, since the store was last known to be in sync with Central; "
        "2147483648: never.",
        {"type": "integer", "minimum": 0, "maximum": 2**31},
    ),
    "Cache-Status": Header(
        "`store-cache; hit`, with `detail=stale`, `detail=not-durable` or both "
        "(`detail=stale/not-durable`)."
    ),
    "Location": Header("Where the entry of the outbox is found."),
    "ETag": Header("Identifies the content: strong for a product, weak for a page or a lookup."),
    "Content-Security-Policy": Header("What the page may load: the store's own files."),
    "RateLimit-Policy": Header("This client's limit, if that is reached: `q` requests in `w` s."),
    "RateLimit": Header("How many requests are left, and in how many seconds there are more."),
    "X-Accel-Buffering": Header("`no`: proxies pass events on at once."),
    "Retry-After": Header(
        "Seconds to wait before the next try.", {"type": "integer", "minimum": 1}
    ),
}

EVERYWHERE = ("X-Request-ID", "Cache-Control")
"""The headers of every answer."""

FRESHNESS = ("X-Cache-Offset", "X-Cache-Generation", "Age", "Cache-Status")

ALWAYS = frozenset(
    {*EVERYWHERE, "X-Cache-Offset", "Age", "Cache-Status", "ETag", "Content-Security-Policy"}
)
"""The headers that every answer which names them has; others may be missing."""

ERROR_HEADERS: Mapping[str, tuple[str, ...]] = {
    "product_not_found": FRESHNESS,
    "rate_limited": ("Retry-After", "RateLimit-Policy", "RateLimit"),
    "cache_not_ready": ("Retry-After",),
    "too_many_streams": ("Retry-After",),
    "index_not_ready": ("Retry-After",),
    "central_unavailable": ("Retry-After",),
    "outbox_full": ("Retry-After",),
    "central_timeout": ("Retry-After", "Location"),
}

# -- parameters --------------------------------------------------------------------------------

_PRODUCT_ID = Parameter(
    "productId",
    "path",
    "Percent-encoded; a slash is `%2F`",
    SENDABLE_SCHEMA | {"type": "string"},
    is_required=True,
    example="PROD-001",
)
_LIMIT = Parameter(
    "limit",
    "query",
    f"Products in the page; more than {LARGEST_LIMIT} count as {LARGEST_LIMIT}",
    {"type": "integer", "minimum": 1, "default": DEFAULT_LIMIT},
    example=2,
)
_OFFSET = Parameter(
    "offset",
    "query",
    "Products before the page",
    {"type": "integer", "minimum": 0, "default": 0},
)
_AFTER = Parameter(
    "after",
    "query",
    "The id before the page, which need not exist; empty: the first page. It walks the whole "
    "catalogue while that changes. It is not combined with `offset`.",
)
_IF_NONE_MATCH = Parameter(
    "If-None-Match", "header", "The `ETag` of an earlier answer: if it is unchanged, 304"
)
_PRODUCT_IDS = Parameter(
    "productIds",
    "query",
    f"Up to {MOST_STREAMED} ids, each percent-encoded, separated by commas; without it every "
    "product",
    {"type": "string", "minLength": 1},
    example="PROD-001,PROD-002",
)
_FROM = Parameter(
    "from",
    "query",
    "`start`: first every product, then `ready`, then changes; without it changes from now on",
    {"type": "string", "enum": ["start"]},
)
_LAST_EVENT_ID = Parameter(
    "Last-Event-ID", "header", "The last id that was received: the stream goes on from there"
)
_NO_CACHE = Parameter("Cache-Control", "header", "`no-cache`: ask Central for the product first")
_KEY = Parameter(
    IDEMPOTENCY_HEADER,
    "header",
    f"A new one for each sale, the same for its repeats: {KEY_MUST_BE}",
    KEY_SCHEMA | {"type": "string"},
    is_required=True,
    example="order-12350",
)
_ACCEPT = Parameter(
    "accept",
    "query",
    "`true`: accept a catalogue that lost most of its products",
    {"type": "string", "enum": ["true", "false"], "default": "false"},
)

# -- operations --------------------------------------------------------------------------------

_CACHED = (*FRESHNESS, "ETag")
_NOT_MODIFIED = Answer(304, "Unchanged since the `ETag` sent", media_types=(), headers=_CACHED)
_WRITE_ERRORS = (
    "idempotency_key_reused",
    "central_error",
    "central_unavailable",
    "storage_unavailable",
    "outbox_full",
    "central_timeout",
)
_WRITE_ANSWERS = (
    Answer(200, "Central applied the write", documents.AppliedWrite),
    Answer(
        202,
        "Central cannot be reached, and the write is kept on disk to be sent later "
        "(`OFFLINE_WRITES=queue`)",
        documents.QueuedWrite,
        headers=("Location",),
    ),
    Answer(400, "Central refused the write: `invalid_request`", documents.RefusedWrite),
    Answer(404, "Central has no such product: `product_not_found`", documents.RefusedWrite),
    Answer(
        409,
        "Central refused the write: `version_conflict`, `insufficient_inventory`; or a person has "
        "settled it or given it up: `settled_not_applied`, `discarded`",
        documents.RefusedWrite,
    ),
)

READ_HEALTH = Operation(
    "readHealth",
    HEALTH,
    "Say how well the store works",
    "200 while the process can serve, also if something is wrong: `status` is then `degraded`.",
    answers=(Answer(200, "The store can serve", documents.Health),),
)
READ_READINESS = Operation(
    "readReadiness",
    HEALTH,
    "Say whether there is a catalogue to serve",
    answers=(Answer(200, "There is a catalogue", documents.Ready),),
    errors=("cache_not_ready",),
)
LIST_PRODUCTS = Operation(
    "listProducts",
    READING,
    "Read a page of the catalogue",
    "Products are ordered by the code points of their ids.",
    parameters=(_OFFSET, _LIMIT, _AFTER, _IF_NONE_MATCH),
    answers=(Answer(200, "A page", documents.Page, headers=_CACHED), _NOT_MODIFIED),
    errors=("cache_not_ready",),
)
LOOK_UP_PRODUCTS = Operation(
    "lookUpProducts",
    READING,
    f"Read up to {MOST_LOOKUPS} products by their ids",
    "Each product comes once, in the order asked for.",
    parameters=(_IF_NONE_MATCH,),
    body=IdLookupBody,
    answers=(Answer(200, "The products", documents.Basket, headers=_CACHED), _NOT_MODIFIED),
    errors=("cache_not_ready",),
)
UPDATE = Operation(
    "updateInventory",
    WRITING,
    "Sell or receive, at the version that was read",
    body=UpdateBody,
    answers=_WRITE_ANSWERS,
    errors=_WRITE_ERRORS,
)
BATCH = Operation(
    "updateInventoryInBatch",
    WRITING,
    f"Send up to {MOST_UPDATES} updates, each with its own key",
    "If the outcome of one is unknown, the answer is `central_timeout`: repeat the batch.",
    body=BatchBody,
    answers=(Answer(200, "The results, in the order sent", documents.BatchResult),),
    errors=_WRITE_ERRORS,
)
STREAM_CHANGES = Operation(
    "streamChanges",
    READING,
    "Follow the changes of the catalogue as Server-Sent Events",
    "Events are `state`, `product`, `deleted`, `ready`, `position`, `reset` and, with an outbox, "
    "`write`.",
    parameters=(_PRODUCT_IDS, _FROM, _LAST_EVENT_ID),
    answers=(
        Answer(
            200,
            "Events, until one of both ends closes",
            media_types=("text/event-stream",),
            headers=("X-Accel-Buffering",),
        ),
    ),
    errors=("cache_not_ready", "too_many_streams"),
)
READ_PRODUCT = Operation(
    "readProduct",
    READING,
    "Read a product",
    parameters=(_PRODUCT_ID, _IF_NONE_MATCH, _NO_CACHE),
    answers=(Answer(200, "The product", documents.Product, headers=_CACHED), _NOT_MODIFIED),
    errors=("product_not_found", "cache_not_ready", "central_timeout"),
)
READ_HISTORY = Operation(
    "readHistory",
    READING,
    "Read what happened to a product",
    "In memory since the store's start. The first catalogue is no change.",
    parameters=(
        _PRODUCT_ID,
        Parameter(
            "limit",
            "query",
            f"Changes, the newest first; more than {LARGEST_LIMIT} count as {LARGEST_LIMIT}",
            {"type": "integer", "minimum": 1, "default": DEFAULT_CHANGES},
        ),
    ),
    answers=(Answer(200, "The changes", documents.ProductHistory),),
    errors=("product_not_found", "cache_not_ready"),
)
ADJUST = Operation(
    "adjustInventory",
    WRITING,
    "Sell or receive without a version",
    "The store fills the version in when it is the write's turn, and settles conflicts.",
    parameters=(_PRODUCT_ID, _KEY),
    body=AdjustmentBody,
    answers=_WRITE_ANSWERS,
    errors=("product_not_found", *_WRITE_ERRORS),
)
LIST_IN_DOUBT = Operation(
    "listWritesInDoubt",
    WRITING,
    "List the writes whose outcome is unknown",
    parameters=(
        Parameter(
            "state",
            "query",
            "Only writes in doubt are listed",
            {"type": "string", "enum": ["in_doubt"], "default": "in_doubt"},
        ),
    ),
    answers=(Answer(200, "The writes, the oldest first", documents.WritesInDoubt),),
)
SETTLE = Operation(
    "settleWrite",
    WRITING,
    "Say what became of a write in doubt",
    "For a person who has found out. The write is never sent again, and a repeat of it gets this "
    "answer.",
    parameters=(
        Parameter(
            "idempotencyKey",
            "path",
            "Percent-encoded; a slash is `%2F`",
            KEY_SCHEMA | {"type": "string"},
            is_required=True,
            example="order-12350",
        ),
    ),
    body=SettleBody,
    answers=(Answer(200, "It is settled", documents.SettledWrite),),
    errors=("write_not_found", "write_under_way", "write_not_in_doubt", "central_timeout"),
)
READ_SYNC_STATUS = Operation(
    "readSyncStatus",
    SYNC,
    "Read the state of the store and of its sync",
    answers=(Answer(200, "The status", documents.SyncStatus),),
)
READ_CACHE_STATS = Operation(
    "readCacheStats",
    SYNC,
    "Read sizes and times of the cache",
    answers=(Answer(200, "The statistics", documents.CacheStats),),
)
FORCE_SYNC = Operation(
    "forceSync",
    SYNC,
    "Run a full sync, and answer when it has ended",
    parameters=(_ACCEPT,),
    answers=(Answer(200, "The full sync succeeded", documents.ForcedSync),),
    errors=("sync_failed", "central_timeout"),
)

# -- metrics -----------------------------------------------------------------------------------

READ_METRICS = Operation(
    "readMetrics",
    METRICS,
    "Read the metrics, as Prometheus does",
    "OpenMetrics if `Accept` asks for it. Whether a key is needed is a setting.",
    answers=(
        Answer(200, "The metrics", media_types=("text/plain", "application/openmetrics-text")),
    ),
)
READ_METRICS_HISTORY = Operation(
    "readMetricsHistory",
    METRICS,
    "Read the last hour, a point for every ten seconds",
    parameters=(
        Parameter(
            "minutes",
            "query",
            "How much of it",
            {"type": "integer", "minimum": 1, "maximum": MOST_MINUTES, "default": MOST_MINUTES},
        ),
    ),
    answers=(Answer(200, "The points", documents.MetricsHistory),),
)

DUMP = Operation(
    "dumpInventory",
    READING,
    "Read the whole catalogue at one position",
    "JSON lines: first generation, offset and number of products, then a product in each line. An "
    "answer with fewer products was cut off.",
    answers=(Answer(200, "The catalogue, a line each", media_types=("application/x-ndjson",)),),
    errors=("cache_not_ready",),
)

# -- verification ------------------------------------------------------------------------------

VERIFY = Operation(
    "verify",
    SYNC,
    "Compare the catalogue with Central's, and answer when that has ended",
    body=VerifyBody,
    needs_body=False,
    answers=(Answer(200, "What the comparison found", documents.Verification),),
)

# -- pages -------------------------------------------------------------------------------------

_PAGE_HEADERS = ("ETag", "Content-Security-Policy")
_PAGE = (
    Answer(200, "The page", media_types=("text/html",), headers=_PAGE_HEADERS),
    Answer(304, "Unchanged since the `ETag` sent", media_types=(), headers=_PAGE_HEADERS),
)
_FILE_TYPES = ("text/html", "text/css", "text/javascript", "image/png", "image/svg+xml")
_FILE = (Answer(200, "The file", media_types=_FILE_TYPES, headers=_PAGE_HEADERS), _PAGE[1])

READ_CONSOLE = Operation(
    "readConsole", PAGES, "Open the console", parameters=(_IF_NONE_MATCH,), answers=_PAGE
)
READ_CONSOLE_FILE = Operation(
    "readConsoleFile",
    PAGES,
    "Read what the console loads",
    parameters=(
        Parameter("name", "path", "A path", is_required=True, example="main.js"),
        _IF_NONE_MATCH,
    ),
    answers=_FILE,
    errors=("not_found",),
)
READ_DOCS = Operation(
    "readDocs",
    PAGES,
    "Open this description in a browser",
    parameters=(_IF_NONE_MATCH,),
    answers=_PAGE,
    errors=("central_timeout",),
)
READ_DOCS_FILE = Operation(
    "readDocsFile",
    PAGES,
    "Read what the page of the description loads",
    parameters=(
        Parameter("name", "path", "A path", is_required=True, example="start.js"),
        _IF_NONE_MATCH,
    ),
    answers=_FILE,
    errors=("not_found", "central_timeout"),
)
READ_API_DESCRIPTION = Operation(
    "readApiDescription",
    PAGES,
    "Read this description",
    parameters=(_IF_NONE_MATCH,),
    answers=(
        Answer(200, "An OpenAPI 3.1 document", dict[str, Any], headers=("ETag",)),
        Answer(304, "Unchanged since the `ETag` sent", media_types=(), headers=("ETag",)),
    ),
    errors=("central_timeout",),
)
