"""A real store on a port, called at random by schemathesis as the API's description allows, and as
it does not."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import orjson

from tests.harness.api_document import EVERY_FEATURE, closed, published_document
from tests.harness.central import LedgerTransport
from tests.harness.clients import STORE_ADMIN_KEY
from tests.harness.clock import Clock
from tests.harness.store import a_store

STORE_ID = "store-s1"
PRODUCTS = ("PROD-001", "PROD-002", "PROD-003", "tea/green 50%")
CONFIG = Path(__file__).with_name("schemathesis.toml")
ROOT = CONFIG.parents[2]


async def call_at_random(folder: Path, *, examples: int, seed: int, phases: str) -> tuple[int, str]:
    """Return schemathesis's exit status and what it says. `folder`: for the description;
    `examples`: for each operation and phase.

    The description is closed: an answer with a field that it does not name is a failure.
    """
    described = folder / "openapi.json"
    described.write_bytes(orjson.dumps(closed(await asyncio.to_thread(published_document))))
    central = LedgerTransport(Clock(), *PRODUCTS)
    async with a_store(central=central, store_id=STORE_ID, **EVERY_FEATURE) as store:
        await store.until("live")
        async with store.served() as url:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run"),
                *(str(described), "--url", url, "--header", f"X-API-Key: {STORE_ADMIN_KEY}"),
                *("--phases", phases, "--max-examples", str(examples), "--seed", str(seed)),
                *("--warnings", "off", "--suppress-health-check", "all"),
                cwd=folder,  # it leaves files
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            try:
                said, _ = await process.communicate()
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        assert process.returncode is not None
        return process.returncode, said.decode()
