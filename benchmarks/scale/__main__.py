"""Write the tables and plots of docs/scale.md.

    python -m benchmarks.scale

Everything is counted, or simulated in virtual time from seeds: the same code writes the same page.
"""

from __future__ import annotations

import argparse
import gc
import logging
import sys
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from benchmarks.scale import page, plots, sizes
from benchmarks.scale.outage import Outage, Return, play
from benchmarks.scale.plan import CASES, CHAIN, EVENTS, MODES
from benchmarks.scale.steady import habit

DOCS = Path(__file__).parent.parent.parent / "docs"
CAPACITIES = (100.0, 1_000.0, 10_000.0)


def played(outages: Mapping[str, Outage], pool: ProcessPoolExecutor) -> dict[str, Return]:
    return dict(zip(outages, pool.map(play, outages.values()), strict=True))


def prepare() -> None:
    """Disable the log of ten thousand stores, and most garbage collections."""
    logging.disable(logging.CRITICAL)
    gc.set_threshold(500_000, 20, 100)


def main() -> int:
    argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__).parse_args()
    prepare()
    folder = DOCS / "scale"
    folder.mkdir(exist_ok=True)
    habits = {mode: {e: habit(pace, e) for e in EVENTS} for mode, pace in MODES.items()}
    found = sizes.measure()
    tables = {
        "sizes": page.sizes_table(found),
        "steady": page.steady_table(found, habits),
        "full syncs": page.full_sync_table(found),
        "carried": page.carried_table(habits, CAPACITIES),
    }
    plots.draw_polls(habits, folder / "polls.png", stores=CHAIN)
    with ProcessPoolExecutor(2, initializer=prepare) as pool:
        for name, case in CASES.items():
            print(f"-- {name}", file=sys.stderr, flush=True)
            returns = played(case.outages, pool)
            tables[name] = page.return_table(returns, of=case.of)
            if case.is_drawn:
                file = folder / f"{name.replace(' ', '-')}.png"
                plots.draw_return(returns, file, title=case.title, of=case.of)
    page.write(DOCS / "scale.md", tables)
    return 0


if __name__ == "__main__":
    sys.exit(main())
