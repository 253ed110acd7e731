"""Run tests in a child process, which has everything imported already that its parent has.

Importing and collecting takes longer than most tests.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

LIBRARIES = (
    "aiohttp",
    "coverage",
    "httpx",
    "hypothesis.strategies",
    "prometheus_client",
    "pydantic_settings",
    "respx",
    "rfc8785",
    "rich.console",
    "tenacity",
    "uvloop",
)
MOST_MEMORY_BYTES = 3 << 30
TEST_SECONDS = 30
PLUGINS = ("-p", "pytest_asyncio.plugin", "-p", "pytest_timeout", "-p", "no:cacheprovider")
"""Others, which no test here needs, take a second or more of each run."""

OPTIONS = ("-q", "-s", "--tb=line", "-o", f"timeout={TEST_SECONDS}", *PLUGINS)
OURS = {"store_cache", "central_stub", "tests"}

FORK = multiprocessing.get_context("fork")


class NoEnd(Exception):
    """A child took too long."""


class Died(Exception):
    """A child ended without a word."""


def import_libraries() -> None:
    for name in LIBRARIES:
        import_module(name)


def call_in_child(folder: Path, seconds: float, work: Callable[..., Any], *arguments: Any) -> Any:
    """Return what `work` returns in a child that imports the project from `folder`.

    It is made of built-in types. Raises NoEnd, Died.
    """
    ours, theirs = FORK.Pipe(duplex=False)
    child = FORK.Process(target=_work, args=(theirs, folder, work, arguments))
    child.start()
    theirs.close()
    try:
        if not ours.poll(seconds):
            raise NoEnd(f"no end within {seconds:.0f} s")
        return ours.recv()
    except EOFError:
        child.join(10)
        raise Died(f"it ended with code {child.exitcode}") from None
    finally:
        _kill(child.pid)
        child.join()
        ours.close()


def _work(told: Any, folder: Path, work: Callable[..., Any], arguments: Sequence[Any]) -> None:
    os.setsid()
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY_BYTES, MOST_MEMORY_BYTES))
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    move_to(folder)
    sys.dont_write_bytecode = True
    told.send(work(*arguments))


def move_to(folder: Path) -> None:
    """Import the project from this folder from now on."""
    project = Path(__file__).parents[2]
    others = [each for each in sys.path if Path(each).resolve() not in (folder, project)]
    sys.path[:] = [str(folder), *others]
    os.chdir(folder)
    os.environ |= {"PYTHONPATH": str(folder), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


def _kill(process: int | None) -> None:
    """Kill a child and what it has started."""
    assert process is not None
    for kill in (os.killpg, os.kill):
        try:
            kill(process, signal.SIGKILL)
        except ProcessLookupError:
            continue


class FirstFailure:
    """A plugin of pytest that keeps which test failed first, and what it said."""

    def __init__(self) -> None:
        self.found: tuple[str, str] | None = None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._look(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._look(report)

    def _look(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.failed and self.found is None:
            lines = [line for line in report.longreprtext.splitlines() if line.strip()]
            self.found = report.nodeid, (lines or [""])[-1][:200]


def run_in_place(items: Sequence[pytest.Item]) -> tuple[str, str] | None:
    """Run collected tests until one fails. Return which one does, and what it says."""
    failure = FirstFailure()
    if items:
        items[0].config.pluginmanager.register(failure)
    for item in items:
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
        if failure.found is not None:
            break
    return failure.found


class Chosen:
    """A plugin of pytest that runs these tests in this order."""

    def __init__(self, tests: Sequence[str]) -> None:
        self._rank = {test: number for number, test in enumerate(tests)}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        chosen = [item for item in items if item.nodeid in self._rank]
        items[:] = sorted(chosen, key=lambda item: self._rank[item.nodeid])


def run_anew(modules: Sequence[str], tests: Sequence[str]) -> tuple[str, str] | None:
    """Import the project once more, these modules first, and run tests until one fails. Return
    which of these fails, and what it says."""
    for name in [each for each in sys.modules if each.partition(".")[0] in OURS]:
        del sys.modules[name]
    for module in modules:
        try:
            import_module(module)
        except BaseException as problem:  # noqa: BLE001 - a mutant may raise anything
            return module, repr(problem)[:200]
    if not tests:
        return None
    failure = FirstFailure()
    code = pytest.main(["-x", *OPTIONS, *files_of(tests)], plugins=[Chosen(tests), failure])
    crashed = code in (pytest.ExitCode.INTERNAL_ERROR, pytest.ExitCode.INTERRUPTED)
    return failure.found or (("pytest::", f"{code!r}") if crashed else None)


def files_of(tests: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(test.partition("::")[0] for test in tests))


class Timed:
    """A plugin of pytest that tells `on_test` which test is run, and keeps how much of the
    processor's time those took that passed."""

    def __init__(self, on_test: Callable[[str], object]) -> None:
        self.passed: dict[str, float] = {}
        self._on_test = on_test
        self._began_at = 0.0

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._on_test(nodeid)
        self._began_at = time.process_time()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            self.passed[report.nodeid] = time.process_time() - self._began_at
        elif report.failed:
            self.passed.pop(report.nodeid, None)

    def pytest_runtest_logfinish(self) -> None:
        self._on_test("")


def recorded(test_file: str, subjects: Sequence[str], to: str) -> Mapping[str, float]:
    """Run a file of tests and write to `to` which lines of the subjects each of them runs.

    Return the tests that pass, and the seconds that they take.
    """
    from coverage import Coverage  # noqa: PLC0415 - only where the libraries are imported

    within = [each if each.endswith(".py") else f"{each}/*" for each in subjects]
    coverage = Coverage(data_file=to, include=within, config_file=False)
    coverage.set_option("run:relative_files", True)
    coverage.start()
    timed = Timed(coverage.switch_context)
    pytest.main([*OPTIONS, test_file], plugins=[timed])
    coverage.stop()
    coverage.save()
    return timed.passed
