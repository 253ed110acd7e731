"""The examples of the document: requests, and answers that a store gave to them.

`examples.json` is recorded by `python -m tests.golden.record`; a test compares it with what a store
answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Self

import orjson


@dataclass(frozen=True, slots=True)
class Examples:
    """`errors` by code; `operations` by id, each with `requests` by name and `answers` by status
    and name."""

    errors: Mapping[str, Any]
    operations: Mapping[str, Mapping[str, Any]]

    @classmethod
    def load(cls) -> Self:
        value = orjson.loads(files(__package__).joinpath("examples.json").read_bytes())
        return cls(value["errors"], value["operations"])

    def requests(self, operation_id: str) -> Mapping[str, Any]:
        return dict(self.operations.get(operation_id, {}).get("requests", {}))

    def answers(self, operation_id: str, status: int) -> Mapping[str, Any]:
        return dict(self.operations.get(operation_id, {}).get("answers", {}).get(str(status), {}))
