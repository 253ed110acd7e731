"""What every folder of tests may ask for."""

from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.harness import real_data
from tests.harness.postgres import Postgres, a_postgres
from tests.harness.skips import pytest_runtest_makereport

# How fast the machine is says nothing about the code; and what fails once, fails again.
hypothesis.settings.register_profile(
    "any machine",
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("any machine")

__all__ = ["postgres", "project_root", "pytest_runtest_makereport", "shared_data"]

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def project_root() -> Path:
    """The folder of the project: where pyproject.toml, the documents and the profiles are."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the project; a test that needs it is skipped without it."""
    if not real_data.FOLDER.is_dir():
        pytest.skip(f"{real_data.MISSING}: {real_data.FOLDER}")
    return real_data.FOLDER


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL of this session; a test that needs it is skipped where it is not installed."""
    with a_postgres() as started:
        yield started
