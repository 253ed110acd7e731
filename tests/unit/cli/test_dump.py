"""`store-cache dump`: a file that is whole, or no file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web

from store_cache.cli.main import main
from tests.harness.clients import STORE_ADMIN_KEY, TILL_KEY
from tests.harness.store import a_store

Captured = pytest.CaptureFixture[Any]
HEAD = b'{"generation":"g-1","offset":3,"products":2}\n'
ROWS = b'{"productId":"A"}\n{"productId":"B"}\n'


async def dumped(url: str, file: Path | str, key: str = STORE_ADMIN_KEY) -> int:
    arguments = ("dump", str(file), "--url", url, "--key", key)
    return await asyncio.to_thread(main, arguments)


def files_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())


@asynccontextmanager
async def answering(body: bytes, *, is_whole: bool = True) -> AsyncIterator[str]:
    """Something that answers a dump with `body`, and breaks off if that is not whole."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(body)
        if not is_whole and request.transport is not None:
            request.transport.close()
        return response

    app = web.Application()
    app.router.add_get("/v1/store/inventory/dump", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_a_dump_is_written_into_a_file(tmp_path: Path, capfd: Captured) -> None:
    file = tmp_path / "stock.jsonl"
    file.write_bytes(b"yesterday's")
    async with a_store() as store, store.served() as url:
        await store.until("live")
        assert 0 == await dumped(url, file)
        assert store.parts.writer.catalogue is not None
        rows = list(store.parts.writer.catalogue.rows.values())

    head, *lines = file.read_bytes().splitlines()
    assert {"generation": "g-1", "offset": 3, "products": 3} == orjson.loads(head)
    assert rows == lines
    assert [file] == files_in(tmp_path)
    assert "3 products at g-1, offset 3" in capfd.readouterr().err


async def test_a_dump_goes_to_standard_output(capfdbinary: Captured) -> None:
    async with answering(HEAD + ROWS) as url:
        assert 0 == await dumped(url, "-")
    assert HEAD + ROWS == capfdbinary.readouterr().out


@pytest.mark.parametrize(
    ("body", "is_whole", "said"),
    [
        (HEAD + ROWS, False, "no store answers"),
        (HEAD + ROWS[:-1], True, "sent 1 of 2 products"),
        (HEAD, True, "sent 0 of 2 products"),
        (b"<html>\n", True, "no dump"),
        (b"", True, "no dump"),
    ],
)
async def test_a_dump_that_is_cut_off_leaves_the_file_as_it_was(
    tmp_path: Path, capfd: Captured, body: bytes, is_whole: bool, said: str
) -> None:
    file = tmp_path / "stock.jsonl"
    file.write_bytes(b"yesterday's")
    async with answering(body, is_whole=is_whole) as url:
        assert 1 == await dumped(url, file)
    assert b"yesterday's" == file.read_bytes()
    assert [file] == files_in(tmp_path)
    assert said in str(capfd.readouterr().err)


async def test_a_file_that_cannot_be_written_is_named(tmp_path: Path, capfd: Captured) -> None:
    async with answering(HEAD + ROWS) as url:
        assert 1 == await dumped(url, tmp_path / "missing" / "stock.jsonl")
    assert "cannot be written: No such file or directory" in str(capfd.readouterr().err)


async def test_a_tills_key_is_refused_and_leaves_no_file(tmp_path: Path, capfd: Captured) -> None:
    async with a_store() as store, store.served() as url:
        await store.until("live")
        assert 1 == await dumped(url, tmp_path / "stock.jsonl", key=TILL_KEY)
    assert "403 forbidden" in str(capfd.readouterr().err)
    assert [] == files_in(tmp_path)
