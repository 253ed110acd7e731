"""One table of calls for both APIs: what HTTP answers, gRPC answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import httpx
import orjson
import pytest

from store_cache.api.problems import STATUS
from store_cache.rpc.errors import CODES
from store_cache.rpc.generated import inventory_pb2 as pb
from store_cache.rpc.generated.inventory_pb2_grpc import InventoryStub
from tests.unit.rpc.conftest import ADMIN, TILL, Shop, refusal_of

ITEM = "/v1/store/inventory"


@dataclass(frozen=True)
class Case:
    """The same call twice. `error` is its error code; empty: it succeeds."""

    name: str
    http: tuple[str, str]
    rpc: Callable[[Shop, Any], Any]
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    metadata: Any = TILL
    error: str = ""


def sale(delta: int, version: int, key: str, product_id: str = "TEA-001") -> dict[str, Any]:
    return {"productId": product_id, "delta": delta, "version": version, "idempotencyKey": key}


def update(delta: int, version: int, key: str, product_id: str = "TEA-001") -> Any:
    return pb.UpdateInventoryRequest(
        product_id=product_id, delta=delta, version=version, request_id=key
    )


def adjustment(change: int, key: str, product_id: str = "TEA-001") -> Any:
    return pb.AdjustInventoryRequest(product_id=product_id, quantity_change=change, request_id=key)


REFUSED = (
    Case(
        "an unknown product",
        ("GET", f"{ITEM}/NONE"),
        lambda shop, key: shop.inventory.GetProduct(
            pb.GetProductRequest(product_id="NONE"), metadata=key
        ),
        error="product_not_found",
    ),
    Case(
        "no key",
        ("GET", f"{ITEM}/TEA-001"),
        lambda shop, key: shop.inventory.GetProduct(
            pb.GetProductRequest(product_id="TEA-001"), metadata=key
        ),
        headers={"X-API-Key": ""},
        metadata=(),
        error="unauthorized",
    ),
    Case(
        "a wrong key",
        ("GET", ITEM),
        lambda shop, key: shop.inventory.ListProducts(pb.ListProductsRequest(), metadata=key),
        headers={"X-API-Key": "wrong"},
        metadata=(("x-api-key", "wrong"),),
        error="unauthorized",
    ),
    Case(
        "a till's key for a full sync",
        ("POST", "/v1/store/sync/force"),
        lambda shop, key: shop.sync.ForceSync(pb.ForceSyncRequest(), metadata=key),
        error="forbidden",
    ),
    Case(
        "a page before the first",
        ("GET", f"{ITEM}?limit=-1"),
        lambda shop, key: shop.inventory.ListProducts(
            pb.ListProductsRequest(page_size=-1), metadata=key
        ),
        error="invalid_request",
    ),
    Case(
        "a search for nothing",
        ("GET", f"{ITEM}?search=-"),
        lambda shop, key: shop.inventory.ListProducts(
            pb.ListProductsRequest(search="-"), metadata=key
        ),
        error="invalid_request",
    ),
    Case(
        "a sale of nothing",
        ("POST", f"{ITEM}/updates"),
        lambda shop, key: shop.inventory.UpdateInventory(update(0, 1, "k"), metadata=key),
        body=sale(0, 1, "k"),
        error="invalid_request",
    ),
    Case(
        "a write without a key of its own",
        ("POST", f"{ITEM}/updates"),
        lambda shop, key: shop.inventory.UpdateInventory(update(-1, 1, ""), metadata=key),
        body=sale(-1, 1, ""),
        error="invalid_request",
    ),
    Case(
        "a batch of nothing",
        ("POST", f"{ITEM}/batch-updates"),
        lambda shop, key: shop.inventory.BatchUpdateInventory(
            pb.BatchUpdateInventoryRequest(), metadata=key
        ),
        body={"updates": []},
        error="invalid_request",
    ),
    Case(
        "a history of an unknown product",
        ("GET", f"{ITEM}/NONE/history"),
        lambda shop, key: shop.inventory.ListProductHistory(
            pb.ListProductHistoryRequest(product_id="NONE"), metadata=key
        ),
        error="product_not_found",
    ),
    Case(
        "a barcode with a wrong check digit",
        ("POST", f"{ITEM}/lookup"),
        lambda shop, key: shop.inventory.BatchGetProducts(
            pb.BatchGetProductsRequest(barcodes=["4006381333932"]), metadata=key
        ),
        body={"barcodes": ["4006381333932"]},
        error="invalid_request",
    ),
)


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
def test_both_refuse_with_one_code(shop: Shop, case: Case) -> None:
    """The reason is the error code; the status is the one of the table."""
    method, path = case.http
    answer = shop.http.request(method, path, json=case.body, headers=case.headers)
    with pytest.raises(grpc.RpcError) as caught:
        case.rpc(shop, case.metadata)
    refusal = refusal_of(caught.value)

    problem = answer.json()["error"]
    assert case.error == problem["code"] == refusal.reason
    assert (STATUS[case.error], CODES[case.error]) == (answer.status_code, refusal.code)
    assert len(problem["details"].get("fields", ())) == len(refusal.fields)


ANSWERED = (
    Case(
        "one product",
        ("GET", f"{ITEM}/TEA-001"),
        lambda shop, key: (
            shop.inventory.GetProduct(
                pb.GetProductRequest(product_id="TEA-001"), metadata=key
            ).product.json
        ),
    ),
    Case(
        "a page",
        ("GET", f"{ITEM}?limit=2"),
        lambda shop, key: shop.inventory.ListProducts(
            pb.ListProductsRequest(page_size=2), metadata=key
        ),
    ),
    Case(
        "a search",
        ("GET", f"{ITEM}?search=tea"),
        lambda shop, key: shop.inventory.ListProducts(
            pb.ListProductsRequest(search="tea"), metadata=key
        ),
    ),
    Case(
        "what is in stock, of one category",
        ("GET", f"{ITEM}?inStock=false&category=mugs"),
        lambda shop, key: shop.inventory.ListProducts(
            pb.ListProductsRequest(in_stock=False, category="mugs"), metadata=key
        ),
    ),
    Case(
        "a lookup",
        ("POST", f"{ITEM}/lookup"),
        lambda shop, key: shop.inventory.BatchGetProducts(
            pb.BatchGetProductsRequest(
                product_ids=["MUG-001", "NONE", "MUG-001"], barcodes=["4006381333931", "96385074"]
            ),
            metadata=key,
        ),
        body={
            "productIds": ["MUG-001", "NONE", "MUG-001"],
            "barcodes": ["4006381333931", "96385074"],
        },
    ),
)


@pytest.mark.parametrize("case", ANSWERED, ids=lambda case: case.name)
def test_both_answer_the_same_products(shop: Shop, case: Case) -> None:
    """Byte for byte: the JSON of each message is the product that HTTP gives."""
    method, path = case.http
    shown = shop.http.request(method, path, json=case.body).json()
    told = case.rpc(shop, TILL)

    if isinstance(told, str):
        assert shown == orjson.loads(told)
        return
    assert shown["products"] == [orjson.loads(product.json) for product in told.products]
    if "missing" in shown:
        assert shown["missing"] == list(told.missing_ids)
        assert shown["missingBarcodes"] == list(told.missing_barcodes)
    else:
        assert shown["pagination"]["total"] == told.total_size
        assert shown["pagination"]["hasMore"] == bool(told.next_page_token)


WRITES = (
    Case(
        "a sale",
        ("POST", f"{ITEM}/updates"),
        lambda shop, key: shop.inventory.UpdateInventory(update(-2, 1, "k-1"), metadata=key).result,
        body=sale(-2, 1, "k-1"),
    ),
    Case(
        "a sale at an old version",
        ("POST", f"{ITEM}/updates"),
        lambda shop, key: shop.inventory.UpdateInventory(update(-2, 9, "k-1"), metadata=key).result,
        body=sale(-2, 9, "k-1"),
    ),
    Case(
        "a sale of too much",
        ("PATCH", f"{ITEM}/TEA-001/inventory"),
        lambda shop, key: (
            shop.inventory.AdjustInventory(adjustment(-41, "k-1"), metadata=key).result
        ),
        body={"quantityChange": -41},
        headers={"Idempotency-Key": "k-1"},
    ),
    Case(
        "a return",
        ("PATCH", f"{ITEM}/MUG-001/inventory"),
        lambda shop, key: (
            shop.inventory.AdjustInventory(adjustment(3, "k-1", "MUG-001"), metadata=key).result
        ),
        body={"quantityChange": 3},
        headers={"Idempotency-Key": "k-1"},
    ),
)


@pytest.mark.parametrize("case", WRITES, ids=lambda case: case.name)
def test_a_write_repeated_over_the_other_api_is_one_write(shop: Shop, case: Case) -> None:
    """The request_id is the idempotency key, so a till may repeat over either: one answer."""
    told = case.rpc(shop, TILL)
    method, path = case.http
    shown = shop.http.request(method, path, json=case.body, headers=case.headers).json()

    assert shown["applied"] == told.applied
    for name in ("productId", "newQuantity", "newVersion", "errorType", "errorMessage"):
        field_name = "".join(f"_{c.lower()}" if c.isupper() else c for c in name)
        assert shown.get(name, "") == (
            getattr(told, field_name) if _is_told(told, field_name) else ""
        )
    assert len(shop.central.sales()) == told.applied


def _is_told(message: Any, name: str) -> bool:
    return name in {descriptor.name for descriptor, _ in message.ListFields()}


def test_a_key_of_another_write_already_exists(shop: Shop) -> None:
    shop.inventory.UpdateInventory(update(-1, 1, "k-1"), metadata=TILL)

    answer = shop.http.post(f"{ITEM}/updates", json=sale(-2, 2, "k-1"))
    with pytest.raises(grpc.RpcError) as caught:
        shop.inventory.UpdateInventory(update(-2, 2, "k-1"), metadata=TILL)
    refusal = refusal_of(caught.value)

    assert "idempotency_key_reused" == answer.json()["error"]["code"] == refusal.reason
    assert grpc.StatusCode.ALREADY_EXISTS is refusal.code


def test_a_batch_is_answered_line_by_line(shop: Shop) -> None:
    batch = pb.BatchUpdateInventoryRequest(
        updates=[update(-1, 1, "k-1"), update(-1, 9, "k-2", "JAM-001")]
    )
    first, second = shop.inventory.BatchUpdateInventory(batch, metadata=TILL).results

    assert (True, 39) == (first.applied, first.new_quantity)
    assert (False, "version_conflict") == (second.applied, second.error_type)


def test_central_away_is_unavailable_with_a_time_to_wait(shop: Shop) -> None:
    shop.central.stop()
    while True:  # the first write finds out, within its deadline
        with pytest.raises(grpc.RpcError) as caught:
            shop.inventory.AdjustInventory(adjustment(-1, "k-1"), metadata=TILL)
        refusal = refusal_of(caught.value)
        if refusal.reason != "central_timeout":
            break

    assert ("central_unavailable", grpc.StatusCode.UNAVAILABLE) == (refusal.reason, refusal.code)
    assert refusal.retry_seconds is not None
    assert refusal.retry_seconds >= 1


def test_a_lost_answer_is_a_deadline_and_the_repeat_is_the_same_write(shop: Shop) -> None:
    shop.central.switch(unnamed_writes=True)  # so that the feed does not tell the outcome
    shop.central.fault("status", status=503, when="after", routes=["updates"])
    with pytest.raises(grpc.RpcError) as caught:
        shop.inventory.AdjustInventory(adjustment(-1, "k-1"), metadata=TILL)
    assert grpc.StatusCode.DEADLINE_EXCEEDED is refusal_of(caught.value).code
    shop.central.clear_faults()
    shop.store.wait_until_in_sync()

    answer = shop.inventory.AdjustInventory(adjustment(-1, "k-1"), metadata=TILL)

    assert answer.result.applied
    assert 1 == len(shop.central.sales())


def test_status_and_stats_are_the_documents_of_http(shop: Shop) -> None:
    told: Any = shop.sync.GetStatus(pb.GetStatusRequest(), metadata=TILL)
    stats = shop.sync.GetCacheStats(pb.GetCacheStatsRequest(), metadata=TILL)

    assert "live" == told.state == told.status["state"]["name"]
    assert shop.http.get("/v1/store/sync/status").json().keys() == dict(told.status).keys()
    assert 3 == stats.stats["totalProducts"]


def test_a_full_sync_on_demand(shop: Shop) -> None:
    before = len(shop.store.status()["fullSyncs"])
    answer = shop.sync.ForceSync(pb.ForceSyncRequest(), metadata=ADMIN)

    assert before + 1 == len(shop.store.status()["fullSyncs"])
    assert answer.freshness.generation


def test_every_answer_says_how_fresh_it_is(shop: Shop) -> None:
    answer = shop.http.get(f"{ITEM}/TEA-001")
    fresh = shop.inventory.GetProduct(
        pb.GetProductRequest(product_id="TEA-001"), metadata=TILL
    ).freshness

    assert answer.headers["X-Cache-Generation"] == fresh.generation
    assert answer.headers["X-Cache-Offset"] == str(fresh.offset)
    assert 0 <= fresh.age_seconds < 60
    assert (False, True) == (fresh.stale, fresh.durable)


def test_pages_lead_through_the_whole_list_and_the_whole_search(shop: Shop) -> None:
    """By id, or by relevance; a token of another kind is refused."""
    shop.central.set_products(
        *({"productId": f"TEA-1{n:02}", "name": "Tea", "available": n} for n in range(20))
    )
    shop.store.wait_until_in_sync()
    for asked in (
        pb.ListProductsRequest(page_size=7),
        pb.ListProductsRequest(page_size=7, search="tea"),
        pb.ListProductsRequest(page_size=7, search="tea", order_by_id=True),
    ):
        ids: list[str] = []
        token, pages = "", 0
        while pages == 0 or token:
            asked.page_token = token
            page = shop.inventory.ListProducts(asked, metadata=TILL)
            ids += [product.product_id for product in page.products]
            token, pages = page.next_page_token, pages + 1
        assert page.total_size == len(ids) == len(set(ids))
        assert pages == -(-len(ids) // 7)

    with pytest.raises(grpc.RpcError) as caught:
        shop.inventory.ListProducts(pb.ListProductsRequest(page_token="?"), metadata=TILL)
    assert ["page_token"] == list(refusal_of(caught.value).fields)


def test_the_history_names_keys_to_admins_alone(shop: Shop) -> None:
    shop.inventory.AdjustInventory(adjustment(-1, "k-1"), metadata=TILL)
    asked = pb.ListProductHistoryRequest(product_id="TEA-001")

    till = shop.inventory.ListProductHistory(asked, metadata=TILL)
    admin = shop.inventory.ListProductHistory(asked, metadata=ADMIN)

    assert (-1, 39, "write") == (
        till.changes[0].delta,
        till.changes[0].available,
        till.changes[0].source,
    )
    assert ("", "k-1") == (till.changes[0].request_id, admin.changes[0].request_id)


@pytest.mark.parametrize(
    ("on_conflict", "state"),
    [(pb.ON_CONFLICT_REBASE, "applied"), (pb.ON_CONFLICT_UNSPECIFIED, "parked")],
)
def test_a_queued_write_with_an_old_version_is_rebased_if_it_says_so(
    shop: Shop, on_conflict: pb.OnConflict.ValueType, state: str
) -> None:
    """As `onConflict` over HTTP has it."""
    shop.store.reset(offline_writes="queue")
    shop.central.sell("TEA-001")
    shop.store.wait_until_in_sync()
    shop.central.stop()
    request = update(-2, 1, "k-1")
    request.on_conflict = on_conflict
    with (
        grpc.insecure_channel(shop.store.grpc_address) as channel,
        httpx.Client(base_url=shop.store.url, headers=shop.store.headers) as http,
    ):
        result = InventoryStub(channel).UpdateInventory(request, metadata=TILL).result
        assert result.queued
        shop.central.start()
        ends_at = time.monotonic() + 20.0
        found = ""
        while found not in ("applied", "parked") and time.monotonic() < ends_at:
            time.sleep(0.05)
            found = http.get(f"/v1/store/outbox/{result.outbox_id}").json()["state"]

    assert state == found
