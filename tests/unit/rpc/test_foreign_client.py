"""Clients that nobody here wrote: grpc-js, with the protocols as published."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from central_stub.testing import TestCentral
from store_cache.testing import TestStore
from tests.unit.rpc.conftest import SETTINGS, TEA, Shop

FOLDER = Path(__file__).parent / "javascript"
PROTO = Path(__file__).parents[3] / "proto"

PACKAGES = ("@grpc/grpc-js", "grpc-health-check", "grpc-js-reflection-client")
IS_INSTALLED = shutil.which("node") and all(
    (FOLDER / "node_modules" / name).is_dir() for name in PACKAGES
)
pytestmark = pytest.mark.skipif(not IS_INSTALLED, reason=f"no node, or no `npm ci` in {FOLDER}")


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


def test_an_explorer_reads_health_and_reflection(central: TestCentral) -> None:
    """The health changes with readiness, and reflection alone is enough to call the store."""
    central.stop()
    with (
        TestStore(central, in_sync_within_seconds=None, **SETTINGS) as store,
        subprocess.Popen(
            ["node", "explorer.js", store.grpc_address, "till-key"],
            cwd=FOLDER,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as explorer,
    ):
        try:
            assert explorer.stdout is not None
            assert "watching\n" == explorer.stdout.readline()
            central.start()
            told, problem = explorer.communicate(timeout=40)
        finally:
            explorer.kill()
    assert 0 == explorer.returncode, problem
    got = json.loads(told)

    assert ["NOT_SERVING", "SERVING"] == got["watched"]
    assert ({"status": "SERVING"}, {"code": 5}) == (got["store"], got["unknown"])
    ours = ["storecache.v1.Inventory", "storecache.v1.Sync"]
    assert ["grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection", *ours] == (
        got["services"]
    )
    assert ["ForceSync", "GetCacheStats", "GetStatus"] == got["methods"]
    assert TEA == {name: got["product"][name] for name in TEA}
