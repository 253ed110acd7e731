"""docs/grpc.md: its client runs, and its table of errors is complete."""

from __future__ import annotations

import re
from typing import Any

from central_stub.testing import TestCentral
from store_cache.rpc.errors import CODES
from store_cache.testing import TestStore
from tests.docs.pages import DOCS, blocks

PAGE = DOCS / "grpc.md"


def test_the_client_of_the_page_sells_and_watches() -> None:
    (script,) = blocks(PAGE, "python")
    with (
        TestCentral([{"productId": "TEA-001", "available": 40}]) as central,
        TestStore(central, grpc_port=0) as store,
    ):
        names: dict[str, Any] = {"address": store.grpc_address}
        exec(script, names)

        assert 39 == central.products()["TEA-001"]["available"]


def test_the_page_names_the_status_of_every_error_code() -> None:
    told = {
        code: status
        for codes, status in re.findall(r"^\| (`.+`) \| ([A-Z_]+)", PAGE.read_text(), re.MULTILINE)
        for code in re.findall(r"`(\w+)`", codes)
    }
    assert told == {code: status.name for code, status in CODES.items()}
