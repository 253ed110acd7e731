"""What all answers have in common: the request id, the two shapes of errors, the log."""

import logging
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from typing_extensions import override

from store_cache.api import middleware, problems
from store_cache.api.problems import STATUS, ApiError, WriteFailed
from store_cache.api.throttled_log import MOST_LINES
from store_cache.central.carried import request_id
from store_cache.sync.states import Failure
from tests.harness.fake_store import FakeStore
from tests.unit.api.conftest import ADMIN, TILL, Opened, Store

UPDATES = "/v1/store/inventory/updates"
UPDATE = {"productId": "PROD-001", "delta": -2, "version": 6, "idempotencyKey": "order-12345"}
PROBLEM = TILL | {"Accept": "application/problem+json"}
LOGGER = "store_cache.api.middleware"


class Broken(FakeStore):
    """A store whose status fails, with an internal text."""

    @override
    def sync_status(self) -> dict[str, Any]:
        raise LookupError(f"secret inside of {request_id.get()}")


class Witness(FakeStore):
    """A store whose statistics are the id of the request that asks for them."""

    @override
    def cache_stats(self) -> dict[str, Any]:
        return {"seen": request_id.get()}


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/health", 200),
        ("GET", "/v1/store/inventory/PROD-001", 200),
        ("GET", "/v1/store/inventory/PROD-999", 404),
        ("GET", "/nowhere", 404),
        ("PUT", "/v1/store/inventory", 405),
        ("POST", UPDATES, 400),
        ("CONNECT", "store:1", 405),
    ],
)
async def test_a_sane_request_id_is_kept(
    store: Store, method: str, target: str, status: int
) -> None:
    """Every answer, errors too, carries the id that was sent; and a plain server name."""
    reply = await store.send(method, target, headers=TILL | {"X-Request-ID": "till-3:2024/17"})

    assert (status, "till-3:2024/17") == (reply.status, reply.headers["X-Request-ID"])
    assert "store-cache" == reply.headers["Server"]


@pytest.mark.parametrize(
    "sent",
    [
        [],
        [("X-Request-ID", "")],
        [("X-Request-ID", "a b")],
        [("X-Request-ID", "x" * 129)],
        [("X-Request-ID", "é")],
        [("X-Request-ID", "a\tb")],
        [("X-Request-ID", "one"), ("X-Request-ID", "two")],
    ],
)
async def test_any_other_request_id_is_replaced(store: Store, sent: list[tuple[str, str]]) -> None:
    """A missing, odd or repeated one is replaced by a new id each time (T8)."""
    ids = {
        (await store.send("GET", "/health", headers=sent)).headers["X-Request-ID"] for _ in range(2)
    }

    assert 2 == len(ids)
    assert {32} == {len(one) for one in ids}


async def test_the_request_id_is_known_while_it_is_answered(open_store: Opened) -> None:
    """Log lines of the request can name it."""
    store = await open_store(Witness())
    reply = await store.get("/v1/store/cache/stats", x_request_id="till-7")

    assert {"seen": "till-7"} == reply.json
    assert request_id.get() is None


async def test_an_error_has_one_shape(store: Store) -> None:
    """Code, message and details, not to be cached."""
    reply = await store.get("/v1/store/inventory?limit=0")

    message = "must be a whole number, at least 1, in plain digits"
    said = {
        "code": "invalid_request",
        "message": f"limit {message}",
        "details": {"fields": {"limit": message}},
    }
    assert {"error": said} == reply.json
    assert "no-store" == reply.headers["Cache-Control"]


async def test_the_same_error_as_problem_details(store: Store) -> None:
    """RFC 9457 on request, with the same code, message and details."""
    reply = await store.send("GET", "/v1/store/inventory/PROD-999", headers=PROBLEM)

    expected = {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "Product not found in local cache",
        "code": "product_not_found",
        "details": {
            "productId": "PROD-999",
            "suggestion": "Product may not exist or cache may be out of sync",
        },
    }
    assert (404, expected) == (reply.status, reply.json)
    assert "application/problem+json" == reply.headers["Content-Type"]


@pytest.mark.parametrize(
    ("accept", "is_problem"),
    [
        ("application/problem+json", True),
        ("application/json, Application/Problem+JSON;q=0.9", True),
        ("application/problem+json; charset=utf-8; q=0.1", True),
        ("application/json", False),
        ("*/*", False),
        ("application/problem+json;q=0", False),
        ("application/problem+json;q=0.000", False),
        ("", False),
    ],
)
async def test_problem_details_are_asked_for_by_name(
    store: Store, accept: str, is_problem: bool
) -> None:
    """Only an `Accept` that names the media type, and does not exclude it, gets it."""
    reply = await store.get("/nowhere", accept=accept)

    assert is_problem == (reply.headers["Content-Type"] == "application/problem+json")


def _leaves(kind: type[ApiError]) -> list[type[ApiError]]:
    # Other packages have kinds of their own, with the codes of these.
    below = [one for one in kind.__subclasses__() if one.__module__ == problems.__name__]
    return [leaf for one in below for leaf in _leaves(one)] if below else [kind]


def test_each_error_has_a_status_and_is_in_the_tree() -> None:
    """Each class has a status in the table, and a line in the drawing of the tree."""
    own = [leaf for leaf in _leaves(ApiError) if leaf is not WriteFailed]

    assert [] == [leaf for leaf in own if leaf.code not in STATUS]
    assert [] == [leaf for leaf in _leaves(ApiError) if leaf.__name__ not in str(problems.__doc__)]


@pytest.mark.parametrize(
    ("failure", "status"),
    [(None, 502), (Failure.DENIED, 502), (Failure.UNREACHABLE, 503), (Failure.LIMITED, 503)],
)
async def test_a_failed_sync_has_the_status_of_its_cause(
    store: Store, failure: Failure | None, status: int
) -> None:
    """502 `sync_failed`, or 503 while Central is away; with the sync status beside it."""
    store.fake.sync_failure = ("the cause", failure)
    reply = await store.send("POST", "/v1/store/sync/force", headers=ADMIN)

    details = {"status": {"inProgress": False, "productCount": 3}}
    said = {"code": "sync_failed", "message": "Force sync failed: the cause", "details": details}
    assert (status, {"error": said}) == (reply.status, reply.json)


async def test_a_defect_is_500_without_its_inside(
    open_store: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    """The cause is in the log, once, and nothing of it in the answer."""
    store = await open_store(Broken())
    reply = await store.get("/v1/store/sync/status", x_request_id="till-1")
    lines = [record for record in caplog.records if record.levelno >= logging.WARNING]

    assert (500, "internal_error") == (reply.status, reply.code)
    assert b"secret" not in reply.body + str(reply.headers).encode()
    assert ["secret inside of till-1"] == [str(one.exc_info[1]) for one in lines if one.exc_info]
    assert 1 == len(lines)


async def _logged(
    store: Store, caplog: pytest.LogCaptureFixture, method: str, target: str, **sent: Any
) -> list[Mapping[str, Any]]:
    caplog.clear()
    await store.send(method, target, **sent)
    return [record.__dict__ for record in caplog.records if record.name == LOGGER]


async def test_reads_are_logged_at_level_debug(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """A read that succeeded, or that was the client's mistake, is logged at level debug."""
    caplog.set_level(logging.INFO, LOGGER)
    quiet = await _logged(store, caplog, "GET", "/v1/store/inventory", headers=TILL)
    caplog.set_level(logging.DEBUG, LOGGER)
    debugged = await _logged(store, caplog, "GET", "/v1/store/inventory/%0A", headers=TILL)

    assert [] == quiet
    assert [("GET", "/v1/store/inventory/%0A", 404, "127.0.0.1", "key-1")] == [
        (one["method"], one["path"], one["status"], one["address"], one["caller"])
        for one in debugged
    ]


async def test_writes_and_admin_calls_are_logged(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """The log names caller, route and status, never the key."""
    caplog.set_level(logging.INFO, LOGGER)
    lines = await _logged(store, caplog, "POST", "/v1/store/sync/force", headers=ADMIN)
    lines += await _logged(store, caplog, "POST", UPDATES, headers=TILL)

    assert [("INFO", "admin-key-1", 200), ("INFO", "key-1", 400)] == [
        (one["levelname"], one["caller"], one["status"]) for one in lines
    ]
    assert "secret" not in str(lines)


async def test_long_paths_are_cut_in_the_log(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """(T15) A line has 200 characters of a path, however long it is."""
    caplog.set_level(logging.INFO, LOGGER)
    [line] = await _logged(store, caplog, "POST", "/" + "A" * 8000)

    assert "/" + "A" * 199 == line["path"]


async def test_a_flood_of_refused_requests_is_sampled(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """(T15) Each status and caller has its own few lines; answered writes are all logged."""
    caplog.set_level(logging.INFO)
    line = await store.line()
    for _ in range(100):
        await line.send("POST", "/nowhere")
        await line.send("POST", UPDATES, headers=TILL)
        await line.send("POST", "/v1/store/sync/force", headers=ADMIN)
        malformed = await store.line()
        malformed.writer.write(b"no HTTP\r\n\r\n")
        await malformed.reply()
    counts = Counter((one.message, one.__dict__.get("status")) for one in caplog.records)

    assert {
        ("request answered", 404): MOST_LINES,
        ("request answered", 400): MOST_LINES,
        ("request answered", 200): 100,
        ("malformed HTTP request refused", None): MOST_LINES,
    } == counts


async def test_failed_reads_are_warnings(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """A 503 is logged as a warning."""
    store.fake.catalogue = None
    lines = await _logged(store, caplog, "GET", "/v1/store/inventory", headers=TILL)

    assert [("WARNING", 503)] == [(one["levelname"], one["status"]) for one in lines]


async def test_slow_requests_are_warnings(
    store: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read that took longer than `SLOW_SECONDS` is logged with its time."""
    monkeypatch.setattr(middleware, "SLOW_SECONDS", 0.0)
    lines = await _logged(store, caplog, "HEAD", "/v1/store/inventory", headers=TILL)

    assert [("WARNING", 200, True)] == [
        (one["levelname"], one["status"], one["seconds"] > 0) for one in lines
    ]


async def test_force_sync_takes_accept(store: Store) -> None:
    """`accept=true` reaches the sync: a much smaller catalogue is right."""
    path = "/v1/store/sync/force"
    for target in (path, f"{path}?accept=false", f"{path}?accept=true"):
        reply = await store.send("POST", target, headers=ADMIN)

    assert [False, False, True] == store.fake.syncs
    assert {
        "message": "Force sync completed successfully",
        "status": {"inProgress": False, "productCount": 3},
    } == reply.json


async def test_status_and_stats_are_answered(store: Store) -> None:
    """They are answered as they are, and not to be cached."""
    status = await store.get("/v1/store/sync/status")
    stats = await store.get("/v1/store/cache/stats")

    assert ({"inProgress": False, "productCount": 3}, {"totalProducts": 3}) == (
        status.json,
        stats.json,
    )
    assert "no-store" == status.headers["Cache-Control"] == stats.headers["Cache-Control"]


async def test_health_and_readiness(store: Store) -> None:
    """Without a catalogue /health is 200 and says degraded, and /ready is 503."""
    before = [await store.send("GET", path) for path in ("/health", "/ready")]
    store.fake.catalogue = None
    after = [await store.send("GET", path) for path in ("/health?probe=1", "/ready")]

    assert [200, 200, 200, 503] == [reply.status for reply in before + after]
    assert ("healthy", "degraded") == (before[0].json["status"], after[0].json["status"])
    assert ("ready", "cache_not_ready") == (before[1].json["status"], after[1].code)


async def test_a_probe_before_readiness_is_not_a_warning(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """/ready is 503 until there is a catalogue; lines about that would hide real problems."""
    store.fake.catalogue = None
    caplog.set_level(logging.INFO, LOGGER)

    assert [] == await _logged(store, caplog, "GET", "/ready")
