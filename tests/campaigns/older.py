"""Older Centrals, each imitated by switches, with the real catalogue and writers at work.

    python -m tests.campaigns.older --data ../shared/data

One switch after the other, and all together: no generation, no `eventOffset`, no 410 but silent
truncation, pages capped at 50, polls not held, zeros left out, offsets and versions out of order,
100 requests a minute for everything, keys forgotten after seconds, errors in HTML. The store must
get its first sync through, be right at the end, have counted each sale once, and have run no other
full sync. Exits with 1 where anything is not as it must be. The Centrals are those that
`tests/scenarios/test_older.py` plays in virtual time.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

from central_stub.switches import Switches
from tests.campaigns.command import main
from tests.harness.clients import Row
from tests.scenarios.older import PRODUCTS, older, play, problems
from tests.scenarios.shop import a_shop_of_processes

SALES = 20
SETTINGS = {"SYNC_INTERVAL_SECONDS": "5", "WRITE_TIMEOUT_SECONDS": "60"}


async def case(
    folder: Path, catalogue: list[Row], *, switches: dict[str, Any]
) -> tuple[str, list[str]]:
    products, older_one = [*PRODUCTS, *catalogue], Switches.model_validate(switches)
    async with a_shop_of_processes(folder, products, older_one, **SETTINGS) as shop:
        played = await play(shop, sales=SALES)
    reads = played.reads
    said = (
        f"first sync {played.first_sync_seconds:5.1f} s, full syncs {len(played.reasons)}, "
        f"pieces sold {-played.sold.total()}, reads {reads.answered} "
        f"(slowest {reads.slowest_seconds * 1000:.0f} ms)"
    )
    return said, problems(played)


OLDER = older(page_limit=50, rate_limit=100, key_memory_seconds=2)
CASES = {name: partial(case, switches=switches) for name, switches in OLDER.items()}

if __name__ == "__main__":
    sys.exit(main(__doc__, CASES))
