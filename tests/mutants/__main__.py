"""Change the code at random places and see whether the tests notice: `make mutants`.

`--seed` fixes the sample. Each outcome is added to the file at once, and a mutant that is in it
already is not tried again: a run that was stopped goes on where it was.
"""

# ruff: noqa: T201 - a command prints

from __future__ import annotations

import argparse
import sys
from collections import Counter
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import orjson

from tests.mutants.sample import SUBJECTS, Mutant, drawn
from tests.mutants.trial import STILLBORN, SURVIVED, Outcome, copied

ROOT = Path(__file__).parents[2]


def main() -> int:
    told = _parser().parse_args()
    file: Path = told.to
    file.parent.mkdir(parents=True, exist_ok=True)
    known = _known(file)
    with copied(ROOT) as copy, file.open("ab") as kept:
        sample = list(islice(drawn(copy.root, told.seed, told.paths or SUBJECTS), told.mutants))
        if told.survivors:
            sample = [mutant for mutant in sample if known.get(mutant) == SURVIVED]
            known = {}
        for mutant in (mutant for mutant in sample if mutant not in known):
            outcome = copy.tried(mutant)
            kept.write(orjson.dumps(asdict(outcome)) + b"\n")
            kept.flush()
            _show(outcome)
    return _summarise(sample, _known(file))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("paths", nargs="*", help="files and folders to change; else all subjects")
    parser.add_argument("--seed", type=int, default=1, help="which sample")
    parser.add_argument("--mutants", type=int, default=200, help="how many")
    parser.add_argument("--survivors", action="store_true", help="try only those that survived")
    parser.add_argument("--to", type=Path, default=Path("build/mutants.jsonl"), metavar="FILE")
    return parser


def _known(file: Path) -> dict[Mutant, str]:
    """Return the newest outcome of each mutant."""
    lines = file.read_bytes().splitlines() if file.exists() else []
    told = [orjson.loads(line) for line in lines]
    return {Mutant(**one["mutant"]): one["by"] for one in told}


def _show(outcome: Outcome) -> None:
    mutant = outcome.mutant
    print(f"{mutant.path}:{mutant.line} {outcome.by}: {outcome.said}")
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
