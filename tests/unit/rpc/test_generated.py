"""The generated code is that of the protocol, and is imported only where gRPC is served."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
COMMITTED = ROOT / "store_cache" / "rpc" / "generated"


def test_the_generated_code_is_not_stale(tmp_path: Path) -> None:
    """If this fails, run `make proto`."""
    subprocess.run(
        [sys.executable, ROOT / "proto" / "generate.py", tmp_path], check=True, timeout=60
    )
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}

    assert made == {path.name: path.read_text() for path in COMMITTED.glob("inventory_pb2*")}


def test_without_a_port_nothing_of_grpc_is_imported() -> None:
    script = (
        "import sys\n"
        "import store_cache.cli.main, store_cache.app.serve, store_cache.testing\n"
        "assert not {'grpc', 'google.protobuf', 'store_cache.rpc'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)
