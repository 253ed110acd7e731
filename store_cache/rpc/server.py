"""Serving the API over gRPC: a listener with limits of its own, health, reflection, a clean stop.

The limits of the HTTP listener do not hold here: HTTP/2 is spoken by gRPC's own core, which has
these. A silent peer loses its connection when the handshake takes too long, when no call was made
for a while, and when it does not answer a ping.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc import aio
from grpc_health.v1 import health
from grpc_health.v1.health_pb2 import DESCRIPTOR as HEALTH
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server
from grpc_reflection.v1alpha import reflection

from store_cache.api.auth import Authenticator
from store_cache.api.parts import StoreParts
from store_cache.api.request_rates import RequestRates
from store_cache.api.server import CannotServe
from store_cache.api.tls import TlsFiles
from store_cache.rpc.calls import Calls
from store_cache.rpc.generated.inventory_pb2 import DESCRIPTOR
from store_cache.rpc.generated.inventory_pb2_grpc import (
    add_InventoryServicer_to_server,
    add_SyncServicer_to_server,
)
from store_cache.rpc.inventory import Inventory
from store_cache.rpc.sync import Sync

_SERVING = HealthCheckResponse.SERVING
_NOT_SERVING = HealthCheckResponse.NOT_SERVING


@dataclass(frozen=True, slots=True)
class RpcLimits:
    """Caps in connections, calls and bytes; deadlines in seconds."""

    most_connections: int = 512
    most_calls: int = 1024
    """In all, watches included."""
    most_calls_per_connection: int = 100
    most_request_bytes: int = 256 * 1024
    most_metadata_bytes: int = 16 * 1024
    handshake_seconds: float = 5.0
    idle_seconds: float = 60.0
    """How long a connection may have no call; clients open another when they need it."""
    ping_after_seconds: float = 30.0
    ping_answer_seconds: float = 20.0
    least_seconds_between_pings: float = 10.0
    """A client that pings more often than this is disconnected."""

    def options(self) -> list[tuple[str, int]]:
        """Return the arguments of the core, `grpc_types.h` of gRPC."""
        return [
            ("grpc.max_allowed_incoming_connections", self.most_connections),
            ("grpc.max_concurrent_streams", self.most_calls_per_connection),
            ("grpc.max_receive_message_length", self.most_request_bytes),
            ("grpc.max_metadata_size", self.most_metadata_bytes),
            ("grpc.server_handshake_timeout_ms", _milliseconds(self.handshake_seconds)),
            ("grpc.max_connection_idle_ms", _milliseconds(self.idle_seconds)),
            ("grpc.keepalive_time_ms", _milliseconds(self.ping_after_seconds)),
            ("grpc.keepalive_timeout_ms", _milliseconds(self.ping_answer_seconds)),
            ("grpc.keepalive_permit_without_calls", 1),
            (
                "grpc.http2.min_ping_interval_without_data_ms",
                _milliseconds(self.least_seconds_between_pings),
            ),
            ("grpc.so_reuseport", 0),  # a second store on the port must fail
        ]


@asynccontextmanager
async def serving(
    store: StoreParts,
    *,
    store_id: str,
    authenticator: Authenticator,
    rates: RequestRates,
    host: str,
    port: int,
    tls: TlsFiles | None = None,
    limits: RpcLimits | None = None,
    stop_seconds: float = 3.0,
) -> AsyncIterator[int]:
    """Serve until the block ends, and yield the port. Calls in flight then have `stop_seconds`.

    `tls`: the files of the certificate, read again for each new connection once they have changed.
    Raises CannotServe.
    """
    limits = limits or RpcLimits()
    counts = None if store.metrics is None else store.metrics.counts
    server = aio.server(
        interceptors=[Calls(authenticator, rates, counts)],
        options=limits.options(),
        maximum_concurrent_rpcs=limits.most_calls,
    )
    add_InventoryServicer_to_server(
        Inventory(store, store_id=store_id, authenticator=authenticator), server
    )
    add_SyncServicer_to_server(Sync(store), server)
    answers = health.aio.HealthServicer()
    add_HealthServicer_to_server(answers, server)
    names = [
        *(service.full_name for service in DESCRIPTOR.services_by_name.values()),
        *(service.full_name for service in HEALTH.services_by_name.values()),
    ]
    reflection.enable_server_reflection([*names, reflection.SERVICE_NAME], server)
    bound = _bind(server, host, port, tls)
    await server.start()
    telling = asyncio.create_task(_tell_health(store, answers, names))
    try:
        yield bound
    finally:
        telling.cancel()
        await answers.enter_graceful_shutdown()
        if store.streams is not None:
            store.streams.stop()
        await server.stop(stop_seconds)


def _bind(server: aio.Server, host: str, port: int, tls: TlsFiles | None) -> int:
    """Listen, and return the port."""
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        if tls is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, _credentials(tls))
    except RuntimeError as problem:
        raise CannotServe(
            f"cannot listen on {host} port {port} for gRPC: the port is taken, or HOST is no "
            "address of this machine; set GRPC_PORT to another port"
        ) from problem


def _credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Return credentials that read the files again once they have changed.

    A file that cannot be read leaves those in force that were read before.
    """
    read = _Certificates(files)
    return grpc.dynamic_ssl_server_credentials(
        read.configuration(),
        read.changed,  # type: ignore[arg-type] # grpcio documents None for "unchanged"
        require_client_authentication=files.client_ca is not None,
    )


class _Certificates:
    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._contents = self._read()

    def configuration(self) -> grpc.ServerCertificateConfiguration:
        key, cert, authorities = self._contents
        return grpc.ssl_server_certificate_configuration([(key, cert)], authorities)

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Return the configuration for the next handshakes; None: the same as before."""
        try:
            contents = self._read()
        except OSError:
            return None
        if contents == self._contents:
            return None
        self._contents = contents
        return self.configuration()

    def _read(self) -> tuple[bytes, bytes, bytes | None]:
        cert, authorities = self._files.cert, self._files.client_ca
        return (
            (self._files.key or cert).read_bytes(),
            cert.read_bytes(),
            None if authorities is None else Path(authorities).read_bytes(),
        )


async def _tell_health(
    store: StoreParts, answers: health.aio.HealthServicer, services: list[str]
) -> None:
    """Keep the health of the store and of each service as `/ready` has it."""
    told = None
    while True:
        changed = store.runner.changed
        status = _NOT_SERVING if store.writer.catalogue is None else _SERVING
        if status != told:
            for name in ("", *services):
                await answers.set(name, status)
            told = status
        await changed.wait()


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
