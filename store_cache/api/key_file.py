"""The key file: API keys with the name of their client, a scope and an end, one on each line.

    {"name":"till-3","scope":"write","sha256":"<64 hex>","created":"…","expires":"…"}

It holds the SHA-256 of each key, so that whoever reads the file cannot call the store. `created`
and `expires` (RFC 3339) may be left out; without `expires` a key is valid until it is revoked.
Lines that are empty or begin with # are passed over. A client may have several keys, so that a new
one can be given out before the old one is revoked.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import Any

import orjson

from store_cache.api.auth import Caller, Scope

SCOPES = {"read": Scope.READ, "write": Scope.WRITE, "admin": Scope.ADMIN}

NAME_MUST_BE = (
    "1 to 40 letters, digits, dots, - and _, and not like key-1, which names a key of API_KEYS"
)
_NAME = re.compile(r"(?!(?:admin-)?key-[0-9]+\Z)[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_FIELDS = frozenset({"name", "scope", "sha256", "created", "expires"})
_MOST_BYTES = 4 * 1024 * 1024


class KeyFileError(ValueError):
    """The file cannot be used. The message completes "the key file …" and repeats none of its
    content but names."""


@dataclass(frozen=True, slots=True)
class NamedKey:
    """A key of the file. Times are unix seconds; `created_at` is None if it is not known."""

    name: str
    scope: str
    digest: bytes
    created_at: float | None = None
    expires_at: float = inf

    @property
    def key_id(self) -> str:
        """What tells the keys of one client apart: the beginning of the digest."""
        return self.digest.hex()[:8]

    def caller(self) -> Caller:
        return Caller(self.name, SCOPES[self.scope], self.digest, self.expires_at)


def is_name(text: str) -> bool:
    """Return whether this can be the name of a client."""
    return _NAME.fullmatch(text) is not None


def load_key_file(path: Path) -> list[NamedKey]:
    """Raises KeyFileError if the file cannot be read, or if one line of it is wrong."""
    try:
        if path.stat().st_mode & stat.S_IWOTH:
            raise KeyFileError(f"can be changed by every user of this machine: chmod 600 {path}")
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        raise KeyFileError("does not exist; `store-cache keys new NAME` begins one") from None
    except OSError as problem:
        raise KeyFileError(f"cannot be read ({problem.strerror})") from None
    if len(content) > _MOST_BYTES:
        raise KeyFileError(f"is larger than {_MOST_BYTES} bytes, so it is something else")
    return read_keys(content)


def read_keys(content: bytes) -> list[NamedKey]:
    """Raises KeyFileError."""
    keys: list[NamedKey] = []
    line_of: dict[bytes, int] = {}
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            key = read_line(line)
        except ValueError as problem:
            raise KeyFileError(f"is wrong in line {number}, which {problem}") from None
        if key is None:
            continue
        first = line_of.setdefault(key.digest, number)
        if first != number:
            raise KeyFileError(f"is wrong in line {number}, which has the key of line {first} too")
        keys.append(key)
    return keys


def read_line(line: bytes) -> NamedKey | None:
    """Return the key of a line; None if it holds none. Raises ValueError."""
    if not line.strip() or line.lstrip().startswith(b"#"):
        return None
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError:
        raise ValueError("is not JSON") from None
    if not isinstance(fields, dict):
        raise ValueError("is not a JSON object")
    # A misspelt `expires` would make a key that never ends.
    if unknown := fields.keys() - _FIELDS:
        raise ValueError(f"has an unknown field: {min(unknown)[:40]!r}")
    name, scope, digest = (fields.get(field) for field in ("name", "scope", "sha256"))
    if not isinstance(name, str) or not is_name(name):
        raise ValueError(f"has no name of {NAME_MUST_BE}")
    if not isinstance(scope, str) or scope not in SCOPES:
        raise ValueError(f"has no scope; it may be {', '.join(SCOPES)}")
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise ValueError("has no sha256 of 64 hexadecimal digits in lower case")
    created_at, expires_at = _moment(fields, "created"), _moment(fields, "expires")
    return NamedKey(
        name,
        scope,
        bytes.fromhex(digest),
        created_at,
        inf if expires_at is None else expires_at,
    )


def encode_line(key: NamedKey) -> bytes:
    """Return the line of a key, without its end."""
    fields: dict[str, Any] = {"name": key.name, "scope": key.scope, "sha256": key.digest.hex()}
    if key.created_at is not None:
        fields["created"] = shown_moment(key.created_at)
    if key.expires_at != inf:
        fields["expires"] = shown_moment(key.expires_at)
    return orjson.dumps(fields)


def shown_moment(at: float) -> str:
    """Return unix seconds in RFC 3339."""
    moment = datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
    return moment.replace("+00:00", "Z")


def _moment(fields: Mapping[str, Any], field: str) -> float | None:
    value = fields.get(field)
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise ValueError
        return moment.timestamp()
    except (TypeError, ValueError, OverflowError):
        raise ValueError(
            f"has no time in {field}, such as 2027-01-31T00:00:00Z, but another value"
        ) from None
