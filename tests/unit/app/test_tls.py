"""TLS from the settings: the listener's, towards Central, and of the command line."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest

from store_cache.api.auth import Authenticator
from store_cache.api.tls import ServerTls
from store_cache.api.wrong_keys import WrongKeys
from store_cache.app.build import Environment, build_central
from store_cache.app.reload import Reloader, key_ring
from store_cache.app.settings import Settings, SettingsError, load_settings
from store_cache.app.tls import central_tls, server_tls
from store_cache.central.failures import CentralError
from store_cache.cli.main import main
from tests.harness.certificates import Certificates
from tests.harness.clients import TILL_KEY
from tests.harness.fake_store import product
from tests.harness.faulty_directory import FaultyDirectory
from tests.harness.store import a_store

BODY = orjson.dumps(product("P-1"))
ANSWER = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path / "chain")


def settings(**variables: Path | str) -> Settings:
    given = {name: str(value) for name, value in variables.items()}
    return load_settings({"API_KEYS": TILL_KEY} | given, env_file=None)


# -- the listener ----------------------------------------------------------------------------------


@pytest.mark.parametrize("in_one_file", [True, False])
def test_the_files_of_the_listener_are_settings(
    certificates: Certificates, in_one_file: bool
) -> None:
    """The key may be in the file of the certificate."""
    if in_one_file:
        loaded = settings(TLS_CERT_FILE=certificates.server)
    else:
        loaded = settings(
            TLS_CERT_FILE=certificates.server_cert,
            TLS_KEY_FILE=certificates.server_key,
            TLS_CLIENT_CA_FILE=certificates.ca_file,
        )
    tls = server_tls(loaded)

    assert tls is not None
    assert in_one_file == (tls.remote.verify_mode is ssl.CERT_NONE)
    assert tls.local.verify_mode is ssl.CERT_NONE
    assert server_tls(settings()) is None


@pytest.mark.parametrize(
    ("variables", "named", "why"),
    [
        ({"TLS_CERT_FILE": "missing"}, "TLS_CERT_FILE", "cannot be read (No such file"),
        ({"TLS_CERT_FILE": "server_key"}, "TLS_CERT_FILE", "holds no certificate in PEM form"),
        (
            {"TLS_CERT_FILE": "server_cert"},
            "TLS_KEY_FILE",
            "is not given, and TLS_CERT_FILE holds no certificate with its private key",
        ),
        (
            {"TLS_CERT_FILE": "server_cert", "TLS_KEY_FILE": "client"},
            "TLS_KEY_FILE",
            "holds a private key of another certificate",
        ),
        ({"TLS_KEY_FILE": "server_key"}, "TLS_KEY_FILE", "is given without TLS_CERT_FILE"),
        ({"TLS_CLIENT_CA_FILE": "ca_file"}, "TLS_CLIENT_CA_FILE", "without TLS_CERT_FILE"),
        (
            {"TLS_CERT_FILE": "server", "TLS_CLIENT_CA_FILE": "server_key"},
            "TLS_CLIENT_CA_FILE",
            "holds no certificate in PEM form",
        ),
        (
            {"CENTRAL_CLIENT_CERT_FILE": "client"},
            "CENTRAL_CLIENT_CERT_FILE",
            "CENTRAL_API_URL is http, where it has no meaning",
        ),
        (
            {"CENTRAL_CLIENT_KEY_FILE": "client"},
            "CENTRAL_CLIENT_KEY_FILE",
            "is given without CENTRAL_CLIENT_CERT_FILE",
        ),
    ],
)
def test_wrong_files_are_named(
    certificates: Certificates, variables: dict[str, str], named: str, why: str
) -> None:
    """One line, of the variable that has to change."""
    missing = certificates.folder / "missing"
    files = {name: getattr(certificates, kind, missing) for name, kind in variables.items()}
    with pytest.raises(SettingsError) as caught:
        settings(**files)
    [line] = str(caught.value).splitlines()

    assert line.startswith(f"{named} was ")
    assert why in line


class Listener:
    """A server that remembers which contexts it is given."""

    def __init__(self, *, is_tls: bool) -> None:
        self.is_tls = is_tls
        self.given: list[ServerTls] = []

    def use_tls(self, tls: ServerTls) -> None:
        self.given.append(tls)


def reloader(env: Path, listener: Listener, tls: ssl.SSLContext | None = None) -> Reloader:
    """Return a reloader of a store that was started with these settings."""
    loaded = load_settings({}, env)
    authenticator = Authenticator(key_ring(loaded), WrongKeys())
    return Reloader(
        loaded, authenticator, listener, central_tls=tls, load=lambda: load_settings({}, env)
    )


async def test_a_reload_reads_the_files_of_the_listener(
    certificates: Certificates, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that has changed, at the same path; one that is broken changes nothing."""
    env = tmp_path / ".env"
    env.write_text(f"API_KEYS=k\nTLS_CERT_FILE={certificates.server}\n")
    listener = Listener(is_tls=True)
    reloading = reloader(env, listener)
    await reloading.reload()
    assert 1 == len(listener.given)

    certificates.server.write_text("broken")
    await reloading.reload()
    assert 1 == len(listener.given)
    assert "reload: refused" in caplog.records[-1].getMessage()


@pytest.mark.parametrize("is_tls", [True, False])
async def test_a_listener_begins_or_ends_tls_at_a_restart(
    certificates: Certificates, tmp_path: Path, caplog: pytest.LogCaptureFixture, is_tls: bool
) -> None:
    """A reload says so."""
    env, line = tmp_path / ".env", f"TLS_CERT_FILE={certificates.server}\n"
    env.write_text("API_KEYS=k\n" + line * is_tls)
    listener = Listener(is_tls=is_tls)
    reloading = reloader(env, listener)
    env.write_text("API_KEYS=k\n" + line * (not is_tls))
    await reloading.reload()

    assert [] == listener.given
    assert caplog.records[-1].getMessage().endswith("need a restart: TLS_CERT_FILE")


# -- Central ---------------------------------------------------------------------------------------


@asynccontextmanager
async def strict_central(certificates: Certificates) -> AsyncIterator[tuple[str, list[str]]]:
    """A Central that answers only clients with a certificate: its address, and the serial numbers
    of the certificates that it was shown."""
    shown: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        shown.append(writer.get_extra_info("ssl_object").getpeercert()["serialNumber"])
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ANSWER)
        writer.close()

    context = ServerTls.load(certificates.files(client_ca=True)).remote
    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    async with server:
        yield f"https://localhost:{server.sockets[0].getsockname()[1]}", shown


async def test_central_may_demand_a_certificate(certificates: Certificates) -> None:
    """Without it nothing is answered."""
    async with strict_central(certificates) as (url, shown):
        known: dict[str, Path | str] = {"CENTRAL_API_URL": url}
        known["CENTRAL_CA_FILE"] = certificates.ca_file
        shows = known | {"CENTRAL_CLIENT_CERT_FILE": certificates.client}
        for given in (settings(**known), settings(**shows)):
            world = Environment(FaultyDirectory())
            central = build_central(given, world, central_tls(given))
            try:
                if given.central_client_cert_file is None:
                    with pytest.raises(CentralError):
                        await central.product("P-1")
                else:
                    assert await central.product("P-1") is not None
            finally:
                await central.close()

    assert 1 == len(shown)
    assert central_tls(settings()) is None


async def test_a_reload_shows_central_the_new_certificate(
    certificates: Certificates, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With the next connection; a broken file changes nothing."""
    async with strict_central(certificates) as (url, shown):
        env, file = tmp_path / ".env", tmp_path / "client.pem"
        file.write_bytes(certificates.client.read_bytes())
        env.write_text(
            f"API_KEYS=k\nCENTRAL_API_URL={url}\nCENTRAL_CA_FILE={certificates.ca_file}\n"
            f"CENTRAL_CLIENT_CERT_FILE={file}\n"
        )
        given = load_settings({}, env)
        tls = central_tls(given)
        central = build_central(given, Environment(FaultyDirectory()), tls)
        reloading = reloader(env, Listener(is_tls=False), tls)
        try:
            await central.product("P-1")
            file.write_text("broken")
            await reloading.reload()
            await central.product("P-1")
            file.write_bytes(certificates.server.read_bytes())
            await reloading.reload()
            await central.product("P-1")
        finally:
            await central.close()

    assert [True, False] == [shown[0] == each for each in shown[1:]]
    assert 1 == sum("reload: refused" in each.getMessage() for each in caplog.records)


CA, CERT = "CENTRAL_CA_FILE", "CENTRAL_CLIENT_CERT_FILE"


@pytest.mark.parametrize(
    ("at_start", "then", "named"),
    [
        ("", CA, [CA]),
        ("", f"{CA} {CERT}", [CA, CERT]),
        (CA, "", [CA]),
        (CERT, "", [CERT]),
        (f"{CA} {CERT}", CA, [CERT]),
        (f"{CA} {CERT}", "", [CA, CERT]),
        (CERT, f"{CA} {CERT}", [CA]),
        (CA, f"{CA} {CERT}", []),
        (f"{CA} {CERT}", f"{CA} {CERT}", []),
    ],
)
async def test_files_for_central_that_need_a_restart_are_named(
    certificates: Certificates,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    at_start: str,
    then: str,
    named: list[str],
) -> None:
    """A certificate or an authority that is no longer given is shown or trusted until then; one
    that is the first of them all is not used until then. Each reload says so."""
    files = {CA: certificates.ca_file, CERT: certificates.client}
    usual = "API_KEYS=k\nCENTRAL_API_URL=https://localhost\n"
    env = tmp_path / ".env"

    def write(names: str) -> None:
        env.write_text(usual + "".join(f"{name}={files[name]}\n" for name in names.split()))

    write(at_start)
    reloading = reloader(env, Listener(is_tls=False), central_tls(load_settings({}, env)))
    write(then)
    await reloading.reload()
    await reloading.reload()

    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [f"reload: changes of these need a restart: {', '.join(named)}"] * 2 * bool(
        named
    ) == said


async def test_a_certificate_that_came_with_a_reload_leaves_with_a_restart(
    certificates: Certificates, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What an earlier reload added counts as given."""
    env = tmp_path / ".env"
    usual = f"API_KEYS=k\nCENTRAL_API_URL=https://localhost\n{CA}={certificates.ca_file}\n"
    env.write_text(usual)
    reloading = reloader(env, Listener(is_tls=False), central_tls(load_settings({}, env)))
    env.write_text(usual + f"{CERT}={certificates.client}\n")
    await reloading.reload()
    env.write_text(usual)
    await reloading.reload()

    assert caplog.records[-1].getMessage().endswith(f"need a restart: {CERT}")


# -- the command line ------------------------------------------------------------------------------


async def test_the_status_is_read_over_https(
    certificates: Certificates,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The own store's certificate is trusted; another one's by its authority."""
    monkeypatch.chdir(tmp_path)
    async with a_store(tls_cert_file=str(certificates.server)) as store, store.served() as url:
        await store.until("live")
        port = url.rpartition(":")[2]
        for name, value in {
            "PORT": port,
            "TLS_CERT_FILE": str(certificates.server),
            "API_KEYS": TILL_KEY,
        }.items():
            monkeypatch.setenv(name, value)
        https = ("--url", f"https://localhost:{port}", "--key", TILL_KEY)
        trusted = ("--ca-file", str(certificates.ca_file))

        async def status(*arguments: str) -> int:
            return await asyncio.to_thread(main, ["status", *arguments])

        assert 0 == await status()
        assert 0 == await status(*https, *trusted)
        assert 0 == await status(*https, *trusted, "--client-cert", str(certificates.client))
        assert 1 == await status(*https)
        assert "no store answers at https://localhost" in capsys.readouterr().err
        assert 1 == await status(*https, "--ca-file", str(certificates.server_key))
        assert "holds no certificate in PEM form: see --ca-file" in capsys.readouterr().err
