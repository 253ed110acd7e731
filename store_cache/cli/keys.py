"""`store-cache keys`: gives out, lists and revokes API keys in the key file.

An edit replaces the file in one step, under a lock, and leaves the lines of other keys and of
comments as they are. A key itself is printed once and held nowhere.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from math import inf
from pathlib import Path

from store_cache.api.key_file import (
    NAME_MUST_BE,
    KeyFileError,
    NamedKey,
    encode_line,
    is_name,
    load_key_file,
    read_keys,
    read_line,
    shown_moment,
)

MOST_KEYS_AT_A_TIME = 2
"""Keys of one client that are valid at the same time: the one in use, and the one that replaces
it."""

_KEY_BYTES = 20
_DAY_SECONDS = 86_400.0
_DAYS = re.compile(r"([1-9][0-9]{0,4})d")

Edit = Callable[[list[bytes], list[NamedKey]], list[bytes]]
"""Returns the lines of the file from the present ones and their keys."""


class KeysRefused(Exception):
    """The command cannot be done; the message says what to do instead."""


def print_new_key(path: Path, name: str, *, scope: str | None, expires: str | None) -> None:
    """Add a key of `name`, and print it. Without a scope it is that of the client's other key, else
    write. Raises KeysRefused."""
    if not is_name(name):
        raise KeysRefused(f"a name must be {NAME_MUST_BE}")
    now = time.time()
    expires_at = _end(expires, now)
    key = secrets.token_hex(_KEY_BYTES)

    def add(lines: list[bytes], keys: list[NamedKey]) -> list[bytes]:
        valid = [each for each in keys if each.name == name and each.expires_at > now]
        if len(valid) >= MOST_KEYS_AT_A_TIME:
            raise KeysRefused(
                f"{name} has {len(valid)} keys that are valid: take the old one away first, with "
                f"store-cache keys revoke {name} --old"
            )
        granted = scope or (valid[-1].scope if valid else "write")
        digest = hashlib.sha256(key.encode()).digest()
        return [*lines, encode_line(NamedKey(name, granted, digest, now, expires_at))]

    _edit(path, add, may_create=True)
    print(key)
    _say(
        f"This is the key of {name}; it cannot be shown again.",
        f"The store accepts it after a reload: {_RELOAD}",
    )


def print_keys(path: Path) -> None:
    """Print a table of the keys, without the keys themselves. Raises KeysRefused."""
    now = time.time()
    rows = [("NAME", "SCOPE", "KEY", "CREATED", "EXPIRES")]
    for key in _load(path):
        expires = "never" if key.expires_at == inf else shown_moment(key.expires_at)
        created = "-" if key.created_at is None else shown_moment(key.created_at)
        state = "  (expired)" if key.expires_at <= now else ""
        rows.append((key.name, key.scope, key.key_id, created, expires + state))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )


def print_revoked(path: Path, name: str, *, only_old: bool) -> None:
    """Remove the keys of `name`, or all but its newest one. Raises KeysRefused."""
    removed: list[NamedKey] = []

    def remove(lines: list[bytes], keys: list[NamedKey]) -> list[bytes]:
        own = [key for key in keys if key.name == name]
        if not own:
            raise KeysRefused(f"{name} has no key in {path}; see store-cache keys list")
        removed.extend(own[:-1] if only_old else own)
        if not removed:
            raise KeysRefused(
                f"{name} has one key only: give it a new one first, or revoke without --old"
            )
        digests = {key.digest for key in removed}
        kept = []
        for line in lines:
            key = read_line(line)
            if key is None or key.digest not in digests:
                kept.append(line)
        return kept

    _edit(path, remove, may_create=False)
    ids = ", ".join(key.key_id for key in removed)
    _say(f"Revoked of {name}: {ids}.", f"The store refuses it after a reload: {_RELOAD}")


_RELOAD = "send it SIGHUP (systemctl reload, docker kill -s HUP)"


def _say(*lines: str) -> None:
    """Print for a person, so that a script that reads the key gets nothing else."""
    for line in lines:
        print(line, file=sys.stderr)


def _end(expires: str | None, now: float) -> float:
    """Return when a key ends, in unix seconds, from `90d` or a date. Raises KeysRefused."""
    if expires is None:
        return inf
    if days := _DAYS.fullmatch(expires):
        return now + int(days[1]) * _DAY_SECONDS
    with suppress(ValueError):
        moment = datetime.fromisoformat(expires)
        ends_at = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        if ends_at > now:
            return ends_at
    raise KeysRefused(
        f"--expires {expires} is no time to come; give days, such as 90d, or a date, such as "
        "2027-01-31 (UTC)"
    )


def _load(path: Path) -> list[NamedKey]:
    try:
        return load_key_file(path)
    except KeyFileError as problem:
        raise KeysRefused(f"the key file {path} {problem}") from None


# -- the file --------------------------------------------------------------------------------------


def _edit(path: Path, edit: Edit, *, may_create: bool) -> None:
    """Replace the file by its edited lines, or leave it untouched."""
    try:
        target = Path(os.path.realpath(path))
        with _locked(target, may_create=may_create) as fd:
            content = target.read_bytes()
            lines = edit(content.splitlines(), read_keys(content))
            _replace(target, b"".join(line + b"\n" for line in lines), os.fstat(fd))
    except KeyFileError as problem:
        raise KeysRefused(f"the key file {path} {problem}") from None
    except FileNotFoundError:
        raise KeysRefused(
            f"{path} does not exist; give --file, or set KEYS_FILE, and begin the file with "
            "store-cache keys new NAME"
        ) from None
    except OSError as problem:
        raise KeysRefused(f"{path} cannot be changed ({problem.strerror})") from None


@contextmanager
def _locked(path: Path, *, may_create: bool) -> Iterator[int]:
    """Hold the file's lock, so that of two edits at a time neither is lost."""
    flags = os.O_RDWR | (os.O_CREAT if may_create else 0)
    while True:
        fd = os.open(path, flags, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.path.samestat(os.fstat(fd), path.stat()):
                yield fd
                return
            # Another edit has replaced it in the meantime.
        finally:
            os.close(fd)


def _replace(path: Path, content: bytes, old: os.stat_result) -> None:
    """Put new content in place of the file, on disk, for its owner and group as before."""
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(file.fileno(), old.st_uid, old.st_gid)
            os.fchmod(file.fileno(), stat.S_IMODE(old.st_mode) & 0o640)
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
