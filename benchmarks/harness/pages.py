"""Write results: a page, plots and raw figures for each benchmark, and the index of all.

    docs/benchmarks/<name>.md, <name>-<n>.png      written by that benchmark alone
    docs/evidence/benchmarks/<name>.json           its raw figures
    docs/benchmarks.md                             made from all the raw figures

A benchmark that did not run keeps its page and its row of the index.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from benchmarks.harness.plots import draw
from benchmarks.harness.results import Part, Result
from benchmarks.harness.tables import goal_row, joined, page_text, table

INTRODUCTION = """# Benchmarks

`make bench` writes this page from the runs in [evidence/benchmarks/](evidence/benchmarks/); no
figure is typed by hand. Candidates take turns in one run. What is measured has one core, what asks
it has the other. Read the ratios: absolute figures differ from machine to machine.

A ratio is the median of the ratios of each round. The spread is the distance between the quartiles
of the rounds as a share of their median: the largest of the ratio's own and both candidates'. If a
difference is not larger than the spread, no ratio is shown. A goal is met or not met if it is
further away than the spread, or if every round lies on the same side of it; otherwise it *cannot be
told*. Peers that are not Python packages (Debian: `wrk`, `nginx-light`, `mosquitto`) must be
installed; each page names those that were missing.
"""


def write(result: Result, docs: Path) -> None:
    """Write the benchmark's page, plots and figures, replacing its earlier ones; then the index."""
    folder = docs / "benchmarks"
    raw = docs / "evidence" / "benchmarks"
    folder.mkdir(exist_ok=True)
    raw.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"{result.name}-[0-9]*.png"):
        old.unlink()
    plots = [plot(part, folder, f"{result.name}-{n}.png") for n, part in enumerate(result.parts, 1)]
    (folder / f"{result.name}.md").write_text(page_text(result, plots), encoding="utf-8")
    (raw / f"{result.name}.json").write_text(result.model_dump_json(indent=1) + "\n")
    write_index(docs)


def plot(part: Part, folder: Path, name: str) -> str | None:
    return name if draw(part, folder / name) else None


def write_index(docs: Path) -> None:
    kept = sorted((docs / "evidence" / "benchmarks").glob("*.json"))
    results = [Result.model_validate_json(path.read_bytes()) for path in kept]
    (docs / "benchmarks.md").write_text(index_text(results), encoding="utf-8")


def index_text(results: Iterable[Result]) -> str:
    """All the goals and what they came to, and where more is said."""
    found = list(results)
    rows = [
        (f"[{result.name}](benchmarks/{result.name}.md)", part.title, *goal_row(goal, part.rounds))
        for result in found
        for part, goal in result.judged()
    ]
    head = ("benchmark", "what", "goal", "found", "outcome")
    runs = [
        (f"[{result.title}](benchmarks/{result.name}.md)", "<br>".join(result.seen))
        for result in found
    ]
    return (
        joined(
            INTRODUCTION,
            "## Goals",
            table(head, rows),
            "## Runs",
            table(("page", "seen"), runs),
        )
        + "\n"
    )
