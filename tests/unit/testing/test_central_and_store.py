"""`TestCentral` and `TestStore`, as the tests of a till use them: real sockets, real time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from central_stub.testing import Sale, TestCentral
from store_cache.testing import TestStore

TEA = {"productId": "TEA-001", "name": "Green tea", "available": 40}
MUG = {"productId": "MUG-001", "name": "Mug", "available": 0}


@pytest.fixture
def central() -> Iterator[TestCentral]:
    with TestCentral([TEA, MUG]) as central:
        yield central


@pytest.fixture
def store(central: TestCentral) -> Iterator[TestStore]:
    with TestStore(central) as store:
        yield store


def sell(store: TestStore, key: str, quantity: int = 1) -> httpx.Response:
    return httpx.patch(
        f"{store.url}/v1/store/inventory/TEA-001/inventory",
        json={"quantityChange": -quantity},
        headers=store.headers | {"Idempotency-Key": key},
    )


def test_the_store_is_in_sync_when_the_block_begins(central: TestCentral, store: TestStore) -> None:
    answer = httpx.get(f"{store.url}/v1/store/inventory/TEA-001", headers=store.headers)

    assert 40 == answer.json()["available"]
    assert {"TEA-001", "MUG-001"} == store.products().keys() == central.products().keys()


def test_both_may_be_used_in_a_coroutine() -> None:
    """The till under test runs in the loop of the test; the two do not."""

    async def till() -> int:
        async with TestCentral([TEA]) as central, TestStore(central) as store:
            central.sell("TEA-001", 2)
            store.wait_until_in_sync()
            async with httpx.AsyncClient(headers=store.headers) as client:
                answer = await client.get(f"{store.url}/v1/store/inventory/TEA-001")
                return int(answer.json()["available"])

    assert 38 == asyncio.run(till())


def test_sales_name_the_store_and_its_key(central: TestCentral, store: TestStore) -> None:
    assert sell(store, "sale-1").json()["applied"]
    central.sell("TEA-001", 3, store_id="store-b")

    ours, theirs = central.sales()

    assert Sale("TEA-001", -1, 2, "store-test", "store-test-sale-1") == ours
    assert ("TEA-001", -3, 3, "store-b") == (
        theirs.product_id,
        theirs.quantity_change,
        theirs.version,
        theirs.store_id,
    )


def test_a_fault_by_name_strikes_the_store_alone(central: TestCentral, store: TestStore) -> None:
    """A lost answer: the sale is applied once. What the test itself asks of Central is spared."""
    central.fault("drop", when="after", routes=["updates"], times=1)
    central.sell("TEA-001", 5)
    store.wait_until_in_sync()

    assert sell(store, "sale-1").json()["applied"]

    assert [-5, -1] == [sale.quantity_change for sale in central.sales()]


def test_options_of_faults_and_switches_are_python_names(central: TestCentral) -> None:
    central.fault("cut", keep_bytes=10)
    central.switch(page_limit=7, without=["hold"])


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_central_goes_away_and_comes_back_the_same(
    central: TestCentral, store: TestStore, end: str
) -> None:
    """Reads go on meanwhile; remembered keys, feed and sales go on afterwards."""
    sell(store, "sale-1")
    getattr(central, end)()
    assert 200 == httpx.get(f"{store.url}/v1/store/inventory", headers=store.headers).status_code

    central.start()
    central.sell("TEA-001")
    store.wait_until_in_sync()

    assert 38 == store.products()["TEA-001"]["available"]
    assert 2 == len(central.sales())
    assert 1 == len(store.status()["fullSyncs"])


def test_a_restarted_store_keeps_catalogue_and_keys(central: TestCentral, store: TestStore) -> None:
    before, first = store.url, sell(store, "sale-1")
    store.restart()
    store.wait_until_in_sync()

    assert before == store.url
    assert first.json() == sell(store, "sale-1").json()
    assert 1 == len(central.sales())


def test_reset_forgets_what_a_test_did(central: TestCentral, store: TestStore) -> None:
    """The same key is a new sale; faults, switches and products are those of the beginning."""
    sell(store, "sale-1")
    central.fault("status", status=503)
    central.switch(refuse_positive=True)
    central.delete_products("MUG-001")
    central.stop()
    store.stop()

    central.reset()
    store.reset()

    assert {"TEA-001", "MUG-001"} == store.products().keys()
    assert () == tuple(central.sales())
    assert 39 == sell(store, "sale-1").json()["newQuantity"]
    assert 40 == central.sell("TEA-001", -1)["available"]


def test_reset_takes_other_products_and_settings(central: TestCentral, store: TestStore) -> None:
    central.reset([MUG])
    store.reset(store_id="store-b")

    assert ["MUG-001"] == list(store.products())
    sold = httpx.patch(
        f"{store.url}/v1/store/inventory/MUG-001/inventory",
        json={"quantityChange": 2},
        headers=store.headers | {"Idempotency-Key": "return-1"},
    )
    assert sold.json()["applied"]
    assert ["store-b"] == [sale.store_id for sale in central.sales()]


def test_products_are_created_and_changed(central: TestCentral) -> None:
    central.set_products({"productId": "TEA-001", "price": 4}, {"productId": "JAR-001"})

    assert (40, 4) == (
        central.products()["TEA-001"]["available"],
        central.products()["TEA-001"]["price"],
    )
    assert 0 == central.products()["JAR-001"]["available"]
    assert central.product("none") is None


def test_a_tenant_s_central_is_followed() -> None:
    with TestCentral([TEA], tenant="acme") as central, TestStore(central) as store:
        central.sell("TEA-001")
        store.wait_until_in_sync()

        assert 39 == store.products()["TEA-001"]["available"]
        assert 1 == len(central.sales())


def test_an_older_central_is_followed() -> None:
    with TestCentral([TEA], like="older") as central, TestStore(central) as store:
        central.sell("TEA-001", 40)
        store.wait_until_in_sync()

        assert 0 == store.products()["TEA-001"]["available"]


def test_folders_keep_what_is_in_them(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "store", tmp_path / "central"
    with TestCentral([TEA], folder=theirs) as central, TestStore(central, folder=ours) as store:
        sell(store, "sale-1")
    with TestCentral([TEA], folder=theirs) as central, TestStore(central, folder=ours) as store:
        assert 39 == central.products()["TEA-001"]["available"]
        assert 39 == sell(store, "sale-1").json()["newQuantity"]
        assert 0 == len(store.status()["fullSyncs"])
        store.reset()
        assert 1 == len(store.status()["fullSyncs"])


@pytest.mark.parametrize("fault", ["new_generation", "forget_log"])
def test_the_pauses_of_a_store_are_cut_short(
    central: TestCentral, store: TestStore, fault: str
) -> None:
    """A store waits half a minute between two full syncs, and longer for a Central that fails."""
    central.stop()
    central.start()
    central.fault(fault)
    central.sell("TEA-001")
    store.wait_until_in_sync()

    assert 39 == store.products()["TEA-001"]["available"]


def test_what_is_wrong_says_so(central: TestCentral, store: TestStore) -> None:
    with pytest.raises(ValueError, match="does not match any of the expected tags: 'delay'"):
        central.fault("no-such-fault")
    with pytest.raises(ValueError, match="TEA-001: available must be a whole number, 0 or more"):
        central.set_products({"productId": "TEA-001", "available": -1})
    with pytest.raises(ValueError, match="insufficient inventory: 40 available, 41 asked for"):
        central.sell("TEA-001", 41)
    with pytest.raises(ValueError, match="like='newer': no such Central is known, only older"):
        TestCentral(like="newer")
    with pytest.raises(ValueError, match="no such setting: write_timeout; see docs/configuration"):
        TestStore(central, write_timeout=1)
    with pytest.raises(ValueError, match="WRITE_TIMEOUT_SECONDS was '0'; it may be a number from"):
        store.reset(write_timeout_seconds=0)
    with pytest.raises(RuntimeError, match="use it in a `with` or `async with` block"):
        TestStore(central).start()


def test_a_wait_in_vain_names_what_differs(central: TestCentral, store: TestStore) -> None:
    central.fault("lie", product_id="TEA-001", attributes={"available": 7})

    with pytest.raises(TimeoutError, match=r"it is live; 1 products differ \(TEA-001\)"):
        store.wait_until_in_sync(within_seconds=0)


def test_a_store_that_cannot_sync_ends_the_block(central: TestCentral) -> None:
    """And its thread with it."""
    central.fault("status", status=503)
    threads = threading.active_count()

    store = TestStore(central, in_sync_within_seconds=0.1)
    with pytest.raises(TimeoutError, match="not in sync within"), store:
        pytest.fail("it is not in sync")

    assert threads == threading.active_count()


def test_a_store_may_start_without_central(central: TestCentral) -> None:
    central.stop()
    with TestStore(central, in_sync_within_seconds=None) as store:
        answer = httpx.get(f"{store.url}/v1/store/inventory/TEA-001", headers=store.headers)
        assert "cache_not_ready" == answer.json()["error"]["code"]

        central.start()
        store.wait_until_in_sync()
