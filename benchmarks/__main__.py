"""The command: which benchmarks to run, with how much effort, and where results go."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
import tempfile
from pathlib import Path

from benchmarks import experiments
from benchmarks.harness import machine, pages
from benchmarks.harness.measuring import Benchmark, Effort
from benchmarks.harness.results import Result
from benchmarks.harness.tables import page_text
from tests.harness.commands import run_to_end

DOCS = machine.ROOT / "docs"
MODULES = [info.name for info in pkgutil.iter_modules(experiments.__path__)]


def named(name: str) -> Benchmark | None:
    """Return the `BENCHMARK` of an experiment; None if there is none of that name."""
    if name not in MODULES:
        return None
    found = getattr(importlib.import_module(f"benchmarks.experiments.{name}"), "BENCHMARK", None)
    return found if isinstance(found, Benchmark) else None


def chosen(names: list[str]) -> list[Benchmark]:
    """Return those, or all. Raises LookupError for an unknown name."""
    found = {name: benchmark for name in names or MODULES if (benchmark := named(name))}
    if unknown := [name for name in names if name not in found]:
        there = ", ".join(name for name in MODULES if named(name))
        raise LookupError(f"no benchmark is named {', '.join(unknown)}; there are {there}")
    return list(found.values())


async def run(benchmark: Benchmark, *, quick: bool) -> Result:
    """Measure, in a folder that is removed afterwards."""
    seen = machine.seen()
    with tempfile.TemporaryDirectory(prefix="store-cache-bench-") as folder:
        effort = Effort(Path(folder))
        if quick:
            effort = Effort(Path(folder), rounds=3, turns=1, quick=True)
        parts = await benchmark.measure(effort)
    return Result(
        name=benchmark.name, title=benchmark.title, about=benchmark.about, seen=seen, parts=parts
    )


async def run_all(these: list[Benchmark], *, quick: bool) -> None:
    for benchmark in these:
        print(f"-- {benchmark.name}: {benchmark.title}", file=sys.stderr, flush=True)
        result = await run(benchmark, quick=quick)
        print(page_text(result, [None] * len(result.parts)), flush=True)
        if not quick:
            pages.write(result, DOCS)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="a benchmark; none: all of them")
    parser.add_argument("--quick", action="store_true", help="short rounds; no page is written")
    options = parser.parse_args()
    try:
        these = chosen(options.names)
    except LookupError as exc:
        parser.error(str(exc))
    machine.pin_to(machine.LOAD_CORE)
    try:
        run_to_end(run_all(these, quick=options.quick))
    except KeyboardInterrupt:
        print("stopped; what had been measured to its end is kept", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
