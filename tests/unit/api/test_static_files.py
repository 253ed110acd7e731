"""Pages inside the package: what is served, with which headers, and what is not there."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiohttp.test_utils import make_mocked_request

from store_cache.api.problems import NotFound
from store_cache.api.static_files import StaticFiles
from tests.unit.api.conftest import Opened


@pytest.fixture
def files(tmp_path: Path) -> StaticFiles:
    (tmp_path / "index.html").write_text("<!doctype html>")
    (tmp_path / "vendor").mkdir()
    (tmp_path / "vendor" / "a.js").write_text("1")
    (tmp_path / "vendor" / "LICENSE").write_text("MIT")
    return StaticFiles(tmp_path)


def test_serves_a_file_with_its_type_and_a_policy(files: StaticFiles) -> None:
    answer = files.answer(make_mocked_request("GET", "/"), "vendor/a.js")
    assert answer.body == b"1"
    assert answer.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; script-src")
    assert "unsafe" not in answer.headers["Content-Security-Policy"]


def test_a_caller_that_holds_the_file_gets_304(files: StaticFiles) -> None:
    tag = files.answer(make_mocked_request("GET", "/"), "index.html").headers["ETag"]
    request = make_mocked_request("GET", "/", headers={"If-None-Match": tag})
    again = files.answer(request, "index.html")
    assert (again.status, again.body) == (304, None)


@pytest.mark.parametrize(
    "name",
    ["", "nothing.js", "vendor/LICENSE", "../index.html", "vendor/../index.html", "/etc/passwd"],
)
def test_only_the_names_read_at_the_start_exist(files: StaticFiles, name: str) -> None:
    with pytest.raises(NotFound):
        files.answer(make_mocked_request("GET", "/console/x"), name)


def test_reads_the_folder_once(files: StaticFiles, tmp_path: Path) -> None:
    (tmp_path / "later.js").write_text("2")
    assert set(files.names) == {"index.html", "vendor/a.js"}
    with pytest.raises(NotFound):
        files.answer(make_mocked_request("GET", "/"), "later.js")


def test_a_part_that_was_replaced_has_another_tag(files: StaticFiles) -> None:
    request = make_mocked_request("GET", "/")
    before = files.answer(request, "index.html").headers["ETag"]
    files.replace("index.html", b"doctype html", b"doctype  html")
    answer = files.answer(request, "index.html")
    assert answer.body == b"<!doctype  html>"
    assert answer.headers["ETag"] != before


@pytest.mark.parametrize("api_docs", [True, False])
async def test_the_console_links_to_the_documentation_if_there_is_one(
    open_store: Opened, api_docs: bool
) -> None:
    store = await open_store(console=True, api_docs=api_docs)
    page = await store.send("GET", "/")
    docs = await store.send("GET", "/docs")
    assert (b'href="/docs"' in page.body) == api_docs == (docs.status == 200)
