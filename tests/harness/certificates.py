"""Certificate authorities and certificates for tests, as PEM files."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import trustme

from store_cache.api.tls import TlsFiles


@cache
def authority(name: str = "the chain's") -> trustme.CA:
    """The same one for all tests, since making keys takes time."""
    return trustme.CA(organization_name=name)


@cache
def _issued(ca: str, *names: str) -> trustme.LeafCert:
    return authority(ca).issue_cert(*names)


@dataclass(frozen=True)
class Certificates:
    """Files of one authority in `folder`: its certificate, one of a server, one of a client."""

    folder: Path
    ca: str = "the chain's"
    server_names: tuple[str, ...] = ("localhost", "127.0.0.1")

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        authority(self.ca).cert_pem.write_to_path(self.ca_file)
        server = _issued(self.ca, *self.server_names)
        server.private_key_and_cert_chain_pem.write_to_path(self.server)
        server.private_key_pem.write_to_path(self.server_key)
        for number, pem in enumerate(server.cert_chain_pems):
            pem.write_to_path(self.server_cert, append=number > 0)
        client = _issued(self.ca, "client@example.com")
        client.private_key_and_cert_chain_pem.write_to_path(self.client)

    @property
    def ca_file(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def server(self) -> Path:
        """Certificate and key in one file."""
        return self.folder / "server.pem"

    @property
    def server_cert(self) -> Path:
        return self.folder / "server-cert.pem"

    @property
    def server_key(self) -> Path:
        return self.folder / "server-key.pem"

    @property
    def client(self) -> Path:
        """Certificate and key in one file."""
        return self.folder / "client.pem"

    def files(self, *, client_ca: bool = False) -> TlsFiles:
        """What a server is given."""
        return TlsFiles(self.server_cert, self.server_key, self.ca_file if client_ca else None)

    def client_context(self, *, shows_certificate: bool = False) -> ssl.SSLContext:
        """What a client that trusts the authority uses."""
        context = ssl.create_default_context(cafile=self.ca_file)
        if shows_certificate:
            context.load_cert_chain(self.client)
        return context
