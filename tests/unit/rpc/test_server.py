"""The listener: who gets in, what is refused, health and reflection."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from grpc import aio
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from central_stub.testing import TestCentral
from store_cache.api.auth import Authenticator, KeyRing
from store_cache.api.problems import STATUS
from store_cache.api.request_rates import RequestRates
from store_cache.api.server import CannotServe
from store_cache.api.wrong_keys import WrongKeys
from store_cache.rpc.calls import PACKAGE, SCOPES, address_of
from store_cache.rpc.errors import CODES
from store_cache.rpc.generated import inventory_pb2 as pb
from store_cache.rpc.generated.inventory_pb2_grpc import InventoryStub, SyncStub
from store_cache.rpc.server import RpcLimits, _bind, serving
from store_cache.testing import TestStore
from tests.harness.certificates import Certificates
from tests.harness.store import a_store
from tests.unit.rpc.conftest import ADMIN, SETTINGS, TILL, Shop, call_of, refusal_of

READ = pb.GetProductRequest(product_id="TEA-001")


def test_every_method_has_a_scope() -> None:
    """A new one without a line in the table is refused to all but admins, and here."""
    methods = {
        f"/{service.full_name}/{method.name}"
        for service in pb.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    assert methods == SCOPES.keys()
    assert all(name.startswith(PACKAGE) for name in methods)


def test_every_error_code_has_a_status() -> None:
    """But those that only HTTP has, among them those of people who settle writes."""
    of_people = {"write_not_found", "write_under_way", "write_not_in_doubt"}
    of_people |= {"outbox_entry_not_found", "outbox_entry_in_other_state"}
    of_http = {"method_not_allowed", "unsupported_media_type"}
    assert STATUS.keys() - CODES.keys() == of_http | of_people


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:10.0.0.7:51000", "10.0.0.7"),
        ("ipv6:%5B::1%5D:51000", "::1"),
        ("unix:", ""),
    ],
)
def test_the_address_of_a_peer(peer: str, address: str) -> None:
    assert address == address_of(peer)


def test_health_is_readiness_and_needs_no_key(central: TestCentral) -> None:
    """NOT_SERVING until there is a catalogue, SERVING from then on, also while Central is away."""
    central.stop()
    with (
        TestStore(central, in_sync_within_seconds=None, **SETTINGS) as store,
        grpc.insecure_channel(store.grpc_address) as channel,
    ):
        health: Any = HealthStub(channel)
        watched = health.Watch(HealthCheckRequest(service="storecache.v1.Inventory"), timeout=20)
        assert HealthCheckResponse.NOT_SERVING == next(watched).status
        central.start()
        store.wait_until_in_sync()
        assert HealthCheckResponse.SERVING == next(watched).status
        central.stop()
        assert HealthCheckResponse.SERVING == health.Check(HealthCheckRequest()).status


def test_reflection_names_every_service(shop: Shop) -> None:
    described = ProtoReflectionDescriptorDatabase(shop.channel)
    assert {"storecache.v1.Inventory", "storecache.v1.Sync", "grpc.health.v1.Health"} <= set(
        described.get_services()
    )


def test_no_catalogue_is_unavailable(central: TestCentral) -> None:
    central.stop()
    with (
        TestStore(central, in_sync_within_seconds=None, **SETTINGS) as store,
        grpc.insecure_channel(store.grpc_address) as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        InventoryStub(channel).GetProduct(READ, metadata=TILL)
    refusal = refusal_of(caught.value)
    assert ("cache_not_ready", 1) == (refusal.reason, refusal.retry_seconds)


def test_two_keys_are_refused(shop: Shop) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        shop.inventory.GetProduct(READ, metadata=(*TILL, *ADMIN))
    assert "invalid_request" == refusal_of(caught.value).reason


def test_wrong_keys_are_limited_over_both_apis(shop: Shop) -> None:
    """A right key still passes."""
    reasons = set()
    for _ in range(40):
        with pytest.raises(grpc.RpcError) as caught:
            shop.inventory.GetProduct(READ, metadata=(("x-api-key", "wrong"),))
        reasons.add(refusal_of(caught.value).reason)

    assert {"unauthorized", "rate_limited"} == reasons
    answer = shop.http.get("/v1/store/inventory/TEA-001", headers={"X-API-Key": "wrong"})
    assert 429 == answer.status_code
    assert 40 == shop.inventory.GetProduct(READ, metadata=TILL).product.available


def test_calls_count_against_the_rate_of_the_client(shop: Shop) -> None:
    """One bucket for both APIs."""
    shop.store.reset(rate_limit_reads=5)
    with grpc.insecure_channel(shop.store.grpc_address) as channel:
        inventory = InventoryStub(channel)
        refused = 0
        for _ in range(20):
            try:
                inventory.GetProduct(READ, metadata=TILL)
            except grpc.RpcError as error:
                refusal = refusal_of(error)
                assert "rate_limited" == refusal.reason
                assert {"limit": "reads", "perSecond": "5"} == refusal.metadata
                refused += 1
        assert refused


def test_the_request_id_comes_back_and_goes_on_to_the_log(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "store_cache.rpc")
    asked = pb.AdjustInventoryRequest(
        product_id="TEA-001", quantity_change=-1, request_id="till-1-sale-1"
    )
    _, call = shop.inventory.AdjustInventory.with_call(
        asked, metadata=(*TILL, ("x-request-id", "till-1:7"))
    )

    assert ("x-request-id", "till-1:7") in call.trailing_metadata()
    (line,) = [record for record in caplog.records if record.message == "call answered"]
    assert "/storecache.v1.Inventory/AdjustInventory" == line.__dict__["path"]
    assert "till-key" not in str(line.__dict__)


def test_canary_tenant_and_user_are_metadata(tmp_path: Path) -> None:
    """As the headers over HTTP."""
    tea = {"productId": "TEA-001", "available": 40}
    with (
        TestCentral([tea], tenant="acme") as central,
        TestStore(central, tenant_id="acme", **SETTINGS) as store,
        grpc.insecure_channel(store.grpc_address) as channel,
    ):
        inventory = InventoryStub(channel)
        metadata = (*TILL, ("x-canary", "pr-1"), ("x-tenant-id", "acme"), ("x-user-id", "ann"))
        sale = pb.AdjustInventoryRequest(product_id="TEA-001", quantity_change=-1, request_id="k-1")
        answer, call = inventory.AdjustInventory.with_call(sale, metadata=metadata)
        assert answer.result.applied
        assert ("x-canary-echo", "pr-1") in call.trailing_metadata()

        with pytest.raises(grpc.RpcError) as caught:
            inventory.GetProduct(READ, metadata=(*TILL, ("x-tenant-id", "globex")))
        assert "wrong_tenant" == refusal_of(caught.value).reason
        with pytest.raises(grpc.RpcError) as caught:
            inventory.AdjustInventory(sale, metadata=(*TILL, ("x-user-id", "a b")))
        assert {"x-user-id"} == refusal_of(caught.value).fields.keys()


def test_calls_are_counted(shop: Shop) -> None:
    shop.inventory.GetProduct(READ, metadata=TILL)
    with pytest.raises(grpc.RpcError):
        shop.inventory.GetProduct(pb.GetProductRequest(product_id="NONE"), metadata=TILL)

    told = shop.http.get("/metrics").text
    lines = [line for line in told.splitlines() if "Inventory/GetProduct" in line]
    assert any('status="200"' in line for line in lines)
    assert any('status="404"' in line for line in lines)


def test_a_request_too_large_is_refused(shop: Shop) -> None:
    huge = pb.BatchGetProductsRequest(product_ids=["x" * 300_000])
    with pytest.raises(grpc.RpcError) as caught:
        shop.inventory.BatchGetProducts(huge, metadata=TILL)
    assert grpc.StatusCode.RESOURCE_EXHAUSTED is call_of(caught.value).code()


@asynccontextmanager
async def serving_within(limits: RpcLimits) -> AsyncIterator[int]:
    """The services of a store in this loop, within these limits; the port."""
    async with a_store() as running:
        await running.until("live")
        authenticator = Authenticator(KeyRing(keys=["till-key"]), WrongKeys())
        async with serving(
            running.parts,
            store_id="store-s1",
            authenticator=authenticator,
            rates=RequestRates(),
            host="127.0.0.1",
            port=0,
            limits=limits,
        ) as port:
            yield port


async def test_more_connections_than_the_cap_are_closed() -> None:
    """One that is open goes on."""
    async with (
        serving_within(RpcLimits(most_connections=3)) as port,
        aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        status = SyncStub(channel).GetStatus
        await status(pb.GetStatusRequest(), metadata=TILL)
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(4)]
        greetings = [await reader.read(9) for reader, _ in silent]

        assert [True, True, False, False] == list(map(bool, greetings))
        await status(pb.GetStatusRequest(), metadata=TILL)
        for _, writer in silent:
            writer.close()


async def test_a_silent_peer_loses_its_connection() -> None:
    """It never sends the preface of HTTP/2."""
    async with serving_within(RpcLimits(handshake_seconds=0.1)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(20):
            await reader.read()
        writer.close()


async def test_more_calls_than_the_cap_are_refused() -> None:
    """Watches included; each ends with a status, and those that are open go on."""
    async with (
        serving_within(RpcLimits(most_calls=2)) as port,
        aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        inventory = InventoryStub(channel)
        watches: list[Any] = [
            inventory.WatchProducts(pb.WatchProductsRequest(), metadata=TILL) for _ in range(2)
        ]
        assert all([(await watch.read()).events[0].HasField("state") for watch in watches])
        with pytest.raises(aio.AioRpcError) as caught:
            await inventory.GetProduct(READ, metadata=TILL)
        assert grpc.StatusCode.RESOURCE_EXHAUSTED is caught.value.code()


async def test_a_port_that_is_taken_says_so() -> None:
    async with serving_within(RpcLimits()) as port:
        with pytest.raises(CannotServe, match=f"port {port} for gRPC.*set GRPC_PORT"):
            _bind(aio.server(options=RpcLimits().options()), "127.0.0.1", port, None)


def test_a_deadline_is_honoured_and_the_write_goes_on(shop: Shop) -> None:
    shop.central.fault("delay", seconds=0.5, routes=["updates"], times=1)
    asked = pb.AdjustInventoryRequest(product_id="TEA-001", quantity_change=-1, request_id="k-1")
    with pytest.raises(grpc.RpcError) as caught:
        shop.inventory.AdjustInventory(asked, metadata=TILL, timeout=0.1)
    assert grpc.StatusCode.DEADLINE_EXCEEDED is call_of(caught.value).code()

    assert shop.inventory.AdjustInventory(asked, metadata=TILL).result.applied
    assert 1 == len(shop.central.sales())


def test_many_calls_on_one_connection(shop: Shop) -> None:
    with ThreadPoolExecutor(20) as clients:
        answers = [
            clients.submit(shop.inventory.GetProduct, READ, metadata=TILL) for _ in range(200)
        ]
        assert {40} == {answer.result().product.available for answer in answers}


def shown_certificate(address: str, certificates: Certificates) -> bytes | None:
    host, _, port = address.partition(":")
    context = certificates.client_context()
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection((host, int(port)), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=host) as connection,
    ):
        return connection.getpeercert(binary_form=True)


def test_tls_is_that_of_http(central: TestCentral, tmp_path: Path) -> None:
    """One certificate for both; plain text is refused; renewed files are shown at once."""
    certificates = Certificates(tmp_path)
    files = certificates.files()
    tls: dict[str, Any] = {"tls_cert_file": files.cert, "tls_key_file": files.key}
    with TestStore(central, **SETTINGS, **tls) as store:
        trusted = grpc.ssl_channel_credentials(certificates.ca_file.read_bytes())
        with grpc.secure_channel(store.grpc_address, trusted) as channel:
            assert InventoryStub(channel).GetProduct(READ, metadata=TILL, timeout=10).product.json
        first = shown_certificate(store.grpc_address, certificates)
        Certificates(tmp_path, server_names=("127.0.0.1", "renewed"))
        assert first != shown_certificate(store.grpc_address, certificates)
        with (
            grpc.insecure_channel(store.grpc_address) as channel,
            pytest.raises(grpc.RpcError),
        ):
            InventoryStub(channel).GetProduct(READ, metadata=TILL, timeout=1)
        answer = httpx.get(
            f"{store.url}/ready", verify=certificates.client_context(), headers=store.headers
        )
        assert 200 == answer.status_code


def test_clients_must_show_a_certificate_where_http_asks_for_one(
    central: TestCentral, tmp_path: Path
) -> None:
    certificates = Certificates(tmp_path)
    files = certificates.files(client_ca=True)
    tls: dict[str, Any] = {
        "tls_cert_file": files.cert,
        "tls_key_file": files.key,
        "tls_client_ca_file": files.client_ca,
    }
    authority, client = certificates.ca_file.read_bytes(), certificates.client.read_bytes()
    with TestStore(central, **SETTINGS, **tls) as store:
        known = grpc.ssl_channel_credentials(authority, client, client)
        with grpc.secure_channel(store.grpc_address, known) as channel:
            assert InventoryStub(channel).GetProduct(READ, metadata=TILL, timeout=10).product.json
        with (
            grpc.secure_channel(
                store.grpc_address, grpc.ssl_channel_credentials(authority)
            ) as channel,
            pytest.raises(grpc.RpcError),
        ):
            InventoryStub(channel).GetProduct(READ, metadata=TILL, timeout=1)
