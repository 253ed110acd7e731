"""Draw mutants: small changes of the code, as cosmic-ray makes them, each at a place of its own.

A place is drawn first and one of its mutations then: an arithmetic operator has eleven, and would
otherwise be most of the sample. Annotations are left out, since nothing evaluates them, and so are
decorators (`slots=True`).
"""

from __future__ import annotations

import difflib
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator, operator_names

SUBJECTS = (
    "store_cache/sync",
    "store_cache/catalogue",
    "store_cache/writes",
    "store_cache/writer.py",
    "store_cache/storage",
)
LEFT_OUT = re.compile(
    "core/(NoOp|RemoveDecorator|ReplaceComparisonOperator_(Eq|NotEq|Lt|LtE|Gt|GtE)_Is(Not)?)$"
)
"""Operators that change nothing, or take a decorator without which no module can be imported, or
ask for the identity of numbers, which is an accident of the interpreter."""

ANNOTATIONS = {"annassign", "tfpdef", "param"}
GUARDS = {"strict"}
"""Arguments that only say what never happens (`zip(…, strict=True)`)."""

Place = tuple[int, int]
"""Line and column."""


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


def difference(before: str, after: str) -> str:
    """Return the lines that differ, as a diff without a head and surroundings."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
    return "\n".join(line for line in lines if not line.startswith(("---", "+++", "@@")))


def drawn(root: Path, seed: int, paths: Sequence[str] = SUBJECTS) -> Iterator[Mutant]:
    """Yield mutants of these files and folders, one a place, in an order that `seed` fixes."""
    chance = random.Random(seed)
    places = [
        (path, place, mutants)
        for path in _modules(root, paths)
        for place, mutants in _mutants(root, path).items()
    ]
    chance.shuffle(places)
    for _, _, mutants in places:
        yield chance.choice(mutants)


def _modules(root: Path, paths: Sequence[str]) -> Iterator[str]:
    for path in paths:
        whole = root / path
        files = [whole] if whole.is_file() else sorted(whole.rglob("*.py"))
        yield from (file.relative_to(root).as_posix() for file in files)


def _mutants(root: Path, path: str) -> dict[Place, list[Mutant]]:
    """Return all mutants of a module by the place that they change."""
    nodes = list(ast_nodes(get_ast((root / path).read_text())))
    found: dict[Place, list[Mutant]] = {}
    for name, operator in _operators().items():
        positions = ((node, at) for node in nodes for at, _ in operator.mutation_positions(node))
        for occurrence, (node, place) in enumerate(positions):
            if not _is_left_out(node):
                found.setdefault(place, []).append(Mutant(path, place[0], name, occurrence))
    return dict(sorted(found.items()))


def _is_left_out(node: object) -> bool:
    """Return whether a node of the syntax tree lies in an annotation, a decorator or a guard."""
    child, parent = node, getattr(node, "parent", None)
    while parent is not None:
        children = parent.children
        if parent.type in ANNOTATIONS and "=" not in children[: children.index(child)]:
            return True
        if parent.type == "funcdef" and child is parent.annotation:
            return True
        if parent.type == "decorator" or (
            parent.type == "argument" and getattr(parent.children[0], "value", "") in GUARDS
        ):
            return True
        child, parent = parent, parent.parent
    return False


@cache
def _operators() -> dict[str, Operator]:
    """Return the tool's operators that need no arguments, by name."""
    classes = {name: get_operator(name) for name in sorted(operator_names())}
    return {
        name: operator()
        for name, operator in classes.items()
        if not LEFT_OUT.match(name) and not operator.arguments()
    }
