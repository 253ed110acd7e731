"""Change the code at random places and see whether the tests notice: `make mutants`.

`--seed` fixes the sample. Each outcome is added to the file at once, and a mutant that is in it
already is not tried again: a run that was stopped goes on where it was.
"""

# ruff: noqa: T201 - a command prints

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import orjson
import pytest

from tests.mutants.child import OPTIONS, import_libraries, move_to
from tests.mutants.reach import Reach
from tests.mutants.sample import SUBJECTS, Mutant, drawn
from tests.mutants.trial import STILLBORN, SURVIVED, Outcome, Trials, copied

ROOT = Path(__file__).parents[2]


def main() -> int:
    told = _parser().parse_args()
    file: Path = told.to.resolve()
    file.parent.mkdir(parents=True, exist_ok=True)
    import_libraries()
    with copied(ROOT) as copy:
        reach = Reach(copy, told.reach.resolve())
        reach.refresh()
        sample = list(drawn(copy, told.seed, told.each, told.paths or SUBJECTS))
        known = _known(file)
        if told.survivors:
            sample = [mutant for mutant in sample if known.get(mutant) == SURVIVED]
            known = {}
        left = [mutant for mutant in sample if mutant not in known]
        move_to(copy)
        trials = Trials(reach, left, keeper(file), told.seconds)
        pytest.main([*OPTIONS, *reach.test_files()], plugins=[trials])
    return _summarise(sample, _known(file))


def keeper(file: Path) -> Callable[[Outcome], None]:
    """Return what writes an outcome to a file and to the screen."""

    def keep(outcome: Outcome) -> None:
        with file.open("ab") as kept:
            kept.write(orjson.dumps(asdict(outcome)) + b"\n")
        _show(outcome)

    return keep


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("paths", nargs="*", help="files and folders to change; else all subjects")
    parser.add_argument("--seed", type=int, default=1, help="which sample")
    parser.add_argument("--each", type=int, default=8, help="how many of each module")
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="of the processor for each stage of tests"
    )
    parser.add_argument("--survivors", action="store_true", help="try only those that survived")
    parser.add_argument("--to", type=Path, default=Path("build/mutants.jsonl"), metavar="FILE")
    parser.add_argument(
        "--reach",
        type=Path,
        default=Path("build/reach"),
        metavar="FOLDER",
        help="where it keeps which tests run a line",
    )
    return parser


def _known(file: Path) -> dict[Mutant, str]:
    """Return the newest outcome of each mutant."""
    lines = file.read_bytes().splitlines() if file.exists() else []
    told = [orjson.loads(line) for line in lines]
    return {Mutant(**one["mutant"]): one["by"] for one in told}


def _show(outcome: Outcome) -> None:
    mutant = outcome.mutant
    print(f"{mutant.path}:{mutant.line} {outcome.by} {outcome.test}: {outcome.said}")
    if outcome.by == SURVIVED:
        print(outcome.change)
    sys.stdout.flush()


def _summarise(sample: list[Mutant], outcomes: dict[Mutant, str]) -> int:
    count = Counter(outcomes[mutant] for mutant in sample)
    born = len(sample) - count[STILLBORN]
    for name, number in count.most_common():
        print(f"  {name:24} {number}")
    print(f"{count[SURVIVED]} of {born} mutants survived ({count[SURVIVED] / max(born, 1):.1%})")
    return 1 if count[SURVIVED] else 0


if __name__ == "__main__":
    sys.exit(main())
