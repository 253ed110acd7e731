"""A DATA_DIR that an earlier version wrote is read as it was, and the same is written today."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import orjson
import pytest

from store_cache.storage.directory import LocalDirectory
from tests.golden import compare
from tests.golden.central import ScriptedCentral
from tests.golden.make_data_dir import FOLDER, folders
from tests.golden.opened import LATER, RECORDINGS, files_in
from tests.golden.store import a_served_store
from tests.harness.clients import TILL_KEY, path_of
from tests.harness.clock import Clock
from tests.harness.http import Connection


@pytest.mark.parametrize("folder", folders(), ids=lambda folder: folder.name)
def test_the_same_script_writes_the_same_bytes(folder: Path) -> None:
    """[D1] Names and content of every file; a failure names the first line that differs."""
    written, found = folders()[folder], files_in(folder)

    assert sorted(found) == sorted(written)
    for name in found:
        lines = zip(found[name].split(b"\n"), written[name].split(b"\n"), strict=False)
        for number, (old, new) in enumerate(lines, start=1):
            assert old == new, f"{folder.name}/{name}, line {number}"
        assert found[name] == written[name]


@pytest.mark.parametrize("name", RECORDINGS)
def test_the_files_mean_what_they_meant(name: str) -> None:
    """[D4] [D7] [W1] Products, pages, status and the answers to repeated keys, with Central away
    and with Central there; and what is left of files with a torn end."""
    compare.check(name, RECORDINGS[name]())


def test_the_files_cover_every_state() -> None:
    """Each refetch reason and each kind of key is in the snapshot and in the journal, also after
    they were recorded again."""
    snapshot, journal = (files_in(FOLDER)[f"{kind}-3.jsonl"] for kind in ("snapshot", "journal"))
    doubts = ("order", "unreadable", "conflict", "crossed", "refresh", "ahead")
    refusals = (
        "version_conflict",
        "insufficient_inventory",
        "product_not_found",
        "invalid_request",
        "missing_product_id",
    )

    for content in (snapshot, journal):
        missing = [
            text
            for text in (
                *(f'"doubt":"{doubt}"' for doubt in doubts),
                *(f'"refused":{{"errorType":"{refusal}"' for refusal in refusals),
                '"applied":{"newQuantity":',
                '"attempt":2,"productId":',
                '"fingerprint":"',
            )
            if text.encode() not in content
        ]
        assert [] == missing
    assert b'"after":{"journal":2' in journal


async def test_the_folder_on_disk_is_opened_as_it_is(tmp_path: Path) -> None:
    """[D7] By the real directory and a real port: every product, byte by byte, as in the
    recording."""
    recorded: dict[str, Any] = compare.recorded("data_dir.json")["products"]
    folder = tmp_path / "data"
    shutil.copytree(FOLDER, folder)
    central = ScriptedCentral()
    central.is_away = True
    directory = LocalDirectory(folder)
    async with a_served_store(central, directory, Clock(LATER)) as port:
        connection = await Connection.open(port)
        for product_id, expected in recorded.items():
            path, headers = path_of(product_id), {"X-API-Key": TILL_KEY}
            reply = await connection.send("GET", path, headers=headers)
            found = {"status": reply.status, "body": orjson.loads(reply.body)}
            assert found == {name: expected[name] for name in found}
        connection.close()
    await directory.close()

    assert {"lock", "snapshot-4.jsonl", "journal-4.jsonl"} == {p.name for p in folder.iterdir()}
