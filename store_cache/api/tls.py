"""TLS of the API: contexts from files. A reload exchanges the server's for new connections."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path


class TlsFilesError(ValueError):
    """A file cannot be used. The message completes "the file …"."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files. `key` None: the private key is in `cert`. `client_ca`: clients must show a
    certificate of this authority; None: they need none."""

    cert: Path
    key: Path | None = None
    client_ca: Path | None = None


@dataclass(frozen=True, slots=True)
class ServerTls:
    """The contexts that new connections get: those of clients on this machine, such as health
    checks, need no certificate."""

    remote: ssl.SSLContext
    local: ssl.SSLContext

    @classmethod
    def load(cls, files: TlsFiles) -> ServerTls:
        """Raises TlsFilesError."""
        remote = local = _context(files)
        if files.client_ca is not None:
            remote = _context(files)
            remote.verify_mode = ssl.CERT_REQUIRED
            load_authorities(remote, files.client_ca)
        return cls(remote, local)


def client_tls(
    ca_file: Path | None, *, own_cert: Path | None = None, client_cert: Path | None = None
) -> ssl.SSLContext | None:
    """Return the context of a client of this API; None: the usual one.

    `own_cert` is the certificate of a store on this machine, to be trusted whatever name it is for,
    unless there is a `ca_file`. Raises TlsFilesError.
    """
    if ca_file is None and own_cert is None and client_cert is None:
        return None
    context = ssl.create_default_context()
    trusted = ca_file or own_cert
    if trusted is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        load_authorities(context, trusted)
    if ca_file is None and own_cert is not None:
        context.check_hostname = False
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # it need be no authority
    if client_cert is not None:
        load_certificate(context, client_cert, None)
    return context


def load_certificate(context: ssl.SSLContext, cert: Path, key: Path | None) -> None:
    """Have a context show this certificate. Raises TlsFilesError."""
    try:
        context.load_cert_chain(cert, key, password=_refuse_password)
    except ssl.SSLError as problem:
        if problem.reason == "KEY_VALUES_MISMATCH":
            raise TlsFilesError("holds a private key of another certificate") from None
        raise TlsFilesError("holds no certificate with its private key in PEM form") from None
    except OSError as problem:
        raise TlsFilesError(f"cannot be read ({problem.strerror})") from None


def load_authorities(context: ssl.SSLContext, file: Path) -> None:
    """Have a context trust the authorities of the file. Raises TlsFilesError."""
    try:
        context.load_verify_locations(file)
    except ssl.SSLError:
        raise TlsFilesError("holds no certificate in PEM form") from None
    except OSError as problem:
        raise TlsFilesError(f"cannot be read ({problem.strerror})") from None


def _context(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    load_certificate(context, files.cert, files.key)
    return context


def _refuse_password() -> str:
    raise TlsFilesError("holds an encrypted private key; store it decrypted, for its owner alone")
