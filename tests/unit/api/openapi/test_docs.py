"""The page of the API's description: its files, and how they are served."""

from __future__ import annotations

import re
from pathlib import Path

from hatchling.builders.wheel import WheelBuilder

from tests.unit.api.conftest import Opened, Store

FOLDER = "store_cache/api/openapi/swagger_ui"
ADDRESS = re.compile(r'(?:src|href)="([^"]+)"')


async def opened(open_store: Opened) -> Store:
    return await open_store(api_docs=True)


async def test_the_page_and_what_it_loads_need_no_key(open_store: Opened) -> None:
    """All of it comes from the store, with a tag, under a policy that forbids other addresses."""
    store = await opened(open_store)
    page = await store.send("GET", "/docs")
    addresses = ADDRESS.findall(page.body.decode())
    files = [await store.send("GET", f"/{address}") for address in addresses]

    assert len(addresses) >= 4
    assert {200} == {file.status for file in [page, *files]}
    assert not [address for address in addresses if ":" in address or address.startswith("/")]
    for file in (page, *(file for file in files if "json" not in file.headers["Content-Type"])):
        assert "default-src 'none'" in file.headers["Content-Security-Policy"]
        assert "unsafe" not in file.headers["Content-Security-Policy"]
        assert file.headers["ETag"]


async def test_a_file_is_not_sent_twice(open_store: Opened) -> None:
    """A browser that holds it gets 304; a HEAD gets its headers alone."""
    store = await opened(open_store)
    target = "/docs/vendor/swagger-ui.css"
    file = await store.send("GET", target)
    again = await store.send("GET", target, headers={"If-None-Match": file.headers["ETag"]})
    head = await store.send("HEAD", target)

    assert (304, b"") == (again.status, again.body)
    assert (200, file.headers["Content-Length"]) == (head.status, head.headers["Content-Length"])


async def test_there_is_nothing_else(open_store: Opened) -> None:
    """Licences and other folders are not served; without the setting, nothing is."""
    store = await opened(open_store)
    for name in ("vendor/LICENSE", "..%2fdocs.py", "", "vendor/"):
        assert 404 == (await store.send("GET", f"/docs/{name}")).status

    without = await open_store(api_docs=False)
    for target in ("/docs", "/docs/start.js", "/openapi.json"):
        assert 404 == (await without.send("GET", target)).status


def test_its_files_are_in_the_wheel(project_root: Path) -> None:
    """All of them, with the licence of what is vendored."""
    builder = WheelBuilder(str(project_root))
    packed = {file.distribution_path for file in builder.recurse_included_files()}
    present = {
        path.relative_to(project_root).as_posix()
        for path in (project_root / FOLDER).rglob("*")
        if path.is_file()
    }

    assert f"{FOLDER}/vendor/LICENSE" in present
    assert present <= packed
