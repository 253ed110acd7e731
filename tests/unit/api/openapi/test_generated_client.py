"""A till whose client is generated from the API's description, with a real store."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from importlib import import_module
from typing import Any

import orjson
import pytest

from tests.harness.api_document import published_document
from tests.harness.central import LedgerTransport
from tests.harness.clients import TILL_KEY
from tests.harness.clock import Clock
from tests.harness.store import a_store

PACKAGE = "generated_store_client"
GREEN_TEA = "tea/green 50%"

CONFIGURATION = {
    "post_hooks": [],  # they would only format it
    "content_type_overrides": {"application/x-ndjson": "application/octet-stream"},
}

pytestmark = [pytest.mark.slow]

Generated = Callable[[str], Any]


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Generated]:
    """Generate a client; the function returns a module of it."""
    folder = tmp_path_factory.mktemp("client")
    (folder / "openapi.json").write_bytes(orjson.dumps(published_document()))
    (folder / "config.yaml").write_bytes(orjson.dumps(CONFIGURATION))
    options = ("--config", "config.yaml", "--meta", "none", "--output-path", PACKAGE)
    command = (sys.executable, "-m", "openapi_python_client", "generate", "--fail-on-warning")
    made = subprocess.run(
        [*command, "--path", "openapi.json", *options],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    sys.path.insert(0, str(folder))
    yield lambda name: import_module(f"{PACKAGE}.{name}")
    sys.path.remove(str(folder))


@pytest.fixture
async def address() -> AsyncIterator[str]:
    """A store in sync with a Central of four products."""
    central = LedgerTransport(Clock(), "P-1", "P-2", "P-3", GREEN_TEA)
    async with a_store(central=central) as store:
        await store.until("live")
        async with store.served() as url:
            yield url


async def test_it_lists_reads_and_sells(generated: Generated, address: str) -> None:
    """The calls of a till by its functions, with ids of any characters."""
    models = generated("models")
    client = generated("client").AuthenticatedClient(
        base_url=address, token=TILL_KEY, prefix="", auth_header_name="X-API-Key"
    )
    async with client:
        page = await generated("api.reading.list_products").asyncio(client=client, limit=3)
        assert page.pagination.total == 4
        assert [product.product_id for product in page.products] == ["P-1", "P-2", "P-3"]

        product = await generated("api.reading.read_product").asyncio(GREEN_TEA, client=client)
        assert (product.product_id, product.available) == (GREEN_TEA, 10)

        basket = await generated("api.reading.look_up_products").asyncio(
            client=client, body=models.LookupBody(product_ids=["P-2", "P-9"])
        )
        assert [one.product_id for one in basket.products] == ["P-2"]
        assert basket.missing == ["P-9"]

        sold = await generated("api.writing.adjust_inventory").asyncio(
            GREEN_TEA,
            client=client,
            body=models.AdjustmentBody(quantity_change=-3),
            idempotency_key="sale-1",
        )
        assert (sold.applied, sold.new_quantity) == (True, 7)

        refused = await generated("api.writing.update_inventory").asyncio(
            client=client,
            body=models.UpdateBody(
                product_id=GREEN_TEA, delta=-1, version=product.version, idempotency_key="sale-2"
            ),
        )
        assert (refused.applied, refused.error_type) == (False, "version_conflict")
        assert refused.new_version == sold.new_version

        status = await generated("api.sync_and_cache.read_sync_status").asyncio(client=client)
        assert status.state.name == "live"


async def test_it_reads_errors(generated: Generated, address: str) -> None:
    """A call without a right key, and a product that is not there."""
    read_product = generated("api.reading.read_product")
    guest = generated("client").AuthenticatedClient(
        base_url=address, token="guess", prefix="", auth_header_name="X-API-Key"
    )
    async with guest:
        answer = await read_product.asyncio_detailed("P-1", client=guest)
        assert (answer.status_code, answer.parsed.error.code) == (401, "unauthorized")

    till = generated("client").AuthenticatedClient(
        base_url=address, token=TILL_KEY, prefix="", auth_header_name="X-API-Key"
    )
    async with till:
        answer = await read_product.asyncio_detailed("P-9", client=till)
        assert (answer.status_code, answer.parsed.error.code) == (404, "product_not_found")
        assert answer.parsed.error.details["productId"] == "P-9"
