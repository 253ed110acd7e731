"""Tenants of one stub: each has a Central of its own, and a key opens that one alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from central_stub.server import Running
from central_stub.settings import BadSetting, Settings, read_settings
from central_stub.tenants import AccessKeys, tenant_of
from central_stub.wire import Refused
from tests.harness.postgres import Postgres

KEYS = {
    "": AccessKeys(["demo"], ["admin"]),
    "acme": AccessKeys(["acme-1", "acme-2"], ["admin"]),
    "globex": AccessKeys(["globex-1"], ["admin"]),
}


@pytest.mark.parametrize(
    ("key", "named", "tenant"),
    [
        ("demo", None, ""),
        ("acme-2", None, "acme"),
        ("acme-1", "acme", "acme"),
        ("admin", None, ""),
        ("admin", "globex", "globex"),
        ("wrong", "acme", ""),  # which refuses the key
    ],
)
def test_a_key_belongs_to_a_tenant(key: str, named: str | None, tenant: str) -> None:
    assert tenant == tenant_of(key, named, KEYS)


@pytest.mark.parametrize(
    ("key", "named"), [("acme-1", "globex"), ("demo", "acme"), ("acme-1", ""), ("admin", "none")]
)
def test_a_header_opens_nothing(key: str, named: str) -> None:
    with pytest.raises(Refused) as caught:
        tenant_of(key, named, KEYS)
    assert (403, "wrong_tenant") == (caught.value.status, caught.value.code)


@pytest.fixture(params=["folder", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    if request.param == "folder":
        return {"data_dir": tmp_path}
    started: Postgres = request.getfixturevalue("postgres")
    return {"database": started.empty_database()}


@pytest.fixture
async def central(place: dict[str, Any]) -> AsyncIterator[Running]:
    settings = Settings(
        _env_file=None,
        port=0,
        **place,
        tenant_keys="acme:acme-1,globex:globex-1",  # type: ignore[arg-type]
    )
    running = Running(settings)
    await running.start()
    yield running
    await running.stop()


async def ask(
    central: Running, method: str, path: str, key: str, body: Any = None, **headers: str
) -> httpx.Response:
    async with httpx.AsyncClient(base_url=central.url, trust_env=False) as client:
        sent = {"X-API-Key": key} | {name.replace("_", "-"): each for name, each in headers.items()}
        return await client.request(method, path, json=body, headers=sent)


async def create(central: Running, tenant: str, available: int) -> None:
    product = {"productId": "TEA-001", "available": available}
    body = {"products": [product]}
    answer = await ask(
        central, "POST", "/v1/admin/products/create", "admin-demo", body, X_Tenant_ID=tenant
    )
    assert 200 == answer.status_code


async def test_tenants_share_nothing(central: Running) -> None:
    """Products, stock, events, generation and remembered keys are each tenant's own."""
    await create(central, "acme", 10)
    await create(central, "globex", 20)
    sale = {"productId": "TEA-001", "delta": -1, "version": 1, "idempotencyKey": "k-1"}

    sold = [
        (await ask(central, "POST", "/v1/inventory/updates", key, sale)).json()["newQuantity"]
        for key in ("acme-1", "globex-1", "acme-1")
    ]
    held = [
        (await ask(central, "GET", "/v1/inventory", key)).json()
        for key in ("acme-1", "globex-1", "demo")
    ]
    events = [
        (await ask(central, "GET", "/v1/inventory/events?offset=1", key)).json()["events"]
        for key in ("acme-1", "globex-1", "demo")
    ]

    assert [9, 19, 9] == sold
    assert [[9], [19], []] == [[row["available"] for row in page["products"]] for page in held]
    assert [2, 2, 0] == list(map(len, events))
    assert 3 == len({page["generation"] for page in held})


async def test_another_tenant_s_key_is_refused(central: Running) -> None:
    await create(central, "acme", 10)
    answer = await ask(central, "GET", "/v1/inventory/TEA-001", "globex-1", X_Tenant_ID="acme")

    assert (403, "wrong_tenant") == (answer.status_code, answer.json()["code"])
    assert "acme" not in answer.text


async def test_faults_are_of_one_tenant(central: Running) -> None:
    fault = {"kind": "status", "status": 503}
    await ask(central, "POST", "/v1/admin/faults", "admin-demo", fault, X_Tenant_ID="acme")

    assert 503 == (await ask(central, "GET", "/v1/inventory", "acme-1")).status_code
    assert 200 == (await ask(central, "GET", "/v1/inventory", "globex-1")).status_code


async def test_each_tenant_survives_a_restart(
    central: Running, place: dict[str, Any], tmp_path: Path
) -> None:
    await create(central, "acme", 10)
    await create(central, "globex", 20)
    await central.kill()
    await central.start()

    for key, tenant, available in (("acme-1", "acme", 10), ("globex-1", "globex", 20)):
        (row,) = (await ask(central, "GET", "/v1/inventory", key)).json()["products"]
        assert available == row["available"]
        assert (tmp_path / f"tenant-{tenant}").is_dir() == ("data_dir" in place)
    assert [] == (await ask(central, "GET", "/v1/inventory", "demo")).json()["products"]


@pytest.mark.parametrize(
    "pairs", ["acme", "acme:", ":key", "a b:key", "acme:demo", "acme:k,globex:k"]
)
def test_wrong_pairs_are_refused_and_not_shown(pairs: str) -> None:
    with pytest.raises(BadSetting) as caught:
        read_settings(_env_file=None, tenant_keys=pairs)
    assert (
        "CENTRAL_STUB_TENANT_KEYS was (not shown); it may be pairs as acme:key-of-a-store, "
        "comma-separated, each key once, or empty" == str(caught.value)
    )
