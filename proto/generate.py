"""Generate the Python code of the protocol: `make proto`, or `python proto/generate.py FOLDER`.

protoc imports the module of the messages by its path below `proto/`; here it is part of the
package `store_cache.rpc.generated`.
"""

from __future__ import annotations

import os
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

PROTO = Path(__file__).parent
SOURCE = "storecache/v1/inventory.proto"
COMMITTED = PROTO.parent / "store_cache" / "rpc" / "generated"


def generate(folder: Path) -> None:
    """Write the modules and their types into the folder. Raises RuntimeError if protoc fails."""
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with tempfile.TemporaryDirectory() as made:
        outputs = ("python", "grpc_python", "mypy", "mypy_grpc")
        arguments = [f"--{name}_out={'quiet:' * name.startswith('mypy')}{made}" for name in outputs]
        includes = [f"-I{PROTO}", f"-I{files('grpc_tools') / '_proto'}"]
        if protoc.main(["protoc", *includes, *arguments, SOURCE]):
            raise RuntimeError("protoc failed; what it printed says why")
        for module in (Path(made) / SOURCE).parent.iterdir():
            text = module.read_text().replace(
                "from storecache.v1 import", "from store_cache.rpc.generated import"
            )
            (folder / module.name).write_text(text)


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else COMMITTED)
