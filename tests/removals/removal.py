"""Removals: a safeguard of the product is taken out, from outside, for as long as a block lasts.

A removal whose safeguard would never have acted in a run proves nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

Owner = ModuleType | type


class Stale(Exception):
    """What a removal replaces is gone: the product has changed, and so must the removal."""


class Patch:
    """What a removal does to the product. `acted`: how often the safeguard would have acted."""

    def __init__(self) -> None:
        self.acted = 0
        self.places: list[str] = []
        self._undo: list[tuple[Owner, str, Any]] = []

    def replace(self, owners: Owner | tuple[Owner, ...], name: str, replacement: Any) -> None:
        """Set `name` of each owner (a module or a class) to `replacement`.

        Raises Stale if an owner has no such name.
        """
        for owner in owners if isinstance(owners, tuple) else (owners,):
            if name not in vars(owner):
                raise Stale(f"{owner.__name__} has no {name} any more that could be replaced")
            self._undo.append((owner, name, vars(owner)[name]))
            self.places.append(_place(owner, name))
            setattr(owner, name, replacement)

    def act(self) -> None:
        """Note that the safeguard would have made a difference here."""
        self.acted += 1

    def undo(self) -> None:
        while self._undo:
            owner, name, original = self._undo.pop()
            setattr(owner, name, original)


def _place(owner: Owner, name: str) -> str:
    if isinstance(owner, type):
        return f"{owner.__name__}.{name}"
    return f"{owner.__name__.rpartition('.')[2]}.{name}"


@dataclass(frozen=True)
class Removal:
    """One row of the table.

    `rules`: of docs/protocol.md, or a threat (T16). `missing`: what the product does without the
    safeguard. `test`: the test that must fail, as pytest names it. `why`: why the simulation is not
    run, or cannot fail. `needs`: classes of faults; seeds without them are not run.
    """

    name: str
    rules: str
    safeguard: str
    missing: str
    take_out: Callable[[Patch], None] = field(repr=False)
    test: str = ""
    why: str = ""
    needs: tuple[str, ...] = ()

    @property
    def is_simulated(self) -> bool:
        """Whether the simulation is run: always, unless a test and a reason are given."""
        return not (self.test and self.why)

    @contextmanager
    def applied(self) -> Iterator[Patch]:
        """Take the safeguard out until the block ends."""
        patch = Patch()
        try:
            self.take_out(patch)
            yield patch
        finally:
            patch.undo()


class Removals:
    """A list of removals. Decorated functions are added; their names and docstrings are those of
    the removals."""

    def __init__(self) -> None:
        self.all: list[Removal] = []

    def __call__(
        self, rules: str, safeguard: str, *, needs: str = "", test: str = "", why: str = ""
    ) -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
        def add(take_out: Callable[[Patch], None]) -> Callable[[Patch], None]:
            name = take_out.__name__.replace("_", "-")
            missing = inspect.getdoc(take_out) or ""
            told = Removal(name, rules, safeguard, missing, take_out, test, why, _words(needs))
            self.all.append(told)
            return take_out

        return add


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())
