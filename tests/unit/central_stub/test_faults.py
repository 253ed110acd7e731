"""Faults: when they strike, and what those of the ledger do."""

from typing import Any

import pytest

from central_stub.faults import Fault
from central_stub.wire import Reply, Route, json_reply
from tests.unit.central_stub.asker import Asker


def struck(asker: Asker, route: Route) -> list[Fault]:
    return asker.struck(route)


def test_a_fault_strikes_its_routes_its_times(asker: Asker) -> None:
    """It spares other routes, and is gone after the last time."""
    asker.admin("POST", "faults", {"kind": "drop", "routes": ["events"], "times": 2})

    hits = [bool(struck(asker, route)) for route in (Route.PAGES, *[Route.EVENTS] * 3)]

    assert [False, True, True, False] == hits
    assert [] == asker.admin("GET", "faults").body["faults"]


@pytest.mark.parametrize(("probability", "strikes"), [(0.4, False), (0.6, True)])
def test_a_fault_strikes_with_its_probability(
    asker: Asker, probability: float, strikes: bool
) -> None:
    """The draw, 0.5 here, is below the probability or not."""
    asker.admin("POST", "faults", {"kind": "drop", "probability": probability})

    assert strikes == bool(struck(asker, Route.PAGES))


def test_administration_and_health_never_fail(asker: Asker) -> None:
    """So that a fault can always be cleared."""
    asker.admin("POST", "faults", {"kind": "drop"})

    assert [] == struck(asker, Route.ADMIN) + struck(asker, Route.HEALTH)


def test_faults_are_listed_with_their_strikes_and_cleared(asker: Asker) -> None:
    """One by its id, or all."""
    for kind in ("drop", "cut", "html"):
        asker.admin("POST", "faults", {"kind": kind})
    struck(asker, Route.PAGES)

    listed = asker.admin("GET", "faults").body["faults"]
    assert [(1, 1, "drop"), (2, 1, "cut"), (3, 1, "html")] == [
        (each["id"], each["struck"], each["kind"]) for each in listed
    ]
    assert {"cleared": 1} == asker.admin("DELETE", "faults?id=2").body
    assert {"cleared": 2} == asker.admin("DELETE", "faults").body


@pytest.mark.parametrize(
    ("body", "content_type", "text"),
    [
        ("json", "application/json", '"code":"gone"'),
        ("error", "application/json", '"error":'),
        ("html", "text/html", "<html>"),
        ("text", "text/plain", "410"),
        ("empty", "application/json", ""),
    ],
)
def test_a_status_comes_in_every_shape(
    asker: Asker, body: str, content_type: str, text: str
) -> None:
    """Central's two error shapes, a page, a text, or an empty body."""
    order = {"kind": "status", "status": 410, "body": body, "retryAfter": 7, "rateLimitReset": 9}
    asker.admin("POST", "faults", order)

    (fault,) = struck(asker, Route.EVENTS)
    reply = fault.spoil(json_reply({}))

    assert (410, content_type) == (reply.status, reply.content_type)
    assert text in reply.body.decode()
    assert {"Retry-After": "7", "X-RateLimit-Reset": "9"} == reply.headers


def test_a_repeated_event_stands_at_the_end_of_its_page(asker: Asker) -> None:
    """The same offset twice; pages without events stay unchanged."""
    asker.create({"productId": "P1"}, {"productId": "P2"})
    asker.admin("POST", "faults", {"kind": "repeat"})
    (fault,) = struck(asker, Route.EVENTS)
    page = asker.raw("GET", "/v1/inventory/events?offset=1")
    empty = asker.raw("GET", "/v1/inventory/events?offset=3")
    assert isinstance(page, Reply)
    assert isinstance(empty, Reply)

    assert b'"offset":1' in fault.spoil(page).body.rpartition(b'"offset":2')[2]
    assert empty == fault.spoil(empty)


@pytest.mark.parametrize(
    ("order", "target", "expected"),
    [
        ({"kind": "forget_log"}, "/v1/inventory/events?offset=1", (410, "code", "gone")),
        ({"kind": "new_generation"}, "/v1/inventory", (200, "generation", "g-2")),
        (
            {"kind": "new_generation", "generation": "mine"},
            "/v1/inventory",
            (200, "generation", "mine"),
        ),
        (
            {"kind": "lie", "productId": "P1", "attributes": {"available": 3}},
            "/v1/inventory/P1",
            (200, "available", 3),
        ),
        (
            {"kind": "lie", "productId": "P1", "attributes": None},
            "/v1/inventory/P1",
            (404, "code", "not_found"),
        ),
    ],
)
def test_faults_of_the_ledger_happen_at_once(
    asker: Asker, order: dict[str, Any], target: str, expected: tuple[int, str, Any]
) -> None:
    """They are done before the answer, and not listed."""
    asker.create({"productId": "P1", "available": 10})

    asker.admin("POST", "faults", order)

    status, name, value = expected
    answered = asker.get(target)
    assert (status, value) == (answered.status, answered.body[name])
    assert [] == asker.admin("GET", "faults").body["faults"]


def test_skipped_event_stays_a_gap(asker: Asker) -> None:
    """Its offset is used."""
    asker.admin("POST", "faults", {"kind": "skip", "count": 2})
    asker.create(*({"productId": f"P{number}"} for number in range(3)))

    events = asker.get("/v1/inventory/events?offset=1").body["events"]

    assert [3] == [event["offset"] for event in events]


def test_forgotten_keys_make_a_repeat_a_conflict(asker: Asker) -> None:
    """As after the restart of a Central that keeps keys in memory."""
    asker.create({"productId": "P1", "available": 10})
    asker.sell("P1", -1, 1, "k")

    asker.admin("POST", "faults", {"kind": "forget_keys"})

    assert "version_conflict" == asker.sell("P1", -1, 1, "k").body["errorType"]
