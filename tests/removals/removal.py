"""What a removal is: one safeguard of the product taken out, from outside, for as long as a block
lasts.

Knows: how product code is replaced and put back, and that a removal which was never exercised
proves nothing.
Refuses to know: which safeguards there are, and who notices that one is missing.
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
    """What a removal replaces is not there any more: the product has changed, and so must it."""


class Patch:
    """What a removal does to the product. `acted`: how often the safeguard would have acted."""

    def __init__(self) -> None:
        self.acted = 0
        self.places: list[str] = []
        self._undo: list[tuple[Owner, str, Any]] = []

    def replace(self, owners: Owner | tuple[Owner, ...], name: str, replacement: Any) -> None:
        """Put `replacement` in the place of what each owner (a module, a class) has under `name`.

        Raises Stale where one has nothing of the kind.
        """
        for owner in owners if isinstance(owners, tuple) else (owners,):
            if name not in vars(owner):
                raise Stale(f"{owner.__name__} has no {name} any more that could be replaced")
            self._undo.append((owner, name, vars(owner)[name]))
            self.places.append(_place(owner, name))
            setattr(owner, name, replacement)

    def act(self) -> None:
        """To be called where the safeguard would have made a difference."""
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
    safeguard. `test`: who has to notice, as pytest names it. `why`: why the simulation is not
    asked, or cannot notice. `needs`: classes of faults without which the simulation would only
    waste its time.
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
        """Whether the simulation is asked, too, where a test is named."""
        return not (self.test and self.why)

    @contextmanager
    def applied(self) -> Iterator[Patch]:
        """The product without this safeguard, until the block ends."""
        patch = Patch()
        try:
            self.take_out(patch)
            yield patch
        finally:
            patch.undo()


class Removals:
    """A list of removals that grows by decorated functions: their names and docstrings are those
    of the removals."""

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
