"""`store-cache keys`: what it prints, and what is in the file afterwards."""

from __future__ import annotations

import hashlib
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from store_cache.api.key_file import load_key_file
from store_cache.cli.main import main

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The key file of the settings; it does not exist yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KEYS_FILE", str(tmp_path / "keys.jsonl"))
    return tmp_path / "keys.jsonl"


def new_key(capsys: Captured, *arguments: str) -> str:
    """Give out a key and return it."""
    assert 0 == main(["keys", "new", *arguments])
    [key] = capsys.readouterr().out.splitlines()
    return key


def refused(capsys: Captured, *arguments: str) -> str:
    """Return why a command is refused."""
    assert 2 == main(["keys", *arguments])
    return capsys.readouterr().err


def test_a_new_key_is_printed_and_its_hash_kept(file: Path, capsys: Captured) -> None:
    """The key is the only line of standard output; the file is its owner's alone."""
    key = new_key(capsys, "till-3")
    [held] = load_key_file(file)

    assert 40 == len(key)
    assert ("till-3", "write") == (held.name, held.scope)
    assert hashlib.sha256(key.encode()).digest() == held.digest
    assert key not in file.read_text()
    assert 0o600 == stat.S_IMODE(file.stat().st_mode)
    assert [file.name] == [each.name for each in file.parent.iterdir()]


def test_what_to_do_next_is_on_standard_error(file: Path, capsys: Captured) -> None:
    """The store does not see the change by itself."""
    assert 0 == main(["keys", "new", "till-3"])

    assert "SIGHUP" in capsys.readouterr().err
    assert file.exists()


@pytest.mark.parametrize("expires", ["90d", "2099-01-31", "2099-01-31T12:00:00+01:00"])
def test_a_key_may_end(file: Path, capsys: Captured, expires: str) -> None:
    """After days, or at a date."""
    new_key(capsys, "report", "--scope", "read", "--expires", expires)
    [held] = load_key_file(file)
    assert 0 == main(["keys", "list"])
    printed = capsys.readouterr().out

    assert "read" == held.scope
    assert held.created_at is not None
    if expires == "90d":
        assert held.created_at + 90 * 86_400.0 == pytest.approx(held.expires_at, abs=2.0)
    else:
        assert "2099-01-31T" in printed


@pytest.mark.parametrize("expires", ["2001-01-31", "soon", "0d", "-1d", "999999999999d"])
def test_an_end_lies_in_the_future(file: Path, capsys: Captured, expires: str) -> None:
    """Else the key would be refused from the start, or for ever."""
    assert "is no time to come" in refused(capsys, "new", "till-3", f"--expires={expires}")
    assert not file.exists()


def test_a_client_changes_from_one_key_to_the_next(file: Path, capsys: Captured) -> None:
    """Two at a time, of the same scope unless another is given; then the old one is revoked."""
    new_key(capsys, "office", "--scope", "admin")
    second = new_key(capsys, "office")
    assert "office has 2 keys that are valid" in refused(capsys, "new", "office")
    assert {"admin"} == {key.scope for key in load_key_file(file)}

    assert 0 == main(["keys", "revoke", "office", "--old"])
    [left] = load_key_file(file)
    assert hashlib.sha256(second.encode()).digest() == left.digest
    assert "has one key only" in refused(capsys, "revoke", "office", "--old")


def test_all_keys_of_a_client_are_revoked(file: Path, capsys: Captured) -> None:
    """Lines of others, and what a person wrote, stay as they are."""
    new_key(capsys, "till-3")
    first = file.read_text()
    file.write_text(f"# by the door\n{first}")
    for _ in range(2):
        new_key(capsys, "till-4")
    assert 0 == main(["keys", "revoke", "till-4"])

    assert f"# by the door\n{first}" == file.read_text()
    assert "till-4 has no key" in refused(capsys, "revoke", "till-4")


def test_the_list_shows_no_key(file: Path, capsys: Captured) -> None:
    """But what is needed to tell keys apart."""
    key = new_key(capsys, "till-3")
    digest = hashlib.sha256(key.encode()).hexdigest()
    assert 0 == main(["keys", "list"])
    header, line = capsys.readouterr().out.splitlines()

    assert ["NAME", "SCOPE", "KEY", "CREATED", "EXPIRES"] == header.split()
    assert ["till-3", "write", digest[:8]] == line.split()[:3]
    assert "never" == line.split()[-1]
    assert file.exists()


@pytest.mark.parametrize("name", ["", "till 3", "key-3", "x" * 41, "../till"])
def test_a_name_is_simple(file: Path, capsys: Captured, name: str) -> None:
    """It stands in logs and answers. Nothing is created."""
    assert "a name must be 1 to 40 letters" in refused(capsys, "new", "--", name)
    assert not file.exists()


def test_a_damaged_file_is_left_alone(file: Path, capsys: Captured) -> None:
    """The line is named, and nothing is changed."""
    file.write_text("# keys\ntill-3\n")
    for arguments in (["new", "till-4"], ["list"], ["revoke", "till-3"]):
        assert "is wrong in line 2, which is not JSON" in refused(capsys, *arguments)

    assert "# keys\ntill-3\n" == file.read_text()


def test_a_missing_file_is_explained(
    file: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only `new` begins one."""
    assert "store-cache keys new NAME" in refused(capsys, "list")
    assert "store-cache keys new NAME" in refused(capsys, "revoke", "till-3")
    assert not file.exists()

    monkeypatch.delenv("KEYS_FILE")
    assert "set KEYS_FILE, or give --file" in refused(capsys, "list")
    assert 0 == main(["keys", "new", "till-3", "--file", str(file)])
    assert file.exists()


def test_a_link_stays_a_link(file: Path, capsys: Captured) -> None:
    """What it leads to is replaced, with the rights that its group had."""
    real = file.parent / "real.jsonl"
    real.touch(0o640)
    real.chmod(0o640)
    file.symlink_to(real)
    new_key(capsys, "till-3")

    assert file.is_symlink()
    assert 1 == len(load_key_file(real))
    assert 0o640 == stat.S_IMODE(real.stat().st_mode)


def test_no_edit_is_lost_to_another(file: Path) -> None:
    """Several persons add keys at the same time."""
    names = [f"till-{n}" for n in range(8)]
    with ThreadPoolExecutor(8) as people:
        done = list(people.map(lambda name: main(["keys", "new", name]), names))

    assert [0] * 8 == done
    assert set(names) == {key.name for key in load_key_file(file)}
