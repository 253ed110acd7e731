"""Which store a command calls, and with which key.

Without options it is the store of this machine, by the settings: its address, and the token that it
has left in `DATA_DIR` for whoever may read that folder. So commands work with hashed keys too.
"""

from __future__ import annotations

import argparse
import ssl
from pathlib import Path
from urllib.parse import urlsplit

from store_cache.api.auth import HASHED
from store_cache.api.tls import TlsFilesError, client_tls
from store_cache.app.admin_token import TOKEN_NAME, read_token
from store_cache.app.settings import Settings, load_settings
from store_cache.cli.client import CallFailed, StoreClient

OWN_FILE = Path(".env")
SERVICE_FILE = Path("/etc/store-cache/store-cache.env")
"""The settings of the service of systemd, see config/systemd."""

_EVERY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 - compared, not listened on
_THIS_MACHINE = frozenset({"localhost", "127.0.0.1", "::1"})


def add_connection_options(command: argparse.ArgumentParser) -> None:
    """Add the options that say which store it is."""
    command.add_argument(
        "--url", help="of the store (default: HOST and PORT, by https if TLS_CERT_FILE is set)"
    )
    command.add_argument(
        "--key",
        help="its API key (default: the token in DATA_DIR, else the first plain one of "
        "ADMIN_API_KEYS or API_KEYS)",
    )
    command.add_argument(
        "--env-file",
        type=Path,
        metavar="FILE",
        help=f"its settings (default: .env, or if there is none {SERVICE_FILE})",
    )
    command.add_argument(
        "--ca-file",
        type=Path,
        metavar="FILE",
        help="PEM file of the authority to trust for https (default: the system's; without --url "
        "the store's own certificate)",
    )
    command.add_argument(
        "--client-cert",
        type=Path,
        metavar="FILE",
        help="PEM file of a certificate with its key, for a store that demands one",
    )


def store_client(options: argparse.Namespace) -> StoreClient:
    """Return a client by these options. Raises SettingsError and CallFailed."""
    url, own_cert, keys = options.url, None, [options.key]
    if url is None or options.key is None:
        settings = load_settings(env_file=settings_file(options.env_file))
        if url is None:
            own_cert = settings.tls_cert_file
            url = own_url(settings)
        if options.key is None:
            keys = keys_for(url, settings)
    return StoreClient(url, keys, _tls(options, own_cert))


def settings_file(given: Path | None) -> Path:
    """Return the file with the settings of this machine's store."""
    if given is not None:
        if not given.is_file():
            raise CallFailed(f"{given} is no file: see --env-file")
        return given
    return SERVICE_FILE if not OWN_FILE.is_file() and SERVICE_FILE.is_file() else OWN_FILE


def own_url(settings: Settings) -> str:
    """Return the address of the store that has these settings, on its own machine."""
    host = "localhost" if settings.host in _EVERY_ADDRESS else settings.host
    host = f"[{host}]" if ":" in host else host
    return f"http{'s' if settings.tls_cert_file else ''}://{host}:{settings.port}"


def keys_for(url: str, settings: Settings) -> list[str]:
    """Return the keys to try at `url`, best first. Raises CallFailed if there are none."""
    is_own = _is_own(url, settings)
    token = read_token(settings.data_dir) if is_own else None
    held = (key.get_secret_value() for key in (*settings.admin_api_keys, *settings.api_keys))
    plain = next((key for key in held if not key.startswith(HASHED)), None)
    if keys := [key for key in (token, plain) if key is not None]:
        return keys
    if not is_own:
        raise CallFailed("the settings hold no key in plain text; give one with --key")
    raise CallFailed(
        f"the settings hold no key in plain text, and {settings.data_dir / TOKEN_NAME} cannot be "
        "read; run this as the user of the store, or give a key with --key"
    )


def _is_own(url: str, settings: Settings) -> bool:
    """Return whether the token may be sent to `url`: it is for this machine's store alone."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname, parts.port
    except ValueError:
        return False
    return (host in _THIS_MACHINE or host == settings.host) and port == settings.port


def _tls(options: argparse.Namespace, own_cert: Path | None) -> ssl.SSLContext | None:
    try:
        return client_tls(options.ca_file, own_cert=own_cert, client_cert=options.client_cert)
    except TlsFilesError as problem:
        raise CallFailed(f"a file for https {problem}: see --ca-file, --client-cert") from problem
