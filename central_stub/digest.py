"""Digests: a few hashes that show whether two catalogues are equal, or where they differ.

    row hash     sha256 of the row's canonical JSON (RFC 8785), 32 bytes
    bucket       bucket_of(productId, buckets)
    bucket hash  sha256 over the row hashes of its rows, one after the other in code point order of
                 productId; in hex. An empty bucket is the sha256 of nothing.

Rows are hashed first, so that both sides can keep a row's hash until the row changes. The caller
reads the event offset at the same moment.
"""

import hashlib
from collections.abc import Iterable

import rfc8785

from central_stub.catalogue import Catalogue, Row, bucket_of


def hash_row(row: Row) -> bytes:
    return hashlib.sha256(rfc8785.dumps(row)).digest()


class Digests:
    """Row hashes, kept until a row changes."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._hashes: dict[str, bytes] = {}

    def forget(self, product_id: str) -> None:
        self._hashes.pop(product_id, None)

    def forget_all(self) -> None:
        self._hashes.clear()

    def unhashed(self) -> list[str]:
        return [each for each in self._catalogue.ids() if each not in self._hashes]

    def hash(self, product_ids: Iterable[str]) -> None:
        """Hash these rows before `buckets` needs them; ignore unknown ids."""
        for product_id in product_ids:
            row = self._catalogue.get(product_id)
            if row is not None:
                self._hashes[product_id] = hash_row(row)

    def buckets(self, count: int) -> list[str]:
        """Return the hash of each of `count` buckets, in hex."""
        self.hash(self.unhashed())
        hashers = [hashlib.sha256() for _ in range(count)]
        for product_id in self._catalogue.ids():
            hashers[bucket_of(product_id, count)].update(self._hashes[product_id])
        return [hasher.hexdigest() for hasher in hashers]
