"""Writes: what reaches the forwarder, and how its answers become responses."""

import asyncio

import orjson
import pytest

from store_cache.writes.idempotency import key_reused
from store_cache.writes.write import Adjustment, Write, WriteError
from tests.harness.clock import NOON
from tests.harness.fake_store import MOMENT
from tests.harness.http import DEADLINE_SECONDS, until
from tests.unit.api.conftest import ADMIN, TILL, Store

UPDATES = "/v1/store/inventory/updates"
BATCH = "/v1/store/inventory/batch-updates"
UPDATE = {"productId": "PROD-001", "delta": -2, "version": 6, "idempotencyKey": "order-12345"}


async def test_an_update_is_applied_and_read_at_once(store: Store) -> None:
    """The contract's answer; the next read shows it."""
    reply = await store.post(UPDATES, UPDATE | {"storeId": "store-s1"})
    read = await store.get("/v1/store/inventory/PROD-001")

    expected = {
        "productId": "PROD-001",
        "newQuantity": 8,
        "newVersion": 7,
        "applied": True,
        "lastUpdated": MOMENT,
    }
    assert (200, expected) == (reply.status, reply.json)
    assert "no-store" == reply.headers["Cache-Control"]
    assert 8 == read.json["available"]


@pytest.mark.parametrize(
    ("changes", "status", "error_type"),
    [
        ({"version": 5}, 409, "version_conflict"),
        ({"delta": -11}, 409, "insufficient_inventory"),
        ({"productId": "PROD-999"}, 404, "product_not_found"),
    ],
)
async def test_a_refusal_is_central_s_answer(
    store: Store, changes: dict[str, object], status: int, error_type: str
) -> None:
    """A write that was not applied has Central's body as it is; it is not an error of the API."""
    reply = await store.post(UPDATES, UPDATE | changes)

    assert (status, False, error_type) == (
        reply.status,
        reply.json["applied"],
        reply.json["errorType"],
    )


async def test_the_whole_write_reaches_the_forwarder(store: Store) -> None:
    """Every field arrives as sent; one that is missing or null is None."""
    key = "!" + "x" * 198 + "}"
    extremes = {"productId": "a/ü", "delta": 999_999_999, "version": 2**53 - 1}
    told = {"reason": "sold", "updatedBy": "cashier123"}
    await store.post(UPDATES, UPDATE | extremes | told | {"idempotencyKey": key})
    await store.post(UPDATES, UPDATE | {"reason": None, "updatedBy": None, "storeId": None})

    assert [
        Write("a/ü", 999_999_999, 2**53 - 1, key, "sold", "cashier123"),
        Write("PROD-001", -2, 6, "order-12345", None, None),
    ] == store.fake.writes


async def test_a_batch_has_one_result_for_each_update(store: Store) -> None:
    """Results are in the order sent; the status is 200 even if some were refused."""
    updates = [UPDATE, UPDATE | {"productId": "PROD-002", "version": 3, "idempotencyKey": "b"}]
    reply = await store.post(BATCH, {"updates": updates})
    results = reply.json["results"]
    counts = {name: item for name, item in reply.json.items() if name != "results"}

    assert 200 == reply.status
    assert {
        "storeId": "store-s1",
        "totalCount": 2,
        "successCount": 1,
        "failureCount": 1,
    } == counts
    assert [("PROD-001", True), ("PROD-002", False)] == [
        (result["productId"], result["applied"]) for result in results
    ]


async def test_a_batch_of_one_hundred(store: Store) -> None:
    """That is the largest batch."""
    updates = [
        UPDATE | {"idempotencyKey": f"k{n}", "version": 6 + n, "delta": 1, "reason": "count"}
        for n in range(100)
    ]
    reply = await store.post(BATCH, {"storeId": "store-s1", "updates": updates})

    assert (100, 0) == (reply.json["successCount"], reply.json["failureCount"])


async def test_patch_is_a_write_without_a_version(store: Store) -> None:
    """The id comes from the path, the key from the header."""
    headers = TILL | {"Idempotency-Key": "order-9"}
    body = {"quantityChange": -5, "reason": "Sale completed", "updatedBy": "cashier123"}
    reply = await store.post(
        "/v1/store/inventory/PROD%2D001/inventory", body, headers, method="PATCH"
    )

    assert (200, 5) == (reply.status, reply.json["newQuantity"])
    assert [
        Adjustment("PROD-001", -5, "order-9", "Sale completed", "cashier123")
    ] == store.fake.writes


async def test_patch_reaches_an_id_with_a_slash(store: Store) -> None:
    """An encoded slash is part of the id, also before `/inventory`."""
    headers = TILL | {"Idempotency-Key": "order-9"}
    await store.post(
        "/v1/store/inventory/a%2Finventory/inventory", {"quantityChange": 1}, headers, "PATCH"
    )

    assert [Adjustment("a/inventory", 1, "order-9")] == store.fake.writes


@pytest.mark.parametrize(
    ("code", "status", "wait_seconds", "retry_after"),
    [
        ("product_not_found", 404, None, None),
        ("idempotency_key_reused", 422, None, None),
        ("central_error", 502, None, None),
        ("central_unavailable", 503, 2.2, "3"),
        ("central_unavailable", 503, 0.0, "1"),
        ("storage_unavailable", 503, None, None),
        ("central_timeout", 504, None, None),
    ],
)
async def test_a_write_without_an_answer_is_one_of_the_errors(
    store: Store, code: str, status: int, wait_seconds: float | None, retry_after: str | None
) -> None:
    """Code, message and details are the forwarder's; a wait is rounded up to whole seconds."""
    store.fake.failure = WriteError(
        code, "said so", details={"productId": "PROD-001"}, retry_after_seconds=wait_seconds
    )
    reply = await store.post(UPDATES, UPDATE)

    said = {"code": code, "message": "said so", "details": {"productId": "PROD-001"}}
    assert (status, {"error": said}) == (reply.status, reply.json)
    assert retry_after == reply.headers.get("Retry-After")


async def test_a_write_names_its_client(store: Store) -> None:
    """The name of its API key, never the key: the forwarder tells it to a till that reuses an
    idempotency key."""
    await store.post(UPDATES, UPDATE)
    await store.post(UPDATES, UPDATE, headers=ADMIN)

    assert ["key-1", "admin-key-1"] == [write.client for write in store.fake.writes]


async def test_a_reused_key_is_logged_with_both_clients(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """A person can find the tills that form the same keys. One line a minute, with a count."""
    store.fake.failure = key_reused("sale", client="till-3", used_at=NOON)
    for _ in range(3):
        assert 422 == (await store.post(UPDATES, UPDATE)).status

    [line] = [each for each in caplog.records if "idempotency key" in each.message]
    said = {"caller": "key-1", "firstUsedBy": "till-3", "idempotencyKey": "sale", "refused": 1}
    assert said.items() <= line.__dict__.items()


# -- what tills of older stores send -----------------------------------------------------------


async def test_each_update_of_a_batch_may_name_this_store(store: Store) -> None:
    """`storeId` is accepted in an update, as in the whole batch."""
    reply = await store.post(BATCH, {"updates": [UPDATE | {"storeId": "store-s1"}]})

    assert (200, 1) == (reply.status, reply.json["successCount"])


@pytest.mark.parametrize(
    "content_type",
    [{}, {"Content-Type": ""}, {"Content-Type": "text/plain; charset=UTF-8"}],
    ids=["none", "empty", "text"],
)
async def test_json_may_come_without_its_content_type(
    store: Store, content_type: dict[str, str]
) -> None:
    """JSON is read where the type is missing, or is that of plain text."""
    body = orjson.dumps(UPDATE)
    reply = await store.send("POST", UPDATES, headers=TILL | content_type, body=body)

    assert (200, True) == (reply.status, reply.json["applied"])


async def test_unknown_fields_are_ignored(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """In every body; the first of them is logged at once, shortened, and the others with it in
    the line of the next minute."""
    key = {"Idempotency-Key": "order-2"}
    unknown = {"x" * 1000: 1, "key": "k", "write": 2}
    replies = [
        await store.post("/v1/store/inventory/lookup", {"productIds": []} | unknown),
        await store.post(UPDATES, UPDATE | unknown),
        await store.post(BATCH, {"updates": [UPDATE | unknown]} | unknown),
        await store.post(
            "/v1/store/inventory/PROD-001/inventory",
            {"quantityChange": -1} | unknown,
            TILL | key,
            "PATCH",
        ),
    ]

    assert [200] * 4 == [reply.status for reply in replies]
    assert [
        Write("PROD-001", -2, 6, "order-12345"),
        Write("PROD-001", -2, 6, "order-12345"),
        Adjustment("PROD-001", -1, "order-2"),
    ] == store.fake.writes
    lines = [one.__dict__ for one in caplog.records if "unknown fields" in one.message]
    assert [("x" * 100, 1)] == [(line["field"], line["ignored"]) for line in lines]


async def test_a_disconnect_does_not_cancel_a_write(store: Store) -> None:
    """A write that was begun is carried out (W5)."""
    store.fake.admission.clear()
    line = await store.begin_write()
    line.reset()
    await until(lambda: store.running.connections == 0)
    store.fake.admission.set()
    async with asyncio.timeout(DEADLINE_SECONDS):
        await store.fake.applied.wait()
    read = await store.get("/v1/store/inventory/PROD-001")

    assert 8 == read.json["available"]
