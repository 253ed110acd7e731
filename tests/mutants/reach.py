"""Which tests run a line of the code, as a run of each file of tests under coverage has shown.

It is kept in a folder, a pair of files for each file of tests, and is made anew for those that have
changed since.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import orjson
from coverage import CoverageData

from tests.mutants.child import Died, NoEnd, call_in_child, recorded
from tests.mutants.code import lines_run_with
from tests.mutants.sample import SUBJECTS, modules

TESTS = (
    "tests/unit/writes",
    "tests/unit/test_writer.py",
    "tests/unit/test_writer_repairs.py",
    "tests/unit/storage",
    "tests/unit/catalogue",
    "tests/unit/sync",
    "tests/unit/test_announcer.py",
    "tests/unit/api/test_metrics.py",
    "tests/unit/api/test_outbox.py",
    "tests/unit/api/test_status.py",
    "tests/unit/api/test_writes.py",
    "tests/simulation/test_found.py",
    "tests/golden",
    "tests/scenarios",
    "tests/mutants/schedules.py",
)
FILE_SECONDS = 1200


@dataclass(frozen=True)
class Reach:
    """`folder` holds what was recorded, `root` the project that it is about."""

    root: Path
    folder: Path

    def refresh(self) -> None:
        """Record the files of tests that are new, or have changed since they were recorded."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.test_files():
            if self._record(path).get("digest") != _digest(self.root / path):
                self._run(path)

    def _run(self, path: str) -> None:
        lines, told = self._files(path)
        lines.unlink(missing_ok=True)
        try:
            passed = call_in_child(self.root, FILE_SECONDS, recorded, path, SUBJECTS, str(lines))
        except (NoEnd, Died) as problem:
            raise RuntimeError(f"{path} cannot be recorded: {problem}") from problem
        digests = {
            subject: _digest(self.root / subject) for subject in modules(self.root, SUBJECTS)
        }
        record = {"digest": _digest(self.root / path), "subjects": digests, "passed": passed}
        told.write_bytes(orjson.dumps(record))
        print(f"{path}: {len(passed)} tests in {sum(passed.values()):.1f} s", flush=True)  # noqa: T201

    def seconds(self) -> dict[str, float]:
        """Return all tests that pass, and how long each takes."""
        found: dict[str, float] = {}
        for path in self.test_files():
            found |= self._record(path)["passed"]
        return found

    def tests_of(self, path: str, line: int) -> set[str]:
        """Return the tests that run this line.

        Where that cannot be said, since the line runs when the module is imported or the module has
        changed since it was recorded, return those that run anything of the module.
        """
        source = (self.root / path).read_text()
        wanted = lines_run_with(source, line)
        found: set[str] = set()
        for test_file in self.test_files():
            record = self._record(test_file)
            known = _lines(self._files(test_file)[0], path)
            is_known = record["subjects"].get(path) == _digest(self.root / path)
            for number, tests in known.items():
                if wanted is None or not is_known or number in wanted:
                    found |= tests & record["passed"].keys()
        return found

    def test_files(self) -> Iterator[str]:
        for each in TESTS:
            whole = self.root / each
            files = [whole] if whole.is_file() else sorted(whole.rglob("test_*.py"))
            yield from (file.relative_to(self.root).as_posix() for file in files)

    def _record(self, path: str) -> dict[str, Any]:
        told = self._files(path)[1]
        return dict(orjson.loads(told.read_bytes())) if told.exists() else {}

    def _files(self, path: str) -> tuple[Path, Path]:
        name = path.removesuffix(".py").replace("/", ".")
        return self.folder / f"{name}.lines", self.folder / f"{name}.json"


@cache
def _lines(data_file: Path, path: str) -> dict[int, set[str]]:
    """Return which tests run each line of a module; imports are no tests."""
    data = CoverageData(str(data_file))
    data.read()
    return {line: set(tests) - {""} for line, tests in data.contexts_by_lineno(path).items()}


@cache
def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
