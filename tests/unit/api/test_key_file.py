"""The key file: what is read from it, and what is refused."""

import hashlib
from dataclasses import replace
from math import inf
from pathlib import Path

import pytest

from store_cache.api.auth import Scope
from store_cache.api.key_file import (
    KeyFileError,
    NamedKey,
    encode_line,
    load_key_file,
    read_keys,
    read_line,
)

DIGEST = hashlib.sha256(b"canary").digest()
KEY = NamedKey("till-3", "write", DIGEST, created_at=1_700_000_000.0, expires_at=1_800_000_000.0)
LINE = encode_line(KEY)


def test_a_line_is_what_a_person_can_read() -> None:
    """Names of fields, times in RFC 3339, and the hash instead of the key."""
    assert (
        b'{"name":"till-3","scope":"write","sha256":"%b",'
        b'"created":"2023-11-14T22:13:20Z","expires":"2027-01-15T08:00:00Z"}'
        % DIGEST.hex().encode()
    ) == LINE


@pytest.mark.parametrize(
    "key", [KEY, replace(KEY, created_at=None), replace(KEY, expires_at=inf, scope="admin")]
)
def test_a_line_is_read_as_it_was_written(key: NamedKey) -> None:
    """A key without `expires` never ends."""
    assert key == read_line(encode_line(key))


def test_a_key_becomes_a_caller() -> None:
    """With the scope that its line names."""
    scopes = {"read": Scope.READ, "write": Scope.WRITE, "admin": Scope.ADMIN}
    for scope, granted in scopes.items():
        caller = replace(KEY, scope=scope).caller()
        assert ("till-3", granted, DIGEST, 1_800_000_000.0) == (
            *(caller.name, caller.scope),
            *(caller.digest, caller.expires_at),
        )


def test_comments_and_empty_lines_are_passed_over() -> None:
    """A person may note whose till it is. A time may have any offset."""
    east = LINE.replace(b"2027-01-15T08:00:00Z", b"2027-01-15T09:00:00+01:00")

    assert [KEY] == read_keys(b"# the tills\r\n\n  # by the door\n" + east)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"till-3 write", "is not JSON"),
        (b"[]", "is not a JSON object"),
        (LINE.replace(b'"expires"', b'"expire"'), "has an unknown field: 'expire'"),
        (LINE.replace(b'"till-3"', b'"till 3"'), "has no name of 1 to 40 letters"),
        (LINE.replace(b'"till-3"', b'"key-3"'), "has no name of 1 to 40 letters"),
        (LINE.replace(b'"till-3"', b'"admin-key-3"'), "has no name of 1 to 40 letters"),
        (LINE.replace(b'"till-3"', b"3"), "has no name of 1 to 40 letters"),
        (LINE.replace(b'"write"', b'"till"'), "has no scope; it may be read, write, admin"),
        (LINE.replace(b'"write"', b"{}"), "has no scope; it may be read, write, admin"),
        (LINE.replace(DIGEST.hex().encode(), b"canary"), "has no sha256 of 64"),
        (LINE.replace(b"2027-01-15T08:00:00Z", b"2027-01-15T08:00:00"), "no time in expires"),
        (LINE.replace(b"2027-01-15T08:00:00Z", b"soon"), "no time in expires"),
        (LINE.replace(b'"2023-11-14T22:13:20Z"', b"7"), "no time in created"),
    ],
)
def test_a_wrong_line_is_named(line: bytes, why: str) -> None:
    """With its number and what is wrong, without repeating what may be a key."""
    with pytest.raises(KeyFileError) as caught:
        read_keys(LINE + b"\n\n" + line)

    assert "is wrong in line 3, which " in str(caught.value)
    assert why in str(caught.value)
    assert "canary" not in str(caught.value)


def test_a_key_has_one_line() -> None:
    """Else it would not be clear whose it is."""
    with pytest.raises(KeyFileError, match="line 2, which has the key of line 1 too"):
        read_keys(LINE + b"\n" + LINE.replace(b"till-3", b"till-4"))


def test_a_file_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    """With what to do: it is missing, anybody may change it, it is no key file."""
    file = tmp_path / "keys.jsonl"
    with pytest.raises(KeyFileError, match="does not exist; `store-cache keys new NAME` begins"):
        load_key_file(file)
    with pytest.raises(KeyFileError, match="cannot be read"):
        load_key_file(tmp_path)

    file.write_bytes(LINE)
    assert [KEY] == load_key_file(file)
    file.chmod(0o666)
    with pytest.raises(KeyFileError, match="every user of this machine: chmod 600"):
        load_key_file(file)

    file.chmod(0o600)
    with file.open("wb") as large:
        large.truncate(5_000_000)
    with pytest.raises(KeyFileError, match="larger than"):
        load_key_file(file)
