"""Central's HTTP API: every shape, with and without switches."""

from typing import Any

import orjson
import pytest

from central_stub.central import Held
from central_stub.switches import Feature, Switches
from central_stub.wire import Reply
from tests.unit.central_stub.asker import Asker, AskerOf

P1 = {"productId": "P1", "name": "Lamp", "available": 10, "price": 2.5, "tags": ["a"]}
P2 = {"productId": "P2", "available": 0, "price": 0}


def without(*features: Feature) -> Switches:
    return Switches(without=frozenset(features))


def ids(answered: Any, name: str = "products") -> list[str]:
    return [row["productId"] for row in answered.body[name]]


# The honest Central


def test_page_of_products(asker: Asker) -> None:
    """products, pagination, eventOffset of the last event, generation in body and header."""
    asker.create(P1, P2)

    answered = asker.get("/v1/inventory?offset=1&limit=1")

    assert {
        "products": [asker.ledger.read("P2")],
        "pagination": {"offset": 1, "limit": 1, "total_count": 2, "has_more": False},
        "eventOffset": 2,
        "generation": "g-1",
    } == answered.body
    assert {"X-Feed-Generation": "g-1"} == answered.headers


def test_pages_by_cursor(asker: Asker) -> None:
    """items and nextCursor when asked with cursor=; the last page has none."""
    asker.create(*({"productId": f"P{number}"} for number in range(5)))
    seen: list[str] = []
    cursor: str | None = ""

    while cursor is not None:
        answered = asker.get(f"/v1/inventory?cursor={cursor}&limit=2")
        seen += ids(answered, "items")
        cursor = answered.body["nextCursor"]

    assert ["P0", "P1", "P2", "P3", "P4"] == seen


@pytest.mark.parametrize(
    ("product_id", "encoded"),
    [
        ("a/b", "a%2Fb"),
        ("BANK CHARGES", "BANK%20CHARGES"),
        ("é+1", "%C3%A9%2B1"),
        ("84970s", "84970s"),
        ("events", "%65vents"),
        ("50%", "50%25"),
    ],
)
def test_any_id_can_be_fetched_percent_encoded(asker: Asker, product_id: str, encoded: str) -> None:
    """It is decoded once."""
    asker.create({"productId": product_id})

    answered = asker.get(f"/v1/inventory/{encoded}")

    assert (200, product_id) == (answered.status, answered.body["productId"])


def test_an_unknown_product_is_a_404_of_centrals_own_shape(asker: Asker) -> None:
    """code, message, details."""
    answered = asker.get("/v1/inventory/nothing")

    said = {"code": "not_found", "message": "no product has this id", "details": []}
    assert (404, said) == (answered.status, answered.body)


def test_attributes_are_kept_unchanged(asker: Asker) -> None:
    """Every attribute, of every JSON type; version and lastUpdated are Central's."""
    odd = {"productId": "X", "nested": {"a": [1, None, 2.5]}, "": "", "version": 9, "Name": "n"}
    asker.create(odd)

    row = asker.get("/v1/inventory/X").body

    assert {"nested": {"a": [1, None, 2.5]}, "": "", "Name": "n", "version": 1} == {
        name: row[name] for name in ("nested", "", "Name", "version")
    }


def test_events_come_with_the_next_offset(asker: Asker) -> None:
    """events, nextOffset, hasMore, count, generation."""
    asker.create(P1, P2)

    body = asker.get("/v1/inventory/events?offset=1&limit=1").body

    assert [1] == [event["offset"] for event in body.pop("events")]
    assert {"nextOffset": 2, "hasMore": True, "count": 1, "generation": "g-1"} == body


def test_poll_without_an_event_is_held_until_there_is_one(asker: Asker) -> None:
    """At most 60 s; equal polls that are woken share one reply."""
    held = asker.raw("GET", "/v1/inventory/events?offset=1&wait=99")
    assert isinstance(held, Held)

    assert (60, None) == (held.wait_seconds, asker.central.poll(held, asker.now))
    asker.create(P1)
    assert asker.central.poll(held, asker.now) is asker.central.poll(held, asker.now)


def test_a_new_generation_answers_a_held_poll() -> None:
    """Though the new feed has no event; a Central without names holds it on."""
    for switches, is_answered in (
        (Switches(), True),
        (Switches(without=frozenset({Feature.GENERATION})), False),
    ):
        asker = Asker(switches)
        asker.create(P1)
        held = asker.raw("GET", "/v1/inventory/events?offset=2&wait=9")
        assert isinstance(held, Held)
        asker.admin("POST", "faults", {"kind": "new_generation"})

        reply = asker.central.poll(held, asker.now)

        assert is_answered == (reply is not None)
        if reply is not None:
            body = orjson.loads(reply.body)
            assert ("g-2", [], 1) == (body["generation"], body["events"], body["nextOffset"])


def test_a_poll_beyond_the_head_is_answered_at_once(asker: Asker) -> None:
    """The lower nextOffset says that the feed is shorter."""
    body = asker.get("/v1/inventory/events?offset=50&wait=20").body

    assert ([], 1) == (body["events"], body["nextOffset"])


def test_an_offset_that_is_gone_is_410(asker_of: AskerOf) -> None:
    """In Central's error shape."""
    asker = asker_of(Switches(event_limit=1))
    asker.create(P1, P2)

    answered = asker.get("/v1/inventory/events?offset=1&wait=20")

    assert (410, "gone") == (answered.status, answered.body["code"])


def test_one_update_is_answered_with_the_new_state(asker: Asker) -> None:
    """200 with quantity and version; a refusal is a 409 with the current ones."""
    asker.create(P1)

    applied = asker.sell("P1", -3, 1, "k1")
    refused = asker.sell("P1", -3, 1, "k2")

    assert 200 == applied.status
    assert {"applied": True, "newQuantity": 7, "newVersion": 2}.items() <= applied.body.items()
    assert {
        "productId": "P1",
        "applied": False,
        "newQuantity": 7,
        "newVersion": 2,
        "errorType": "version_conflict",
        "errorMessage": "version conflict: expected 2, got 1",
    } == refused.body
    assert 409 == refused.status


def test_updates_of_a_batch_are_independent(asker: Asker) -> None:
    """200, with results in their order, and counts."""
    asker.create(P1)
    updates = [
        {"productId": "P1", "delta": -1, "version": 1, "idempotencyKey": "a"},
        {"productId": "P9", "delta": -1, "version": 1, "idempotencyKey": "b"},
        {"productId": "P1", "delta": -1, "version": 2, "idempotencyKey": "c"},
        "nonsense",
    ]

    answered = asker.ask("POST", "/v1/inventory/updates", {"storeId": "s1", "updates": updates})

    assert 200 == answered.status
    assert [True, False, True, False] == [each["applied"] for each in answered.body["results"]]
    counts = ("totalCount", "successCount", "failureCount")
    assert [4, 2, 2] == [answered.body[name] for name in counts]


def test_the_digest_is_of_one_position(asker: Asker) -> None:
    """Generation, nextOffset, count, rows and sums; the rows of a bucket can be read."""
    asker.create(P1, P2)

    body = asker.get("/v1/inventory/digest?buckets=2").body
    rows = [asker.get(f"/v1/inventory?bucket={each}&buckets=2") for each in (0, 1)]

    assert asker.ledger.digest(2) == (body["rows"], body["sums"])
    told = [body[name] for name in ("generation", "nextOffset", "count", "buckets")]
    assert ["g-1", 3, 2, 2] == told
    assert ["P1", "P2"] == sorted(each for answered in rows for each in ids(answered))


def test_health_needs_no_key(asker: Asker) -> None:
    """200 and a status."""
    assert "healthy" == asker.ask("GET", "/health", key="").body["status"]


# Wrong requests

UPDATE = {"productId": "P1", "delta": -1, "version": 1, "idempotencyKey": "k", "storeId": "s1"}


@pytest.mark.parametrize(
    ("method", "target", "body", "key", "status", "code"),
    [
        ("GET", "/v1/inventory", None, "", 401, "unauthorized"),
        ("GET", "/v1/inventory", None, "wrong", 401, "unauthorized"),
        ("GET", "/v1/admin/faults", None, "demo", 403, "forbidden"),
        ("GET", "/elsewhere", None, "demo", 404, "not_found"),
        ("GET", "/v1/admin/nothing", None, "admin-demo", 404, "not_found"),
        ("POST", "/v1/inventory", {}, "demo", 405, "method_not_allowed"),
        ("GET", "/v1/inventory/updates", None, "demo", 405, "method_not_allowed"),
        ("GET", "/v1/admin/products/set", None, "admin-demo", 405, "method_not_allowed"),
        ("GET", "/v1/inventory?limit=0", None, "demo", 400, "invalid_request"),
        ("GET", "/v1/inventory?limit=many", None, "demo", 400, "invalid_request"),
        ("GET", "/v1/inventory?offset=-1", None, "demo", 400, "invalid_request"),
        ("GET", "/v1/inventory?offset=٣", None, "demo", 400, "invalid_request"),
        ("GET", "/v1/inventory?cursor=!", None, "demo", 400, "invalid_request"),
        ("GET", "/v1/inventory?bucket=9&buckets=9", None, "demo", 400, "invalid_request"),
        ("GET", "/v1/inventory/digest?buckets=65537", None, "demo", 400, "invalid_request"),
        ("GET", "/v1/inventory/%FF", None, "demo", 400, "invalid_request"),
        ("GET", "/v1/inventory/events?wait=x", None, "demo", 400, "invalid_request"),
        ("POST", "/v1/inventory/updates", [], "demo", 400, "invalid_request"),
        ("POST", "/v1/inventory/updates", {"updates": []}, "demo", 400, "invalid_request"),
        ("POST", "/v1/admin/products/create", {}, "admin-demo", 400, "invalid_request"),
        ("POST", "/v1/admin/faults", {"kind": "flood"}, "admin-demo", 400, "invalid_request"),
        (
            "POST",
            "/v1/admin/faults",
            {"kind": "drop", "x": 1},
            "admin-demo",
            400,
            "invalid_request",
        ),
        (
            "POST",
            "/v1/admin/faults",
            {"kind": "crash", "loses": "all"},
            "admin-demo",
            400,
            "invalid_request",
        ),
        ("DELETE", "/v1/admin/faults?id=x", None, "admin-demo", 400, "invalid_request"),
        ("PUT", "/v1/admin/switches", {"pageLimit": 0}, "admin-demo", 400, "invalid_request"),
        ("PUT", "/v1/admin/switches", {"page_limit": 5}, "admin-demo", 400, "invalid_request"),
        ("PUT", "/v1/admin/switches", {"without": ["air"]}, "admin-demo", 400, "invalid_request"),
        ("POST", "/v1/admin/restore", {"backup": {}}, "admin-demo", 400, "invalid_request"),
    ],
)
def test_invalid_request_is_refused(
    asker: Asker, *, method: str, target: str, body: Any, key: str, status: int, code: str
) -> None:
    """With a status and Central's error shape."""
    answered = asker.ask(method, target, body, key=key)

    assert (status, code) == (answered.status, answered.body["code"])


def test_body_that_is_not_json_is_refused(asker: Asker) -> None:
    """invalid_json."""
    reply = asker.raw("POST", "/v1/inventory/updates", b"{")

    assert isinstance(reply, Reply)
    assert (400, True) == (reply.status, b'"invalid_json"' in reply.body)


def test_a_huge_body_is_refused(asker: Asker) -> None:
    """413 above one MiB."""
    reply = asker.raw("POST", "/v1/inventory/updates", b" " * ((1 << 20) + 1))

    assert isinstance(reply, Reply)
    assert 413 == reply.status


@pytest.mark.parametrize(
    ("changes", "error_type"),
    [
        ({"productId": None}, "missing_product_id"),
        ({"productId": ""}, "missing_product_id"),
        ({"productId": 5}, "invalid_request"),
        ({"delta": 0}, "invalid_request"),
        ({"delta": 1.0}, "invalid_request"),
        ({"delta": True}, "invalid_request"),
        ({"delta": 10**9}, "invalid_request"),
        ({"version": 0}, "invalid_request"),
        ({"version": "1"}, "invalid_request"),
        ({"idempotencyKey": ""}, "invalid_request"),
        ({"idempotencyKey": None}, "invalid_request"),
        ({"storeId": 1}, "invalid_request"),
        ({"storeId": "s" * 513}, "invalid_request"),
    ],
)
def test_invalid_update_is_refused_and_changes_nothing(
    asker: Asker, changes: dict[str, Any], error_type: str
) -> None:
    """409 with an errorType."""
    asker.create(P1)

    answered = asker.ask("POST", "/v1/inventory/updates", UPDATE | changes)

    assert (409, error_type) == (answered.status, answered.body["errorType"])
    assert 1 == asker.ledger.head


@pytest.mark.parametrize(
    "product",
    [
        5,
        {},
        {"productId": ""},
        {"productId": "x" * 513},
        {"productId": "A", "available": -1},
        {"productId": "A", "available": 1.0},
        {"productId": "A", "available": True},
        {"productId": "A", "size": 2**53},
    ],
)
def test_invalid_product_fails_alone(asker: Asker, product: Any) -> None:
    """The others of the call are created."""
    body = asker.create(product, P2).body

    assert [False, True] == [result["success"] for result in body["results"]]
    assert {"total": 2, "succeeded": 1, "failed": 1} == body["summary"]


# Older Centrals


def test_without_generation_nothing_names_it(asker_of: AskerOf) -> None:
    """Neither header nor body."""
    asker = asker_of(without(Feature.GENERATION))

    for target in ("", "/events?offset=1", "/digest"):
        answered = asker.get(f"/v1/inventory{target}")
        assert ({}, False) == (answered.headers, "generation" in answered.body)


def test_without_event_offset_pages_do_not_name_the_head(asker_of: AskerOf) -> None:
    """eventOffset is missing."""
    assert "eventOffset" not in asker_of(without(Feature.EVENT_OFFSET)).get("/v1/inventory").body


def test_event_offset_can_mean_the_next_event(asker_of: AskerOf) -> None:
    """Both meanings are deployed."""
    asker = asker_of(Switches(event_offset_means="next"))
    asker.create(P1)

    assert 2 == asker.get("/v1/inventory").body["eventOffset"]


def test_without_hold_polls_are_answered_at_once(asker_of: AskerOf) -> None:
    """An empty list, and null for it where asked."""
    switches = without(Feature.HOLD).model_copy(update={"null_events": True})

    body = asker_of(switches).get("/v1/inventory/events?offset=1&wait=20").body

    assert (None, 1) == (body["events"], body["nextOffset"])


def test_poll_beyond_the_head_can_be_held(asker_of: AskerOf) -> None:
    """Then it answers with the lower nextOffset."""
    asker = asker_of(Switches(hold_beyond_head=True))

    held = asker.raw("GET", "/v1/inventory/events?offset=50&wait=20")

    assert isinstance(held, Held)
    assert b'"nextOffset":1' in asker.central.release(held, asker.now).body


def test_without_digest_its_path_is_a_product(asker_of: AskerOf) -> None:
    """404, and the bucket filter is silently ignored."""
    asker = asker_of(without(Feature.DIGEST))
    asker.create(P1, P2)

    assert 404 == asker.get("/v1/inventory/digest").status
    assert ["P1", "P2"] == ids(asker.get("/v1/inventory?bucket=0&buckets=1000"))


def test_without_cursor_asking_for_one_changes_nothing(asker_of: AskerOf) -> None:
    """products and pagination."""
    assert "pagination" in asker_of(without(Feature.CURSOR)).get("/v1/inventory?cursor=").body


def test_without_zeros_they_are_left_out_everywhere(asker_of: AskerOf) -> None:
    """In rows, events, and answers to writes: applied, newQuantity, available, price."""
    asker = asker_of(without(Feature.ZEROS))
    asker.create(P2, {"productId": "P3", "available": 1})

    sold = asker.sell("P3", -1, 1, "k1").body
    refused = asker.sell("P3", -1, 2, "k2").body
    rows = [asker.get("/v1/inventory").body["products"][0], asker.get("/v1/inventory/P2").body]
    event = asker.get("/v1/inventory/events?offset=1").body["events"][0]["data"]

    assert "newQuantity" not in sold
    assert {"applied", "newQuantity"}.isdisjoint(refused)
    assert 2 == refused["newVersion"]
    for row in (*rows, event):
        assert ["lastUpdated", "productId", "version"] == sorted(row)


@pytest.mark.parametrize(
    ("shape", "name"), [("products", "products"), ("items", "items"), ("list", None)]
)
def test_pages_come_in_three_shapes(asker_of: AskerOf, shape: Any, name: str | None) -> None:
    """products, items, or everything at once."""
    asker = asker_of(Switches(page_shape=shape, page_limit=1))
    asker.create(P1, P2)

    body = asker.get("/v1/inventory").body

    assert (2 if name is None else 1) == len(body if name is None else body[name])


def test_totals_have_two_names(asker_of: AskerOf) -> None:
    """total and hasMore; summary for a batch."""
    asker = asker_of(Switches(total_names="camel", batch_totals="summary"))

    page = asker.get("/v1/inventory").body["pagination"]
    batch = asker.ask("POST", "/v1/inventory/updates", {"updates": [UPDATE]}).body

    assert {"total": 0, "hasMore": False}.items() <= page.items()
    assert {"total": 1, "succeeded": 0, "failed": 1} == batch["summary"]


@pytest.mark.parametrize(
    ("product_id", "version", "status"), [("P1", 9, 409), ("P9", 1, 404), ("P1", 0, 400)]
)
def test_refusals_can_have_different_statuses(
    asker_of: AskerOf, product_id: str, version: int, status: int
) -> None:
    """400 and 404 besides 409."""
    asker = asker_of(Switches(refusal_status="varied"))
    asker.create(P1)

    assert status == asker.sell(product_id, -1, version, "k").status


def test_positive_deltas_can_be_refused(asker_of: AskerOf) -> None:
    """invalid_request."""
    asker = asker_of(Switches(refuse_positive=True))
    asker.create(P1)

    assert "invalid_request" == asker.sell("P1", 1, 1, "k").body["errorType"]


def test_events_can_have_their_old_names(asker_of: AskerOf) -> None:
    """product_updated, deletions without data, no storeId or key."""
    asker = asker_of(Switches(old_event_names=True, deletion_data="absent", unnamed_writes=True))
    asker.create(P1)
    asker.sell("P1", -1, 1, "k")
    asker.admin("DELETE", "products/delete", {"productIds": ["P1"]})

    events = asker.get("/v1/inventory/events?offset=1").body["events"]

    kinds = ["product_created", "product_updated", "product_deleted"]
    assert kinds == [event["eventType"] for event in events]
    assert [True, True, False] == ["data" in event for event in events]
    assert not any("idempotencyKey" in event for event in events)


def test_creations_can_be_updates(asker_of: AskerOf) -> None:
    """product_updated is then the only name beside product_deleted."""
    asker = asker_of(Switches(old_event_names=True, created_as_updated=True))
    asker.create(P1)
    asker.sell("P1", -1, 1, "k")
    asker.admin("DELETE", "products/delete", {"productIds": ["P1"]})

    events = asker.get("/v1/inventory/events?offset=1").body["events"]

    kinds = ["product_updated", "product_updated", "product_deleted"]
    assert kinds == [event["eventType"] for event in events]


@pytest.mark.parametrize(
    "target",
    ["/v1/inventory?limit=0&offset=-1", "/v1/inventory?limit=&offset=x", "/v1/inventory?limit=1.5"],
)
def test_odd_parameters_can_be_ignored(asker_of: AskerOf, target: str) -> None:
    """The default counts."""
    asker = asker_of(Switches(odd_parameters="ignored"))
    asker.create(P1)

    assert asker.get("/v1/inventory").body == asker.get(target).body
    assert 400 == asker_of(Switches()).get(target).status


def test_refusals_can_lack_the_figures(asker_of: AskerOf) -> None:
    """Conflicts always name them."""
    asker = asker_of(Switches(figures_of_refusals="conflicts"))
    asker.create(P1)
    figures = {"newQuantity", "newVersion"}

    assert figures & asker.sell("P1", -99, 1, "k").body.keys() == set()
    assert figures <= asker.sell("P1", -1, 9, "l").body.keys()


def test_answers_to_writes_can_lack_zeros(asker_of: AskerOf) -> None:
    """`applied` and the rows keep theirs."""
    asker = asker_of(without(Feature.ANSWER_ZEROS))
    asker.create(P2)
    refused = asker.sell("P2", -1, 1, "k").body

    assert False is refused["applied"]
    assert "newQuantity" not in refused
    assert 0 == asker.get("/v1/inventory/P2").body["available"]


def test_admin_calls_can_name_their_deeds(asker_of: AskerOf) -> None:
    """In the summary."""
    asker = asker_of(Switches(admin_summary="long"))
    created = asker.create(P1, P1).body["summary"]
    changed = asker.admin("PUT", "products/set", {"products": [P1]}).body["summary"]
    ended = asker.admin("DELETE", "products/delete", {"productIds": ["P1"]}).body["summary"]

    assert {"totalRequests": 2, "successfulCreations": 1, "failedCreations": 1} == created
    assert {"totalRequests": 1, "successfulUpdates": 1, "failedUpdates": 0} == changed
    assert {"totalRequests": 1, "successfulDeletions": 1, "failedDeletions": 0} == ended


def test_version_can_have_several_states(asker_of: AskerOf) -> None:
    """set keeps the version."""
    asker = asker_of(Switches(same_version=True))
    asker.create(P1)
    asker.admin("PUT", "products/set", {"products": [{"productId": "P1", "available": 3}]})

    events = asker.get("/v1/inventory/events?offset=1").body["events"]

    assert [(1, 10), (1, 3)] == [(each["version"], each["data"]["available"]) for each in events]


def test_ids_with_slashes_can_be_out_of_reach(asker_of: AskerOf) -> None:
    """A bare 404, though the list has the product."""
    asker = asker_of(Switches(slashes_unreachable=True))
    asker.create({"productId": "a/b"})

    answered = asker.get("/v1/inventory/a%2Fb")

    assert (404, None, "404\n") == (answered.status, answered.body, answered.text)
    assert ["a/b"] == ids(asker.get("/v1/inventory"))


def test_errors_can_be_a_proxys_page(asker_of: AskerOf) -> None:
    """HTML for every error; refusals of writes stay JSON."""
    asker = asker_of(Switches(html_errors=True))

    assert asker.get("/v1/inventory/nothing").text.startswith("<html>")
    assert "product_not_found" == asker.sell("P9", -1, 1, "k").body["errorType"]


@pytest.mark.parametrize(
    ("hint", "headers"),
    [
        ("retry-after", {"Retry-After": "60"}),
        ("reset", {"X-RateLimit-Reset": "1750000060"}),
        ("none", {}),
    ],
)
def test_requests_are_limited_per_address_and_minute(
    asker_of: AskerOf, hint: Any, headers: dict[str, str]
) -> None:
    """All requests count but administration and health; there are three kinds of hints."""
    asker = asker_of(Switches(rate_limit=2, rate_limit_hint=hint, rate_limit_fields="absent"))
    asker.admin("GET", "faults")
    asker.get("/health")
    passed = [asker.get("/v1/inventory").status, asker.sell("P9", -1, 1, "k").status]

    limited = asker.get("/v1/inventory/events?offset=1")

    assert ([200, 409], 429, "rate_limited") == (passed, limited.status, limited.body["code"])
    assert headers == limited.headers
    asker.now += 60
    assert 200 == asker.get("/v1/inventory").status


@pytest.mark.parametrize(
    ("fields", "headers"),
    [
        (
            "custom",
            {
                "X-RateLimit-Limit": "9",
                "X-RateLimit-Remaining": "7",
                "X-RateLimit-Reset": "1750000060",
            },
        ),
        ("draft", {"RateLimit": '"default";r=7;t=50', "RateLimit-Policy": '"default";q=9;w=60'}),
        ("absent", {}),
    ],
)
def test_each_answer_names_the_limit(
    asker_of: AskerOf, fields: Any, headers: dict[str, str]
) -> None:
    """Refusals too; a held poll says what was left when it came."""
    asker = asker_of(Switches(rate_limit=9, rate_limit_fields=fields))
    asker.get("/v1/inventory")
    asker.now += 10
    held = asker.raw("GET", "/v1/inventory/events?offset=1&wait=9")
    assert isinstance(held, Held)
    refused = asker.get("/v1/inventory/nothing")
    asker.now += 9
    released = asker.central.release(held, asker.now)

    assert headers.items() <= released.headers.items()
    assert headers.keys() == released.headers.keys() - {"X-Feed-Generation"}
    assert headers.keys() == refused.headers.keys() - {"X-Feed-Generation"}


# Administration


def test_products_are_created_set_and_deleted(asker: Asker) -> None:
    """One result each, with the new version; an impossible call fails alone."""
    created = asker.create(P1, P1).body["results"]
    changed = asker.admin("PUT", "products/set", {"products": [P1, P2]}).body["results"]
    ended = asker.admin("DELETE", "products/delete", {"productIds": ["P1", "P1", 5]}).body

    assert [1, "product_exists"] == [created[0]["newVersion"], created[1]["errorType"]]
    assert [2, "product_not_found"] == [changed[0]["newVersion"], changed[1]["errorType"]]
    assert 3 == ended["results"][0]["newVersion"]
    assert {"total": 3, "succeeded": 1, "failed": 2} == ended["summary"]


def test_switches_can_be_changed_while_it_runs(asker: Asker) -> None:
    """A switch that is not named stays."""
    asker.admin("PUT", "switches", {"pageLimit": 50})
    body = asker.admin("PUT", "switches", {"without": ["hold", "gone"]}).body

    assert (50, ["gone", "hold"]) == (body["pageLimit"], body["without"])
    assert isinstance(asker.raw("GET", "/v1/inventory/events?wait=9"), Reply)


def test_restore_begins_a_new_generation_by_default(asker: Asker) -> None:
    """keepGeneration imitates a Central that does not notice a restore."""
    asker.create(P1)
    backup = asker.admin("GET", "backup").body
    asker.create(P2)

    renamed = asker.admin("POST", "restore", {"backup": backup}).body
    kept = asker.admin("POST", "restore", {"backup": backup, "keepGeneration": True}).body

    assert {"generation": "g-2", "products": 1, "eventOffset": 1} == renamed
    assert "g-1" == kept["generation"]


def test_without_generation_a_restore_keeps_the_name(asker_of: AskerOf) -> None:
    """Clients do not see it."""
    asker = asker_of(without(Feature.GENERATION))

    backup = asker.admin("GET", "backup").body

    assert "g-1" == asker.admin("POST", "restore", {"backup": backup}).body["generation"]


def test_a_wipe_leaves_nothing(asker: Asker) -> None:
    """No products, no events, a new generation."""
    asker.create(P1)

    body = asker.admin("POST", "wipe").body

    assert {"generation": "g-2", "products": 0, "eventOffset": 0} == body
