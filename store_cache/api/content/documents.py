"""The JSON documents that the API answers with, as types.

The code that makes a document is checked against its type. `/openapi.json` publishes the types
under their names, with docstrings and descriptions.

Values of a list that may grow, such as error codes, are published as texts with a description: a
client generated from an older list then reads newer answers too.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

from store_cache.model.change import RefetchReason
from store_cache.model.product import MAX_WHOLE
from store_cache.sync.reading import FullSyncStep
from store_cache.writes.outbox.answers import DISCARDED
from store_cache.writes.write import REFUSAL_STATUS, SETTLED_NOT_APPLIED

Count = Annotated[int, Field(ge=0)]
Duration = Annotated[str, Field(description="for people: `1.2s`, `4m10s`, `1h30m45s`")]
Moment = Annotated[
    str, Field(description="UTC, RFC 3339", json_schema_extra={"format": "date-time"})
]
OutboxId = Annotated[str, Field(description="a ULID", min_length=26, max_length=26)]
Offset = Annotated[
    int, Field(ge=0, le=MAX_WHOLE, description="the number of an event in Central's feed; 0: none")
]
Problem = Annotated[str, Field(description="for people; empty if all is well")]
ProductId = Annotated[str, Field(min_length=1)]
Quantity = Annotated[int, Field(ge=0, le=MAX_WHOLE, description="how many are in stock")]
Size = Annotated[str, Field(description="for people: `2.4MB`")]
Version = Annotated[
    int, Field(ge=1, le=MAX_WHOLE, description="rises by one with each applied write")
]

# -- reads -------------------------------------------------------------------------------------


@with_config(ConfigDict(extra="allow"))
class Product(TypedDict):
    """A product as Central describes it. Central may add attributes, which come as it sent them."""

    productId: ProductId
    name: str
    available: Quantity
    version: Version
    lastUpdated: NotRequired[str]
    price: NotRequired[float]
    pendingDelta: NotRequired[
        Annotated[int, Field(description="of this shop's writes in the outbox, if there are any")]
    ]
    expectedAvailable: NotRequired[
        Annotated[int, Field(description="`available` and `pendingDelta` together")]
    ]
    oversold: NotRequired[
        Annotated[bool, Field(description="true: `expectedAvailable` is below zero")]
    ]


class Pagination(TypedDict):
    """Where a page lies in the list. `total_count` and `has_more` repeat `total` and `hasMore`."""

    offset: Count
    limit: Annotated[int, Field(ge=1)]
    total: Count
    hasMore: bool
    total_count: Count
    has_more: bool


class CacheInfo(TypedDict):
    lastSyncTime: Annotated[Moment | None, Field(description="null: never in sync with Central")]
    totalProducts: Annotated[Count, Field(description="products that the store holds")]


class Page(TypedDict):
    """A page of the list."""

    products: list[Product]
    pagination: Pagination
    cacheInfo: CacheInfo


class Basket(TypedDict):
    """The products looked up, in the order asked for: those with the ids, then the other ones with
    the barcodes."""

    products: list[Product]
    missing: Annotated[list[str], Field(description="what was asked for and is not held")]

    missingBarcodes: NotRequired[
        Annotated[list[str], Field(description="barcodes of no product; only if any were given")]
    ]


class ProductChange(TypedDict):
    """One change of a product, as the store saw it."""

    version: Annotated[Version | None, Field(description="null: a deletion that named none")]
    available: Annotated[Quantity | None, Field(description="null: the product was deleted")]
    delta: Annotated[
        int | None,
        Field(
            description="by how much this one change moved the stock; null if there were several "
            "changes, or the product was created or deleted"
        ),
    ]
    at: Annotated[Moment, Field(description="when the store saw it")]
    source: Annotated[
        str,
        Field(
            description="how the store learned of it: `event`, `write` (of this shop), "
            "`full sync`, `refetch`, `repair`"
        ),
    ]
    offset: NotRequired[Annotated[Offset, Field(description="of the event that told it")]]
    idempotencyKey: NotRequired[
        Annotated[str, Field(description="of this shop's own write; only for admin keys")]
    ]


class ProductHistory(TypedDict):
    """What happened to a product since the store's start, newest first."""

    productId: ProductId
    since: Annotated[Moment, Field(description="the store's start; nothing is known of before")]
    complete: Annotated[
        bool,
        Field(
            description="whether these are all changes since then: none was forgotten or left out, "
            "and none happened unseen"
        ),
    ]
    changes: list[ProductChange]


_WAS_QUEUED = "only if the write was in the outbox"

# -- writes ------------------------------------------------------------------------------------


class AppliedWrite(TypedDict):
    """Central applied the write."""

    productId: ProductId
    newQuantity: NotRequired[
        Annotated[
            Quantity,
            Field(
                description="how many are in stock; left out if a person has settled the write "
                "and nobody could say it"
            ),
        ]
    ]
    newVersion: NotRequired[
        Annotated[Version, Field(description="of that stock; left out together with it")]
    ]
    applied: Literal[True]
    lastUpdated: NotRequired[str]
    outboxId: NotRequired[Annotated[OutboxId, Field(description=_WAS_QUEUED)]]


class RefusedWrite(TypedDict):
    """Central refused the write, finally. Its current state is left out where it is not known."""

    productId: ProductId
    applied: Literal[False]
    newQuantity: NotRequired[Quantity]
    newVersion: NotRequired[Version]
    errorType: Annotated[
        str,
        Field(description=f"one of {', '.join((*REFUSAL_STATUS, SETTLED_NOT_APPLIED, DISCARDED))}"),
    ]
    errorMessage: str
    outboxId: NotRequired[Annotated[OutboxId, Field(description=_WAS_QUEUED)]]


class QueuedWrite(TypedDict):
    """The write is in the outbox, on disk, and is sent as soon as Central can be reached. A repeat
    gets its state, and its outcome once it has one."""

    productId: ProductId
    applied: Literal[False]
    queued: Literal[True]
    outboxId: OutboxId
    state: Annotated[str, Field(description="queued, sending or parked")]
    queuedAt: Moment
    available: Annotated[Quantity | None, Field(description="Central's stock, as the store has it")]
    pendingDelta: Annotated[int, Field(description="of all writes to the product in the outbox")]
    expectedAvailable: Annotated[int | None, Field(description="the sum; may be below zero")]
    errorType: NotRequired[Annotated[str, Field(description="why it is parked")]]
    errorMessage: NotRequired[str]


class BatchResult(TypedDict):
    """What became of each write of a batch, in the order sent."""

    storeId: str
    totalCount: Count
    successCount: Count
    failureCount: Count
    queuedCount: NotRequired[Annotated[Count, Field(description="only if any were queued")]]
    results: list[AppliedWrite | RefusedWrite | QueuedWrite]


class SeenSince(TypedDict):
    """An event of the product that the store has seen since a write in doubt was sent."""

    offset: Offset
    version: Version
    available: Annotated[Quantity | None, Field(description="null: the product was deleted")]
    storeId: Annotated[
        str | None, Field(description="whose write it was; null: Central does not say")
    ]


class StockAtCentral(TypedDict):
    available: Quantity
    version: Version


class DoubtFacts(TypedDict):
    """What is known of a write whose outcome is unknown."""

    productId: ProductId
    versionSent: Version
    sentAt: Moment
    seenSince: Annotated[
        list[SeenSince],
        Field(description="the first events of the product since then; the write's may be there"),
    ]
    atCentral: Annotated[
        StockAtCentral | None,
        Field(description="the stock now; null: Central was not asked, or did not answer"),
    ]


class WriteInDoubt(DoubtFacts):
    """A write whose outcome is unknown."""

    idempotencyKey: str
    client: Annotated[str | None, Field(description="the name of the key that sent it")]
    state: Annotated[str, Field(description="in_doubt")]


class WritesInDoubt(TypedDict):
    """Writes whose outcome is unknown, the oldest first."""

    writes: Annotated[list[WriteInDoubt], Field(description="the first 200")]
    count: Annotated[Count, Field(description="of all of them")]


class SettledWrite(TypedDict):
    """What a person has said of a write in doubt, and what its till is answered from now on."""

    idempotencyKey: str
    outcome: Annotated[str, Field(description="applied or not_applied")]
    answer: AppliedWrite | RefusedWrite


# -- status of the sync ------------------------------------------------------------------------


class EventSync(TypedDict):
    lastEventOffset: Offset
    consecutiveFailures: Count
    fallbackMode: bool
    nextPollTime: Moment


class CurrentState(TypedDict):
    name: Annotated[
        str, Field(description="one of degraded, fallback, syncing, empty, cached, stale, live")
    ]
    since: Moment


class SyncBreaker(TypedDict):
    """The breaker of the feed."""

    state: Annotated[str, Field(description="open or closed")]
    cause: Problem
    since: Moment | None


class RunningFullSync(TypedDict):
    number: Count
    reasons: list[str]
    step: Annotated[str, Field(description=f"one of: {', '.join(FullSyncStep)}")]
    began: Moment
    products: Annotated[Count, Field(description="products read so far")]
    total: Annotated[Count | None, Field(description="products to read; null: not known")]


class WantedFullSync(TypedDict):
    """A full sync that is requested and has not begun."""

    wanted: Annotated[list[str], Field(description="the reasons")]


class EndedFullSync(TypedDict):
    number: Count
    reasons: list[str]
    began: Moment
    duration: Duration
    success: bool
    products: Count
    problem: Problem


class DoubtfulProduct(TypedDict):
    productId: ProductId
    doubt: Annotated[str, Field(description=f"one of {', '.join(RefetchReason)}")]
    problem: Problem


class Doubtful(TypedDict):
    """Products that are still to be read from Central by themselves."""

    toBeRead: Count
    failing: Count
    products: Annotated[list[DoubtfulProduct], Field(description="those that fail, up to a limit")]


class EventSetAside(TypedDict):
    offset: Offset
    reason: str


class EventsSetAside(TypedDict):
    """Events that cannot be read."""

    count: Count
    last: EventSetAside | None


class WritesState(TypedDict):
    breaker: Annotated[str, Field(description="closed, open or probing")]
    breakerSince: Moment
    retryInSeconds: Annotated[float, Field(ge=0)]
    inFlight: Annotated[Count, Field(description="writes that were sent and not answered")]
    underWay: Annotated[Count, Field(description="writes that were not settled yet")]
    unknown: Annotated[Count, Field(description="writes that only a repeat, or the feed, settles")]
    remembered: Annotated[Count, Field(description="answers that a repeat gets again")]
    keysReused: Annotated[Count, Field(description="writes refused: their key was another's")]
    problem: Problem


class OutboxState(TypedDict):
    """Writes that wait for Central, and those that wait for a person."""

    queued: Count
    sending: Count
    inDoubt: Annotated[Count, Field(description="Central may have applied them")]
    parked: Annotated[Count, Field(description="a person has to decide")]
    oldestSeconds: Annotated[float, Field(ge=0, description="since the oldest was queued")]
    accepting: Annotated[bool, Field(description="false: what is left is sent, none is taken")]
    waitsFor: Annotated[str, Field(description="why nothing is sent now; empty: it is")]
    problem: Problem


class FeedState(TypedDict):
    """Where the feed comes from, with FEED_SOURCE=nats."""

    source: Annotated[
        Literal["nats", "central"], Field(description="central: NATS does not serve at the moment")
    ]
    server: Annotated[str, Field(description="of NATS")]
    behind: Annotated[
        Count | None, Field(description="events of the stream that are not applied yet")
    ]
    problem: Problem


class DiskState(TypedDict):
    durable: bool
    problem: Problem
    since: Moment | None
    promise: Annotated[str, Field(description="what does not hold while the disk fails")]
    findings: Annotated[list[str], Field(description="what was wrong with the files at the start")]
    snapshotSize: Size
    journalSize: Size
    sweepProblem: Problem


class VerifiedPosition(TypedDict):
    generation: str
    offset: Offset


class VerifiedProduct(TypedDict):
    """A product that differed from Central's; `before` and `after` are null for no product."""

    productId: ProductId
    fields: Annotated[list[str], Field(description="the members that differed")]
    before: dict[str, Any] | None
    after: Annotated[dict[str, Any] | None, Field(description="as Central has it")]
    at: Moment


class DumpHead(TypedDict):
    """The first line of a dump."""

    generation: str | None
    offset: Offset
    products: Count


class Comparisons(TypedDict):
    """Comparisons with Central since the start."""

    completed: Count
    raced: Annotated[Count, Field(description="begun again, since something changed meanwhile")]
    givenUp: Annotated[Count, Field(description="runs that could not be ended")]


class Verification(TypedDict):
    """Whether the store's catalogue was compared with Central's, and what differed."""

    state: Annotated[
        str,
        Field(
            description="equal, repaired, differs, not comparable (Central's answers contradict "
            "each other), comparing, or off"
        ),
    ]
    method: Annotated[str, Field(description="digest, or pages: Central has no digests")]
    lastRun: Moment | None
    lastEqual: Annotated[Moment | None, Field(description="the last run that found nothing")]
    position: VerifiedPosition | None
    mismatches: Count
    repaired: Count
    onlyTimes: Annotated[Count, Field(description="products that differed in lastUpdated alone")]
    unresolved: Annotated[
        Count, Field(description="products that seemed to differ and are still to be judged")
    ]
    comparisons: Comparisons
    problem: Annotated[Problem, Field(description="why the last run could not compare")]
    recent: Annotated[list[VerifiedProduct], Field(description="the last 100, newest first")]
    disputed: Annotated[
        list[VerifiedProduct],
        Field(description="products of which Central says two things; they are left alone"),
    ]


class SyncStatus(TypedDict):
    """The state of the store and of its sync with Central."""

    inProgress: Annotated[bool, Field(description="whether a full sync runs")]
    lastSyncTime: Annotated[Moment | None, Field(description="null: never in sync with Central")]
    lastSyncSuccess: bool
    productCount: Count
    syncDuration: Annotated[str, Field(description="of the last full sync; empty: none ended")]
    errorMessage: Problem
    eventSync: EventSync
    state: CurrentState
    generation: Annotated[str | None, Field(description="the feed that offsets belong to")]
    durable: bool
    centralHeadOffset: Offset | None
    lag: Annotated[Count | None, Field(description="events that Central has and the store has not")]
    breaker: SyncBreaker
    fullSync: RunningFullSync | WantedFullSync | None
    fullSyncs: Annotated[list[EndedFullSync], Field(description="newest first")]
    doubtful: Doubtful
    aheadOfFeed: Annotated[Count, Field(description="products whose answer is ahead of the feed")]
    eventsSetAside: EventsSetAside
    writes: WritesState
    feed: NotRequired[Annotated[FeedState, Field(description="only with FEED_SOURCE=nats")]]
    outbox: NotRequired[
        Annotated[OutboxState, Field(description="only if writes are queued, or some are left")]
    ]
    disk: DiskState
    verification: Verification


class ForcedSync(TypedDict):
    """A full sync has succeeded."""

    message: str
    status: SyncStatus


# -- cache and health --------------------------------------------------------------------------


class MemoryUsage(TypedDict):
    allocated: Annotated[Size, Field(description="by the process")]
    inUse: Annotated[Size, Field(description="by the products")]


class CacheStats(TypedDict):
    """Sizes and times of the cache."""

    totalProducts: Count
    cacheSize: Size
    lastSyncTime: Annotated[Moment | None, Field(description="null: never in sync with Central")]
    lastEventOffset: Offset
    initializedAt: Moment
    uptime: Duration
    memoryUsage: MemoryUsage


class Check(TypedDict):
    status: Annotated[str, Field(description="ok or degraded")]
    problem: NotRequired[str]


class Health(TypedDict):
    """The store answers; `status` and `checks` say how well."""

    status: Annotated[str, Field(description="healthy or degraded")]
    service: str
    version: str
    timestamp: Moment
    uptime: Duration
    checks: dict[str, Check]


class Ready(TypedDict):
    """There is a catalogue to serve."""

    status: str
    outboxEmpty: NotRequired[
        Annotated[bool, Field(description="whether no write waits; only with an outbox")]
    ]


# -- metrics -----------------------------------------------------------------------------------

Rate = Annotated[float, Field(ge=0, description="a second")]
Seconds = Annotated[float, Field(ge=0)]


class VisibleSeconds(TypedDict):
    """How long events took from Central's timestamp until readers saw them; null: there were
    none."""

    p50: Seconds | None
    p99: Seconds | None


class MetricsPoint(TypedDict):
    """The store at one moment, and what happened in the interval before it."""

    at: Moment
    state: str
    ageSeconds: Annotated[Seconds | None, Field(description="null: never in sync with Central")]
    lag: Annotated[int | None, Field(ge=0, description="events; null: not known")]
    visibleSeconds: VisibleSeconds
    readsPerSecond: Rate
    writesPerSecond: Rate
    errorsPerSecond: Annotated[Rate, Field(description="answers with a status of 500 or more")]
    centralErrorsPerSecond: Annotated[Rate, Field(description="requests to Central that failed")]


class MetricsHistory(TypedDict):
    """The last hour, oldest point first."""

    intervalSeconds: int
    points: list[MetricsPoint]


# -- errors ------------------------------------------------------------------------------------


class ErrorFacts(TypedDict):
    code: Annotated[str, Field(description="programs decide by it")]
    message: Annotated[str, Field(description="for people")]
    details: Annotated[
        dict[str, Any],
        Field(description="for programs; `fields` maps what is wrong to what it must be"),
    ]


class Error(TypedDict):
    """Every error has this shape."""

    error: ErrorFacts


class ProblemDetails(TypedDict):
    """The same error in the shape of RFC 9457, with `Accept: application/problem+json`."""

    type: str
    title: str
    status: Annotated[int, Field(ge=400, le=599)]
    detail: Annotated[str, Field(description="for people")]
    code: Annotated[str, Field(description="programs decide by it")]
    details: dict[str, Any]
