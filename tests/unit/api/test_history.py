"""The history of a product over HTTP."""

from __future__ import annotations

from tests.harness.fake_store import FakeStore, product
from tests.unit.api.conftest import ADMIN, TILL, Opened, Store

PATH = "/v1/store/inventory/PROD-001"


async def sell(store: Store, key: str) -> None:
    headers = TILL | {"Idempotency-Key": key}
    reply = await store.post(
        f"{PATH}/inventory", {"quantityChange": -1}, headers=headers, method="PATCH"
    )
    assert reply.status == 200


async def test_only_admins_see_keys(store: Store) -> None:
    """A till learns what was sold, and not under which key another till sold it."""
    await sell(store, "order-1")
    for headers, keys in ((TILL, [None]), (ADMIN, ["order-1"])):
        reply = await store.send("GET", f"{PATH}/history", headers=headers)
        assert [change.get("idempotencyKey") for change in reply.json["changes"]] == keys
        assert reply.headers["Cache-Control"] == "no-store"


async def test_the_newest_changes_come_first(store: Store) -> None:
    """Twenty of them, unless more or less are asked for."""
    for number in range(5):
        await sell(store, f"order-{number}")
    few = (await store.get(f"{PATH}/history?limit=2")).json
    assert ([change["version"] for change in few["changes"]], few["complete"]) == ([11, 10], False)
    most = (await store.get(f"{PATH}/history?limit=1000")).json
    assert (len(most["changes"]), most["complete"]) == (5, True)


async def test_a_product_that_nothing_happened_to_has_an_empty_history(store: Store) -> None:
    """It is no error; a product that never was here is one."""
    assert (await store.get("/v1/store/inventory/PROD-002/history")).json["changes"] == []
    missing = await store.get("/v1/store/inventory/PROD-999/history")
    assert (missing.status, missing.code) == (404, "product_not_found")


async def test_a_product_that_is_gone_keeps_its_history(store: Store) -> None:
    """Its deletion is the last change."""
    store.fake.remove("PROD-001")
    [change] = (await store.get(f"{PATH}/history")).json["changes"]
    assert change["available"] is None


async def test_ids_are_decoded(open_store: Opened) -> None:
    """An id may hold a slash."""
    store = await open_store(FakeStore([product("tea/green 50%")]))
    reply = await store.get("/v1/store/inventory/tea%2Fgreen%2050%25/history")
    assert reply.json["productId"] == "tea/green 50%"


async def test_before_there_is_a_catalogue_there_is_no_history(store: Store) -> None:
    """As for every read."""
    store.fake.catalogue = None
    reply = await store.get(f"{PATH}/history")
    assert (reply.status, reply.code) == (503, "cache_not_ready")
