"""Draw mutants: small changes of the code, as cosmic-ray makes them, each at a place of its own.

A place is drawn first and one of its mutations then: an arithmetic operator has eleven, and would
otherwise be most of the sample. What decides nothing is left out, see `idle_spans`.
"""

from __future__ import annotations

import difflib
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator, operator_names

from tests.mutants.code import Place, idle_spans

SUBJECTS = (
    "store_cache/writes",
    "store_cache/writer.py",
    "store_cache/storage",
    "store_cache/catalogue",
    "store_cache/sync",
)
LEFT_OUT = re.compile(
    "core/(NoOp|RemoveDecorator|ReplaceComparisonOperator_(Eq|NotEq|Lt|LtE|Gt|GtE)_Is(Not)?)$"
)
"""Operators that change nothing, or take a decorator without which no module can be imported, or
ask for the identity of numbers, which is an accident of the interpreter."""


@dataclass(frozen=True)
class Mutant:
    """`path` is relative to the project; `occurrence` counts within the operator and the file."""

    path: str
    line: int
    operator: str
    occurrence: int

    def code(self, source: str) -> str:
        """Return the module with this change. Raises ValueError if it cannot be made."""
        changed = mutate_code(source, _operators()[self.operator], self.occurrence)
        if changed is None or changed == source:
            raise ValueError(f"{self} changes nothing")
        return str(changed)

    def is_code(self, source: str) -> bool:
        """Return whether the change is Python at all: not if `*` stands before keywords only."""
        try:
            compile(self.code(source), self.path, "exec")
        except (SyntaxError, ValueError):
            return False
        return True


def difference(before: str, after: str) -> str:
    """Return the lines that differ, as a diff without a head and surroundings."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
    return "\n".join(line for line in lines if not line.startswith(("---", "+++", "@@")))


def drawn(root: Path, seed: int, each: int, paths: Sequence[str] = SUBJECTS) -> Iterator[Mutant]:
    """Yield so many mutants of each module of these files and folders, one a place.

    `seed` fixes which, whatever else is drawn from; a larger `each` adds to them.
    """
    for path in modules(root, paths):
        chance = random.Random(f"{seed}/{path}")
        source = (root / path).read_text()
        places = list(_mutants(source, path).values())
        chance.shuffle(places)
        chosen = map(chance.choice, places)
        yield from islice((mutant for mutant in chosen if mutant.is_code(source)), each)


def modules(root: Path, paths: Sequence[str]) -> Iterator[str]:
    for path in paths:
        whole = root / path
        files = [whole] if whole.is_file() else sorted(whole.rglob("*.py"))
        yield from (file.relative_to(root).as_posix() for file in files)


def _mutants(source: str, path: str) -> dict[Place, list[Mutant]]:
    """Return all mutants of a module by the place that they change."""
    nodes = list(ast_nodes(get_ast(source)))
    idle = idle_spans(source)
    found: dict[Place, list[Mutant]] = {}
    for name, operator in _operators().items():
        places = (at for node in nodes for at, _ in operator.mutation_positions(node))
        for occurrence, place in enumerate(places):
            if not any(begin <= place < end for begin, end in idle):
                found.setdefault(place, []).append(Mutant(path, place[0], name, occurrence))
    return dict(sorted(found.items()))


@cache
def _operators() -> dict[str, Operator]:
    """Return the tool's operators that need no arguments, by name."""
    classes = {name: get_operator(name) for name in sorted(operator_names())}
    return {
        name: operator()
        for name, operator in classes.items()
        if not LEFT_OUT.match(name) and not operator.arguments()
    }
