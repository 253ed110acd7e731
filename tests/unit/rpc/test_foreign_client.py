"""A client that nobody here wrote: grpc-js, with the protocol as published."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.unit.rpc.conftest import TEA, Shop

FOLDER = Path(__file__).parent / "javascript"
PROTO = Path(__file__).parents[3] / "proto"

IS_INSTALLED = shutil.which("node") and (FOLDER / "node_modules" / "@grpc" / "grpc-js").is_dir()


@pytest.mark.skipif(not IS_INSTALLED, reason=f"no node, or no `npm ci` in {FOLDER}")
def test_a_till_in_javascript_reads_watches_and_sells(shop: Shop) -> None:
    ran = subprocess.run(
        ["node", "client.js", shop.store.grpc_address, "till-key", str(PROTO)],
        cwd=FOLDER,
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert 0 == ran.returncode, ran.stderr
    got = json.loads(ran.stdout)

    assert TEA == {name: got["product"][name] for name in TEA}
    assert got["generation"]
    assert (["JAM-001", "MUG-001"], True) == (got["ids"], got["hasMore"])
    assert ["state", "product", "product", "product", "ready", "product"] == got["told"]
    assert {"code": 5, "details": "The store holds no such product"} == got["refusal"]
    assert got["hasDetails"]
    assert ["js-1"] == [
        sale.idempotency_key.removeprefix("store-test-") for sale in shop.central.sales()
    ]
