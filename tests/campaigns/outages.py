"""Everything that can happen to Central, one after the other, with the real catalogue.

    python -m tests.campaigns.outages --data ../shared/data

Central is stopped, killed, restarted with a log too short, replaced by a new generation, restored
to an earlier state with offsets reused, and wiped and grown past the position; with and without a
named generation. Each time a till sells and somebody reads; the store must be in sync again within
10 s of Central's return, with one full sync where one was needed and none where not, and its status
must say why. Exits with 1 where anything is not as it must be. The outages are those that
`tests/scenarios/test_outages.py` plays in virtual time.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from tests.campaigns.command import main
from tests.harness.clients import Row
from tests.scenarios.outages import OUTAGES, Outage, play, problems
from tests.scenarios.shop import a_shop_of_processes, product


async def case(folder: Path, catalogue: list[Row], *, outage: Outage) -> tuple[str, list[str]]:
    products = [*map(product, range(20)), *catalogue]
    async with a_shop_of_processes(folder, products, outage.before) as shop:
        await shop.store.start("/ready")
        played = await play(shop, outage)
    reads, sales = played.reads, played.sales
    said = (
        f"in sync after {played.in_sync_after_seconds:4.1f} s, full syncs {played.reasons or 0}, "
        f"reads {reads.answered} (slowest {reads.slowest_seconds * 1000:.0f} ms), "
        f"sales {sales.applied}, not applied {sales.others}"
    )
    return said, problems(outage, played)


CASES = {name: partial(case, outage=outage) for name, outage in OUTAGES.items()}

if __name__ == "__main__":
    sys.exit(main(__doc__, CASES))
