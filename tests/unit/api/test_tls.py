"""TLS of the listener, over real sockets: certificates, caps, reload, proxies."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from store_cache.api.limits import ConnectionLimits
from store_cache.api.server import ApiServer, serve
from store_cache.api.tls import ServerTls, TlsFiles, TlsFilesError, client_tls
from tests.harness.certificates import Certificates, authority
from tests.harness.clients import TILL_KEY
from tests.harness.fake_store import FakeStore, product
from tests.harness.http import Connection, until
from tests.unit.api.conftest import TILL, Opened, Store, api_of
from tests.unit.api.test_proxies import header

TARGET = "/v1/store/inventory/PROD-001"


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


async def connect(
    port: int,
    context: ssl.SSLContext,
    *,
    before: bytes = b"",
    server_hostname: str = "localhost",
) -> Connection:
    """Open a connection, send these bytes, then begin TLS on it."""
    line = await Connection.open(port)
    line.writer.write(before)
    await line.writer.start_tls(context, server_hostname=server_hostname)
    return line


async def status_of(line: Connection) -> int:
    """Read a product; 0 if the connection is ended instead."""
    try:
        return (await line.send("GET", TARGET, headers=TILL)).status
    except (asyncio.IncompleteReadError, OSError):
        return 0


async def test_reads_over_tls_are_answered_fast(
    open_store: Opened, certificates: Certificates
) -> None:
    """The chain is shown, HTTP/1.1 is agreed on, and the fast path is the same."""
    store = await open_store(tls=ServerTls.load(certificates.files()))
    context = certificates.client_context()
    context.set_alpn_protocols(["h2", "http/1.1"])
    line = await connect(store.running.port, context)

    assert [200, 200] == [await status_of(line) for _ in range(2)]
    assert 0 == store.running._server.requests_count
    assert "http/1.1" == line.writer.get_extra_info("ssl_object").selected_alpn_protocol()
    posted = await line.send("POST", "/v1/store/sync/force", headers=TILL)
    assert 403 == posted.status
    line.close()


async def test_a_client_that_does_not_speak_tls_is_ended(
    open_store: Opened, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says so once a minute, and nothing of what it sent."""
    store = await open_store(tls=ServerTls.load(certificates.files()))
    for _ in range(3):
        line = await store.line()
        assert 0 == await status_of(line)

    await until(lambda: store.running.connections == 0)
    [logged] = [each for each in caplog.records if "TLS handshakes" in each.message]
    assert ("127.0.0.1", 1) == (logged.__dict__["address"], logged.__dict__["failed"])
    assert TILL_KEY not in str(logged.__dict__)


async def test_silent_connections_count_before_the_handshake(
    open_store: Opened, certificates: Certificates
) -> None:
    """(T10) The caps hold for them, and so does the deadline of the first byte."""
    limits = ConnectionLimits(
        most_connections_per_address=2, local_reserve=0, first_byte_seconds=0.3, check_seconds=0.02
    )
    store = await open_store(tls=ServerTls.load(certificates.files()), limits=limits)
    silent = [await store.line() for _ in range(6)]
    await until(lambda: store.running.connections == 2)
    line = await connect(store.running.port, certificates.client_context())

    assert 200 == await status_of(line)
    assert [b""] * 6 == [await each.ended() for each in silent]
    await until(lambda: store.running.connections <= 1)
    line.close()


async def test_new_connections_get_a_new_certificate(
    open_store: Opened, certificates: Certificates, tmp_path: Path
) -> None:
    """A reload does not touch those that are open."""
    store = await open_store(tls=ServerTls.load(certificates.files()))
    old = await connect(store.running.port, certificates.client_context())
    assert 200 == await status_of(old)
    other = Certificates(tmp_path / "other", ca="another")
    store.running.use_tls(ServerTls.load(other.files()))
    new = await connect(store.running.port, other.client_context())

    assert [200, 200] == [await status_of(line) for line in (old, new)]
    with pytest.raises(ssl.SSLCertVerificationError):
        await connect(store.running.port, certificates.client_context())
    old.close()
    new.close()


@pytest.mark.parametrize(
    ("client", "shows_certificate", "expected"),
    [("203.0.113.7", True, 200), ("203.0.113.7", False, 0), ("127.0.0.1", False, 200)],
)
async def test_clients_of_other_machines_must_show_a_certificate(
    open_store: Opened,
    certificates: Certificates,
    client: str,
    shows_certificate: bool,
    expected: int,
) -> None:
    """With a client authority. A health check on this machine needs none: it is no client of
    another one, nor of a proxy."""
    tls = ServerTls.load(certificates.files(client_ca=True))
    store = await open_store(tls=tls, proxies=["proxy-v2:127.0.0.1"])
    context = certificates.client_context(shows_certificate=shows_certificate)
    line = await connect(store.running.port, context, before=header(client))

    assert expected == await status_of(line)
    line.close()


async def test_a_certificate_of_another_authority_is_refused(
    open_store: Opened, certificates: Certificates, tmp_path: Path
) -> None:
    """Whoever it names."""
    tls = ServerTls.load(certificates.files(client_ca=True))
    store = await open_store(tls=tls, proxies=["proxy-v2:127.0.0.1"])
    context = certificates.client_context()
    context.load_cert_chain(Certificates(tmp_path / "other", ca="another").client)
    line = await connect(store.running.port, context, before=header())

    assert 0 == await status_of(line)
    line.close()


async def test_a_client_that_ends_its_side_gets_what_it_asked_for(
    open_store: Opened, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    """TLS has no half-closed connections; what was answered before it closes arrives."""
    store = await open_store(tls=ServerTls.load(certificates.files()))
    line = await connect(store.running.port, certificates.client_context())
    assert 200 == await status_of(line)
    line.writer.close()
    await until(lambda: store.running.connections == 0)

    assert [] == caplog.records


async def test_a_stop_does_not_wait_for_handshakes(
    open_store: Opened, certificates: Certificates
) -> None:
    """Nor for connections that are idle."""
    store = await open_store(tls=ServerTls.load(certificates.files()))
    silent = await store.line()
    idle = await connect(store.running.port, certificates.client_context())
    assert 200 == await status_of(idle)
    await until(lambda: store.running.connections == 2)
    await store.running.stop(grace_seconds=1.0)

    assert b"" == await silent.ended()
    assert b"" == await idle.ended()
    await until(lambda: store.running.connections == 0)


@pytest.mark.parametrize("proxies", [(), ("proxy-v2:127.0.0.1",)])
@pytest.mark.parametrize("is_tls", [False, True])
@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_every_beginning_on_both_event_loops(
    certificates: Certificates,
    run: Callable[[Awaitable[None]], None],
    is_tls: bool,
    proxies: tuple[str, ...],
) -> None:
    """Plain or TLS, with a proxy's header or without one: many requests behind it, whole, in
    pieces and pipelined; then a clean end. The service runs on uvloop."""
    tls = ServerTls.load(certificates.files()) if is_tls else None
    before = header(tail=bytes(40)) if proxies else b""

    async def talk(server: ApiServer) -> None:
        async def opened() -> Connection:
            if is_tls:
                return await connect(server.port, certificates.client_context(), before=before)
            line = await Connection.open(server.port)
            line.writer.write(before)
            return line

        lines = await asyncio.gather(*[opened() for _ in range(10)])
        for _ in range(3):
            assert [200] * 10 == [await status_of(line) for line in lines]
        for line in lines:
            request = f"GET {TARGET} HTTP/1.1\r\nHost: x\r\nX-API-Key: till-secret\r\n\r\n".encode()
            line.writer.write(request * 2 + request[:9])
            await line.writer.drain()
            line.writer.write(request[9:])
            assert [200] * 3 == [(await line.reply()).status for _ in range(3)]
        assert 10 == server.connections
        for line in lines:
            line.writer.close()
        await until(lambda: server.connections == 0)

    async def serve_and_talk() -> None:
        app = api_of(FakeStore([product("PROD-001")]), proxies=proxies)
        server = await serve(app, host="127.0.0.1", port=0, tls=tls)
        try:
            await talk(server)
        finally:
            await server.stop(grace_seconds=1.0)

    run(serve_and_talk())


# -- files -----------------------------------------------------------------------------------------


def test_files_that_cannot_be_used_are_refused(tmp_path: Path, certificates: Certificates) -> None:
    """With what is wrong: missing, no certificate, the key of another one, an encrypted key."""
    empty = tmp_path / "empty.pem"
    empty.touch()
    other = Certificates(tmp_path / "other", ca="another")
    encrypted = tmp_path / "encrypted.pem"
    encrypted.write_text(ENCRYPTED)
    cases: dict[TlsFiles, str] = {
        TlsFiles(tmp_path / "missing.pem"): r"cannot be read \(No such file",
        TlsFiles(empty): "holds no certificate with its private key",
        TlsFiles(certificates.server_cert): "holds no certificate with its private key",
        TlsFiles(certificates.server_cert, other.server_key): "private key of another certificate",
        TlsFiles(certificates.server_cert, encrypted): "holds an encrypted private key",
        TlsFiles(certificates.server, None, empty): "holds no certificate in PEM form",
    }

    for files, why in cases.items():
        with pytest.raises(TlsFilesError, match=why):
            ServerTls.load(files)
    ServerTls.load(TlsFiles(certificates.server))


async def test_a_client_of_its_own_machine_trusts_the_store_s_certificate(
    open_store: Opened, certificates: Certificates, tmp_path: Path
) -> None:
    """Whatever name it is for, and no other one."""
    named = Certificates(tmp_path / "named", server_names=("till-server.example.com",))
    store: Store = await open_store(tls=ServerTls.load(named.files()))
    own = client_tls(None, own_cert=named.server_cert)
    other = client_tls(None, own_cert=certificates.server_cert)
    strict = client_tls(named.ca_file)
    assert own is not None
    assert other is not None
    assert strict is not None
    line = await connect(store.running.port, own)

    assert 200 == await status_of(line)
    for context in (other, strict):
        with pytest.raises(ssl.SSLCertVerificationError):
            await connect(store.running.port, context)
    right = await connect(store.running.port, strict, server_hostname="till-server.example.com")
    assert 200 == await status_of(right)
    line.close()
    right.close()


def _encrypted_key() -> str:
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

    key: Any = serialization.load_pem_private_key(
        authority().issue_cert("localhost").private_key_pem.bytes(), None
    )
    encryption = serialization.BestAvailableEncryption(b"secret")
    form = serialization.PrivateFormat.PKCS8
    return str(key.private_bytes(serialization.Encoding.PEM, form, encryption).decode())


ENCRYPTED = _encrypted_key()
