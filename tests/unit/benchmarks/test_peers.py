"""The peers of the benchmarks answer what a store answers."""

from pathlib import Path

import httpx
import orjson
import pytest

from benchmarks.harness.processes import KEY
from benchmarks.harness.rows import page_body, product_id, row
from benchmarks.peers import fastapi_store, nginx


@pytest.fixture
def sixty_products(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {product_id(n): fastapi_store.Product(**row(n)) for n in range(60)}
    monkeypatch.setattr(fastapi_store, "PRODUCTS", rows)
    monkeypatch.setattr(fastapi_store, "IDS", sorted(rows))


async def ask(path: str, key: str = KEY) -> httpx.Response:
    transport = httpx.ASGITransport(fastapi_store.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://peer") as client:
        return await client.get("/v1/store/inventory" + path, headers={"X-API-Key": key})


@pytest.mark.usefixtures("sixty_products")
async def test_the_fastapi_peer_answers_what_a_store_does() -> None:
    """It serves single rows and pages, and checks the key."""
    page = (await ask("?offset=5&limit=50")).json()
    expected = orjson.loads(page_body(5, 60))

    assert row(7) == (await ask(f"/{product_id(7)}")).json()
    assert {name: expected[name] for name in ("products", "pagination")} == page
    assert [404, 401] == [
        (await ask("/PROD-9")).status_code,
        (await ask(f"/{product_id(7)}", "another")).status_code,
    ]


@pytest.mark.parametrize(("allowed", "is_held"), [(20_000, False), (200_000, True)])
def test_nginx_keeps_files_open_only_if_the_limit_allows_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, allowed: int, is_held: bool
) -> None:
    """Its cache would otherwise take the descriptors that connections need, which gives a 500."""

    def refuse(_kind: int, _limits: tuple[int, int]) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr("resource.getrlimit", lambda _: (allowed, allowed))
    monkeypatch.setattr("resource.setrlimit", refuse)

    assert is_held == ("open_file_cache max=102000 " in nginx.configuration(tmp_path, 80, 100_000))
