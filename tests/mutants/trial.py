"""Run tests against one mutant after the other, in a copy of the project."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest

from tests.mutants.child import Died, NoEnd, call_in_child, run_anew, run_in_place
from tests.mutants.code import lines_run_with
from tests.mutants.order import stages
from tests.mutants.patch import Functions, imported_functions, patches
from tests.mutants.reach import Reach
from tests.mutants.sample import Mutant, difference

COPIED = ("store_cache", "central_stub", "tests", "docs", "config", "pyproject.toml")
LEAST_SECONDS, TIMES_SECONDS = 90.0, 8.0
"""A stage is given up after so long, and so many times what it takes without a mutant."""

IMPORTED = "store_cache.app.build"
STILLBORN = "stillborn"
SURVIVED = "survived"


@dataclass(frozen=True)
class Outcome:
    """`by`: the stage that failed, `survived`, or `stillborn` for a module that cannot be imported.
    `said`: the failure."""

    mutant: Mutant
    change: str
    by: str
    test: str = ""
    said: str = ""


@dataclass
class Trials:
    """A plugin of pytest that tries mutants of the copy that `reach` is about with the tests that
    were collected in it, instead of running these."""

    reach: Reach
    sample: Iterable[Mutant]
    on_outcome: Callable[[Outcome], None]
    stage_seconds: float
    _items: dict[str, pytest.Item] = field(default_factory=dict)
    _functions: Functions = field(default_factory=dict)
    _seconds: dict[str, float] = field(default_factory=dict)
    _passing: set[str] = field(default_factory=set)
    """Tests that have failed with a mutant, and pass without."""

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self._items = {item.nodeid: item for item in session.items}
        self._functions = imported_functions()
        self._seconds = self.reach.seconds()
        for mutant in self.sample:
            self.on_outcome(self.tried(mutant))
        return True

    def tried(self, mutant: Mutant) -> Outcome:
        """Run the stages against a mutant until a test fails."""
        root = self.reach.root
        source = (root / mutant.path).read_text()
        code = mutant.code(source)
        change = difference(source, code)
        tests = self.reach.tests_of(mutant.path, mutant.line)
        fitting = {test: self._seconds[test] for test in tests if test in self._items}
        planned = stages(mutant.path, fitting, at_most=self.stage_seconds)
        order = [test for each in planned.values() for test in each]
        try:
            if lines_run_with(source, mutant.line) is None:
                raise ValueError("it is run when the module is imported")
            patched = patches(self._functions.get(str(root / mutant.path), ()), code)
        except ValueError:
            with _changed(root / mutant.path, code):
                failure = self._failure(order, run_anew, modules_of(mutant), order)
        else:
            failure = self._failure(order, self._run_patched, patched, order)
        if failure is None:
            return Outcome(mutant, change, SURVIVED)
        test, said = failure
        if test in modules_of(mutant):
            return Outcome(mutant, change, STILLBORN, test, said)
        if not self._passes(test):
            del self._items[test]
            return self.tried(mutant)
        stage = next((name for name, each in planned.items() if test in each), "no end")
        return Outcome(mutant, change, stage, test, said)

    def _run_patched(
        self, patched: Sequence[tuple[FunctionType, CodeType]], tests: Sequence[str]
    ) -> tuple[str, str] | None:
        for function, code in patched:
            function.__code__ = code
        return run_in_place([self._items[test] for test in tests])

    def _passes(self, test: str) -> bool:
        """Run a test without a mutant, once: one that fails anyway notices nothing."""
        if test in self._items and test not in self._passing:
            if self._failure([test], run_in_place, [self._items[test]]) is not None:
                return False
            self._passing.add(test)
        return True

    def _failure(
        self, tests: Sequence[str], work: Callable[..., Any], *arguments: Any
    ) -> tuple[str, str] | None:
        expected = sum(self._seconds[test] for test in tests)
        patience = LEAST_SECONDS + TIMES_SECONDS * expected
        try:
            failure = call_in_child(self.reach.root, patience, work, *arguments)
        except (NoEnd, Died) as problem:
            return "::", str(problem)
        return failure  # type: ignore[no-any-return]


def modules_of(mutant: Mutant) -> list[str]:
    """Return what is imported first, so that a mutant that cannot be is told from others."""
    return [IMPORTED, mutant.path.removesuffix(".py").replace("/", ".")]


@contextmanager
def _changed(target: Path, code: str) -> Iterator[None]:
    """Write code to a file, and restore it: its time too, so that its compiled code is used."""
    before, status = target.read_bytes(), target.stat()
    target.write_text(code)
    try:
        yield
    finally:
        target.write_bytes(before)
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


@contextmanager
def copied(project: Path) -> Iterator[Path]:
    """A copy of the project, which changes of the project do not reach, until the block ends."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        for name in COPIED:
            whole, copy = project / name, Path(folder) / name
            if whole.is_dir():
                shutil.copytree(whole, copy, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(whole, copy)
        yield Path(folder).resolve()
