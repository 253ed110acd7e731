"""Write the schemas of the routes from the custom resource definitions in a folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

KINDS = ("httproutes", "grpcroutes")
VERSION = "v1"


def without_prose(schema: Any, *, is_names: bool = False) -> Any:
    """Return the schema without descriptions, defaults and what JSON Schema does not know.

    `is_names`: the keys are names of properties.
    """
    if isinstance(schema, list):
        return [without_prose(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: without_prose(value, is_names=key == "properties" and not is_names)
        for key, value in schema.items()
        if is_names or not (key in ("description", "default") or key.startswith("x-"))
    }


def main(folder: Path) -> None:
    for kind in KINDS:
        definition = yaml.safe_load((folder / f"gateway.networking.k8s.io_{kind}.yaml").read_text())
        [version] = [v for v in definition["spec"]["versions"] if v["name"] == VERSION]
        schema = without_prose(version["schema"]["openAPIV3Schema"])
        target = Path(__file__).with_name(f"{kind}.json")
        target.write_text(json.dumps(schema, separators=(",", ":"), sort_keys=True) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
