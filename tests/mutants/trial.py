"""Run the tests against one mutant after the other, in a copy of the project."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.sample import Mutant, difference

COPIED = ("store_cache", "central_stub", "tests", "docs", "config", "pyproject.toml")
SCHEDULES = 24
STAGE_SECONDS = 1800
TEST_SECONDS = 120
MOST_MEMORY_BYTES = 3 << 30
STILLBORN = "stillborn"
SURVIVED = "survived"

PYTEST = ("-m", "pytest", "-q", "-x", "--tb=line", "-o", f"timeout={TEST_SECONDS}")
PLUGINS = ("-p", "pytest_asyncio.plugin", "-p", "pytest_timeout", "-p", "no:cacheprovider")
"""Others, which no test here needs, take a second or more of each run."""


@dataclass(frozen=True)
class Outcome:
    """`by`: the stage that failed, `survived`, or `stillborn` for a module that no test can import.
    `said`: the failure."""

    mutant: Mutant
    change: str
    by: str
    said: str = ""


class Copy:
    """A copy of the project in `root`, which changes of the project do not reach."""

    def __init__(self, project: Path, root: Path) -> None:
        self.root = root
        self._passing: set[tuple[str, ...]] = set()
        for name in COPIED:
            whole = project / name
            if whole.is_dir():
                shutil.copytree(whole, root / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(whole, root / name)

    def tried(self, mutant: Mutant) -> Outcome:
        """Run the stages against a mutant until one fails."""
        source = (self.root / mutant.path).read_text()
        code = mutant.code(source)
        change = difference(source, code)
        with self._changed(mutant.path, code):
            failed = self._first_failure(mutant)
        if failed is None:
            return Outcome(mutant, change, SURVIVED)
        name, command, said = failed
        self._check_that_it_passes(command)
        return Outcome(mutant, change, name, said)

    def _first_failure(self, mutant: Mutant) -> tuple[str, list[str], str] | None:
        for name, command in stages(mutant.path, self.root):
            if said := self._failure(command):
                return name, command, said
        return None

    def _check_that_it_passes(self, command: Sequence[str]) -> None:
        """Run a command against the whole code, once: what fails anyway notices nothing.

        Raises RuntimeError if it fails.
        """
        if tuple(command) not in self._passing:
            if said := self._failure(command):
                raise RuntimeError(f"{' '.join(command)} fails without any change: {said}")
            self._passing.add(tuple(command))

    @contextmanager
    def _changed(self, path: str, code: str) -> Iterator[None]:
        target = self.root / path
        before = target.read_text()
        target.write_text(code)
        try:
            yield
        finally:
            target.write_text(before)

    def _failure(self, command: Sequence[str]) -> str:
        """Return the last line that a command said before it failed; empty if it did not."""
        environment = os.environ | {"PYTHONPATH": str(self.root), "PYTHONDONTWRITEBYTECODE": "1"}
        environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        try:
            done = subprocess.run(
                [sys.executable, *command],
                cwd=self.root,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=STAGE_SECONDS,
                preexec_fn=_limit_memory,
            )
        except subprocess.TimeoutExpired:
            return f"no end within {STAGE_SECONDS} s"
        return "" if done.returncode == 0 else _last_words(done.stdout, done.stderr)


def _limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY_BYTES, MOST_MEMORY_BYTES))


def _last_words(*outputs: str) -> str:
    lines = [line for output in outputs for line in output.splitlines() if line.strip()]
    told = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return (told or lines or ["it ended without a word"])[-1][:200]


def stages(path: str, root: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield what is run against a mutant of this module, the quickest first: its mirrored tests,
    its package's, what the simulation found, schedules and scenarios."""
    module = path.removesuffix(".py").replace("/", ".")
    yield STILLBORN, ["-c", f"import store_cache.app.build, {module}"]
    subject = Path(path).relative_to("store_cache")
    mirrored = root / "tests/unit" / subject.parent / f"test_{subject.name}"
    package = Path("tests/unit") / subject.parts[0]
    if mirrored.exists():
        yield "its own tests", [*PYTEST, *PLUGINS, str(mirrored)]
    if (root / package).is_dir():
        yield "its package's tests", [*PYTEST, *PLUGINS, str(package)]
    yield "what was found", [*PYTEST, *PLUGINS, "tests/simulation/test_found.py"]
    yield "schedules", ["-m", "tests.mutants.schedules", str(SCHEDULES)]
    yield "scenarios", [*PYTEST, *PLUGINS, "tests/scenarios"]


@contextmanager
def copied(project: Path) -> Iterator[Copy]:
    """A copy of the project until the block ends."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        yield Copy(project, Path(folder))
