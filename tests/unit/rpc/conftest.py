"""A Central and a store that serves HTTP and gRPC, on real sockets, and clients of both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import grpc
import httpx
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from central_stub.testing import TestCentral
from store_cache.rpc.generated.inventory_pb2_grpc import InventoryStub, SyncStub
from store_cache.testing import TestStore

TEA = {"productId": "TEA-001", "name": "Green tea", "available": 40, "price": 4.5}
JAM = {"productId": "JAM-001", "name": "Jam", "available": 7, "barcode": "4006381333931"}
MUG = {"productId": "MUG-001", "name": "Mug", "available": 0, "category": "mugs"}

SETTINGS: dict[str, Any] = {"grpc_port": 0, "api_keys": "till-key", "admin_api_keys": "admin-key"}
TILL = (("x-api-key", "till-key"),)
ADMIN = (("x-api-key", "admin-key"),)


@dataclass
class Shop:
    """`inventory` and `sync` are the services; `http` has a till's key."""

    central: TestCentral
    store: TestStore
    channel: grpc.Channel
    http: httpx.Client
    inventory: InventoryStub = field(init=False)
    sync: SyncStub = field(init=False)

    def __post_init__(self) -> None:
        self.inventory = InventoryStub(self.channel)
        self.sync = SyncStub(self.channel)


@pytest.fixture
def central() -> Iterator[TestCentral]:
    with TestCentral([TEA, JAM, MUG]) as central:
        yield central


@pytest.fixture
def shop(central: TestCentral) -> Iterator[Shop]:
    with (
        TestStore(central, **SETTINGS) as store,
        grpc.insecure_channel(store.grpc_address) as channel,
        httpx.Client(base_url=store.url, headers=store.headers) as http,
    ):
        yield Shop(central, store, channel, http)


@dataclass(frozen=True)
class Refusal:
    """What a call that failed tells."""

    code: grpc.StatusCode
    message: str
    reason: str
    metadata: dict[str, str]
    fields: dict[str, str]
    retry_seconds: int | None


def call_of(error: grpc.RpcError) -> grpc.Call:
    """The call that the error is, too: grpcio's types do not say so."""
    return cast("grpc.Call", error)


def refusal_of(raised: grpc.RpcError) -> Refusal:
    error = call_of(raised)
    status: Status | None = rpc_status.from_call(error)
    assert status is not None, error
    info, wrong, retry = ErrorInfo(), BadRequest(), RetryInfo()
    message: Any
    has_retry = False
    for detail in status.details:
        for message in (info, wrong, retry):
            if detail.Is(message.DESCRIPTOR):
                detail.Unpack(message)
                has_retry |= message is retry
    return Refusal(
        error.code(),
        status.message,
        info.reason,
        dict(info.metadata),
        {violation.field: violation.description for violation in wrong.field_violations},
        retry.retry_delay.seconds if has_retry else None,
    )
