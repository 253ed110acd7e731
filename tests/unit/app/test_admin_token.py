"""The command line's own key: a file in `DATA_DIR` that only the store's user can read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from store_cache.api.auth import KeyRing, Scope
from store_cache.app.admin_token import TOKEN_NAME, admin_token, read_token
from store_cache.app.settings import Settings
from store_cache.cli.client import CallFailed
from store_cache.cli.connect import keys_for, own_url

HASHED = "sha256:" + "0" * 64


async def test_token_is_an_admin_s_key_until_the_end(tmp_path: Path) -> None:
    """It is beside the configured keys, and changes nothing about them."""
    async with admin_token(tmp_path) as local:
        token = read_token(tmp_path)
        assert token is not None
        ring = KeyRing(keys=["till"], local=local)
        caller, till = ring.find(token), ring.find("till")

    assert caller is not None
    assert till is not None
    assert (Scope.ADMIN, Scope.ADMIN) == (caller.scope, till.scope)
    assert 1 == len(ring)
    assert [] == os.listdir(tmp_path)  # noqa: PTH208 - names alone
    assert read_token(tmp_path) is None


async def test_nobody_else_can_read_it(tmp_path: Path) -> None:
    """Mode 0600 whatever the umask; a link or a file that lies there is replaced, not followed."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / TOKEN_NAME).symlink_to(victim)
    (tmp_path / f"{TOKEN_NAME}.new").symlink_to(victim)
    before = os.umask(0)
    try:
        async with admin_token(tmp_path):
            mode = (tmp_path / TOKEN_NAME).lstat().st_mode
    finally:
        os.umask(before)

    assert (True, 0o600) == (stat.S_ISREG(mode), stat.S_IMODE(mode))
    assert "mine" == victim.read_text()


async def test_each_start_has_another_one(tmp_path: Path) -> None:
    """One that leaked is worth nothing after a restart."""
    tokens = set()
    for _ in range(3):
        async with admin_token(tmp_path):
            tokens.add(read_token(tmp_path))

    assert 3 == len(tokens)


async def test_failing_disk_does_not_prevent_a_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says what the command line needs instead."""
    async with admin_token(tmp_path / "missing") as local:
        assert local is None

    assert "until a restart the command line needs --key" in caplog.text


def settings(folder: Path, **given: object) -> Settings:
    usual = {"data_dir": folder, "port": 8083, "api_keys": HASHED}
    return Settings(_env_file=None, **(usual | given))  # type: ignore[arg-type]


async def test_token_is_sent_to_this_machine_s_store_alone(tmp_path: Path) -> None:
    """Another address gets a key of the settings, or none."""
    own = settings(tmp_path, host="10.0.0.7")
    elsewhere = ["http://till-server:8083", "http://localhost:9083", "localhost", "http://[::1"]
    async with admin_token(tmp_path):
        token = read_token(tmp_path)
        for url in ("http://localhost:8083", "127.0.0.1:8083", "[::1]:8083", own_url(own)):
            assert [token] == keys_for(url, own)
        for url in elsewhere:
            with pytest.raises(CallFailed, match="give one with --key"):
                keys_for(url, own)
        plain = settings(tmp_path, api_keys="till-1")
        assert ["till-1"] == keys_for("http://till-server:8083", plain)
        assert [token, "till-1"] == keys_for("http://localhost:8083", plain)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://localhost:8083"),
        ("::", "http://localhost:8083"),
        ("10.0.0.7", "http://10.0.0.7:8083"),
        ("fd00::7", "http://[fd00::7]:8083"),
    ],
)
def test_own_address_follows_host(host: str, url: str, tmp_path: Path) -> None:
    """A store that listens on one address only does not answer at localhost."""
    assert url == own_url(settings(tmp_path, host=host))
