"""Headers that a client sends about itself: the canary, the tenant and who is at the till.

Over real sockets and both APIs, against a Central that notes what reaches it.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson
import pytest

from store_cache.api.canary import MOST_LOGGED
from store_cache.api.server import serve
from store_cache.app.build import Environment, running
from store_cache.app.serve import api_of
from tests.harness.central import LedgerTransport
from tests.harness.clients import TILL_KEY
from tests.harness.clock import Clock
from tests.harness.faulty_directory import FaultyDirectory
from tests.harness.store import settings_of

KEY = {"X-API-Key": TILL_KEY}
ITEM = "/v1/store/inventory/P-1"


class NotingCentral(LedgerTransport):
    """`requests`: each with its headers."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.requests: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return await super().handle_async_request(request)

    def named(self, header: str, path: str) -> set[str | None]:
        """The values of a header on the requests to this path."""
        return {
            request.headers.get(header) for request in self.requests if path in request.url.path
        }


class Shop:
    def __init__(self, central: NotingCentral, http: httpx.AsyncClient) -> None:
        self.central = central
        self.http = http

    async def sell(self, key: str, body: dict[str, Any] | None = None, **headers: str) -> Any:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.http.patch(
            f"{ITEM}/inventory",
            json={"quantityChange": -1} | (body or {}),
            headers=KEY | {"Idempotency-Key": key} | named,
        )


@pytest.fixture
def tenant_id() -> str:
    return ""


@pytest.fixture
async def shop(tenant_id: str) -> AsyncIterator[Shop]:
    central = NotingCentral(Clock())
    settings = settings_of(tenant_id=tenant_id, cors_origins="https://till.example.com")
    async with running(settings, Environment(FaultyDirectory(), transport=central)) as parts:
        while parts.writer.catalogue is None:
            await parts.runner.changed.wait()
        server = await serve(api_of(parts, settings), host="127.0.0.1", port=0)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as http:
            yield Shop(central, http)
        await server.stop(0.5)


# -- the canary --------------------------------------------------------------------------------


async def test_a_canary_goes_on_to_central_and_comes_back(shop: Shop) -> None:
    """With the write and the read-through that it causes, and with nothing else."""
    sold = await shop.sell("k-1", X_Canary="pr-123")
    read = await shop.http.get(
        ITEM, headers=KEY | {"X-Canary": "pr-9", "Cache-Control": "no-cache"}
    )
    plain = await shop.sell("k-2")

    assert ["pr-123", "pr-9", None] == [
        answer.headers.get("X-Canary-Echo") for answer in (sold, read, plain)
    ]
    assert {"pr-123", None} == shop.central.named("X-Canary", "/updates")
    assert "pr-9" in shop.central.named("X-Canary", "/inventory/P-1")
    assert {None} == shop.central.named("X-Canary", "/events")


async def test_a_plain_read_with_a_canary_is_answered_as_any_other(shop: Shop) -> None:
    """Fast reads hand it over."""
    plain = await shop.http.get(ITEM, headers=KEY)
    canary = await shop.http.get(ITEM, headers=KEY | {"X-Canary": "pr-1"})

    assert plain.content == canary.content
    assert plain.headers["ETag"] == canary.headers["ETag"]
    assert "pr-1" == canary.headers["X-Canary-Echo"]


@pytest.mark.parametrize("value", ["", "a b", "x" * 65, "pr/1"])
async def test_what_is_no_name_of_a_canary_is_not_carried(shop: Shop, value: str) -> None:
    """A sale is never refused for it."""
    sold = await shop.sell("k-1", X_Canary=value)

    assert sold.json()["applied"]
    assert "X-Canary-Echo" not in sold.headers
    assert {None} == shop.central.named("X-Canary", "/updates")


async def test_a_canary_is_logged_once_a_minute_and_on_its_lines(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "store_cache.api")
    for number in range(3):
        await shop.sell(f"k-{number}", X_Canary="pr-123")
    await shop.sell("k-9", X_Canary="pr-124")

    lines = [record.getMessage() for record in caplog.records if "canary" in record.getMessage()]
    assert ["called with canary PR: pr-123", "called with canary PR: pr-124"] == lines


async def test_names_that_clients_make_up_do_not_fill_the_log(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "store_cache.api.canary")
    for number in range(MOST_LOGGED + 20):
        await shop.http.get(ITEM, headers=KEY | {"X-Canary": f"pr-{number}"})

    assert MOST_LOGGED == len(caplog.records)


async def test_requests_with_a_canary_are_counted(shop: Shop) -> None:
    for canary in ("pr-1", "pr-2", "a b"):
        await shop.http.get(ITEM, headers=KEY | {"X-Canary": canary})

    told = (await shop.http.get("/metrics")).text
    assert "store_cache_canary_requests_total 2.0" in told


async def test_pages_of_allowed_origins_may_use_the_headers(shop: Shop) -> None:
    origin = {"Origin": "https://till.example.com"}
    asked = {"Access-Control-Request-Method": "PATCH"}
    preflight = await shop.http.options(ITEM, headers=origin | asked)
    answer = await shop.http.get(ITEM, headers=KEY | origin)

    allowed = preflight.headers["Access-Control-Allow-Headers"].split(", ")
    assert {"X-Canary", "X-Tenant-ID", "X-User-ID"} <= set(allowed)
    assert "X-Canary-Echo" in answer.headers["Access-Control-Expose-Headers"]


# -- the tenant --------------------------------------------------------------------------------


@pytest.mark.parametrize("tenant_id", ["acme"])
async def test_central_is_told_the_tenant_with_everything(shop: Shop) -> None:
    await shop.sell("k-1")

    assert {"acme"} == shop.central.named("X-Tenant-ID", "/")


@pytest.mark.parametrize("tenant_id", ["acme"])
async def test_a_till_of_another_tenant_is_refused(shop: Shop) -> None:
    """Nothing is sent; a wrong key is told nothing of tenants."""
    right = await shop.http.get(ITEM, headers=KEY | {"X-Tenant-ID": "acme"})
    wrong = await shop.sell("k-1", X_Tenant_ID="globex")
    stranger = await shop.http.get(ITEM, headers={"X-API-Key": "no", "X-Tenant-ID": "globex"})

    assert [200, 403, 401] == [right.status_code, wrong.status_code, stranger.status_code]
    assert "wrong_tenant" == wrong.json()["error"]["code"]
    assert set() == shop.central.named("X-Tenant-ID", "/updates")


async def test_a_store_without_a_tenant_looks_at_no_header(shop: Shop) -> None:
    assert (await shop.sell("k-1", X_Tenant_ID="acme")).json()["applied"]
    assert {None} == shop.central.named("X-Tenant-ID", "/")


# -- who is at the till ------------------------------------------------------------------------


def told_by(central: NotingCentral) -> list[str | None]:
    return [
        orjson.loads(request.content).get("updatedBy")
        for request in central.requests
        if request.url.path.endswith("/updates")
    ]


async def test_who_is_at_the_till_is_told_where_the_body_names_nobody(shop: Shop) -> None:
    await shop.sell("k-1", X_User_ID="cashier-1")
    await shop.sell("k-2", {"updatedBy": "manager"}, X_User_ID="cashier-1")
    await shop.sell("k-3")

    assert ["cashier-1", "manager", None] == told_by(shop.central)


async def test_another_cashier_may_repeat_a_sale(shop: Shop) -> None:
    first = await shop.sell("k-1", X_User_ID="cashier-1")
    second = await shop.sell("k-1", X_User_ID="cashier-2")

    assert first.json() == second.json()
    assert ["cashier-1"] == told_by(shop.central)


@pytest.mark.parametrize("value", ["", "a b", "x" * 201])
async def test_a_wrong_user_is_named(shop: Shop, value: str) -> None:
    answer = await shop.sell("k-1", X_User_ID=value)

    assert 400 == answer.status_code
    assert ["X-User-ID"] == list(answer.json()["error"]["details"]["fields"])
