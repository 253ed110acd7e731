"""The TLS contexts that the settings name: of the listener, and towards Central."""

from __future__ import annotations

import ssl

import httpx

from store_cache.api.tls import ServerTls, TlsFiles, load_authorities, load_certificate
from store_cache.app.settings import Settings


def tls_files(settings: Settings) -> TlsFiles | None:
    """Return the files of the listeners' certificate; None: they serve in plain text."""
    if settings.tls_cert_file is None:
        return None
    return TlsFiles(settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file)


def server_tls(settings: Settings) -> ServerTls | None:
    """Return the contexts of the listener; None: it serves plain HTTP. Raises TlsFilesError."""
    files = tls_files(settings)
    return None if files is None else ServerTls.load(files)


def central_tls(settings: Settings) -> ssl.SSLContext | None:
    """Return the context of connections to Central; None: the usual one. Raises TlsFilesError."""
    if settings.central_ca_file is None and settings.central_client_cert_file is None:
        return None
    if settings.central_ca_file is None:
        context = httpx.create_ssl_context(trust_env=False)
    else:
        context = ssl.create_default_context(cafile=settings.central_ca_file)
    _show_certificate(context, settings)
    return context


def reload_central_tls(context: ssl.SSLContext, settings: Settings) -> None:
    """Have new connections to Central use the files as they are now. Raises TlsFilesError.

    The context changes in place, since the connector holds it. Authorities are added; one that was
    removed from the file is trusted until a restart.
    """
    central_tls(settings)  # raises before anything has changed
    if settings.central_ca_file is not None:
        load_authorities(context, settings.central_ca_file)
    _show_certificate(context, settings)


def _show_certificate(context: ssl.SSLContext, settings: Settings) -> None:
    cert, key = settings.central_client_cert_file, settings.central_client_key_file
    if cert is not None:
        load_certificate(context, cert, key)
