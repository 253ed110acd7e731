"""What is written beside the code agrees with it: settings, image, compose file, locks."""

import asyncio
import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from dotenv import dotenv_values
from pydantic_settings import BaseSettings

import central_stub.settings
import store_cache
from store_cache.api.auth import key_digest
from store_cache.app.settings import PUBLISHED_KEYS, Settings, load_settings
from tests.docs.pages import DOCS, section, table_rows
from tests.unit.api.conftest import Opened

STUB = central_stub.settings.Settings
SHOWN_KEYS = re.compile(
    r"""(?:X-API-Key: |API_KEYS?=|API_KEYS?` \| |--(?:admin-|api-)?key |printf %s ')"""
    r"""([^\s'"`()\]]+)"""
)
"""A key, or several with commas, in a call, a setting, a table of settings or an option."""

NO_KEYS = {"", "KEY", "asks", "short", "with", "sha256:1234", "sha256:<64"}
"""What stands in the place of a key: placeholders, and values that are wrong in another way."""

PROGRAMS: list[type[BaseSettings]] = [Settings, STUB]


def documented_defaults(program: type[BaseSettings]) -> dict[str, str]:
    """The variables of a program, with their defaults as one would write them."""
    prefix = program.model_config.get("env_prefix", "")
    return {
        f"{prefix}{name}".upper(): _written(field.get_default(call_default_factory=True))
        for name, field in program.model_fields.items()
    }


def _written(default: Any) -> str:
    if isinstance(default, list | tuple | set | frozenset):
        return ",".join(_written(item) for item in default)
    if hasattr(default, "get_secret_value"):
        return str(default.get_secret_value())
    return "" if default is None else str(default)


@pytest.mark.parametrize("program", PROGRAMS)
def test_each_setting_is_in_the_example_with_its_default(
    project_root: Path, program: type[BaseSettings]
) -> None:
    """A copied `.env.example` changes nothing: it names every setting and gives its default."""
    defaults = documented_defaults(program)
    example = dotenv_values(project_root / ".env.example")

    assert defaults == {name: example.get(name) for name in defaults}


def test_the_example_names_no_setting_that_does_not_exist(project_root: Path) -> None:
    """Whatever can be set in `.env.example` has an effect."""
    known = {name for program in PROGRAMS for name in documented_defaults(program)}

    assert set() == set(dotenv_values(project_root / ".env.example")) - known


def test_production_refuses_each_key_that_is_shown(project_root: Path) -> None:
    """Every key in README, pages, profiles and examples is one of the published keys."""
    single = [project_root / name for name in ("README.md", ".env.example", "compose.yaml")]
    profiles = (project_root / "config").glob("*.env")
    files = [*single, *DOCS.rglob("*.md"), *profiles]
    lists = [found for path in files for found in SHOWN_KEYS.findall(path.read_text())]
    keys = {key for each in lists for key in each.split(",")} - NO_KEYS
    published = {key_digest(key) for key in PUBLISHED_KEYS}

    assert {"demo", "admin-demo", "till-1-secret"} <= keys
    assert [] == sorted(key for key in keys if key_digest(key) not in published)


def test_the_example_is_a_legal_file(project_root: Path) -> None:
    """A store starts with the example as its `.env`, as if there were none."""
    assert load_settings({}, None) == load_settings({}, project_root / ".env.example")


@pytest.mark.parametrize(
    ("program", "page", "heading"),
    [
        (Settings, "configuration.md", "Settings of the store"),
        (STUB, "central-stub.md", "Settings"),
    ],
)
def test_each_setting_is_documented_with_its_default(
    program: type[BaseSettings], page: str, heading: str
) -> None:
    """The table has a row for each setting, and no other: `| NAME | default | ...`."""
    rows = table_rows(section(DOCS / page, heading))[1:]
    said = {name.strip("`"): default for name, default, _ in rows}

    assert said == {n: value or "(empty)" for n, value in documented_defaults(program).items()}


def test_the_compose_file_sets_only_what_can_be_set(project_root: Path) -> None:
    """Each variable of each service is a setting, and each store's settings are legal."""
    services = _yaml(project_root / "compose.yaml")["services"]
    known = {name for program in PROGRAMS for name in documented_defaults(program)}
    given = {name for service in services.values() for name in service["environment"]}
    stores = {name: service for name, service in services.items() if name.startswith("store-")}

    assert set() == given - known
    assert ["store-s1", "store-s2"] == [
        load_settings(store["environment"], None).store_id for store in stores.values()
    ]


@pytest.mark.parametrize("answers", [True, False])
async def test_the_image_s_health_check_asks_the_store(
    project_root: Path, open_store: Opened, answers: bool
) -> None:
    """It ends with 0 if the store answers, otherwise with 1; it needs nothing but Python, and runs
    seldom."""
    text = (project_root / "Dockerfile").read_text()
    found = re.search(
        r"^HEALTHCHECK --interval=(\d+)s [^\n]*\\\n *CMD (\[.*\])$", text, re.MULTILINE
    )
    assert found
    program, *arguments = json.loads(found[2])
    store = await open_store()
    if not answers:
        await store.running.stop(0.0)
    check = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        env={"PORT": str(store.running.port)},
        stderr=asyncio.subprocess.DEVNULL,
    )

    assert (0 if answers else 1) == await check.wait()
    assert ("python", True) == (program, int(found[1]) >= 30)


def test_the_compose_file_gives_each_service_its_own_volume_and_port(project_root: Path) -> None:
    """No two services share a folder or a port, and every volume is declared."""
    compose = _yaml(project_root / "compose.yaml")
    services = compose["services"].values()
    volumes = {volume.split(":")[0] for service in services for volume in service["volumes"]}
    ports = {port for service in services for port in service["ports"]}

    assert set(compose["volumes"]) == volumes
    assert {"8081:8081", "8083:8083", "8084:8084"} == ports
    assert len(services) == len(volumes)


def test_continuous_integration_runs_the_test_command(project_root: Path) -> None:
    """CI runs what a developer runs, on each Python that is supported."""
    workflow = _yaml(project_root / ".github" / "workflows" / "ci.yml")
    test = workflow["jobs"]["test"]

    assert ["3.11", "3.12", "3.13"] == test["strategy"]["matrix"]["python"]
    assert ".ci/run" == test["steps"][-1]["run"]
    assert (project_root / ".ci" / "run").read_text().endswith("\nmake test\n")


@pytest.mark.parametrize(
    "lock",
    [
        "requirements",
        "requirements-dev",
        "requirements-build",
        "requirements-mutants",
    ],
)
def test_locks_have_hashes_and_no_address(project_root: Path, lock: str) -> None:
    """Every package is pinned with hashes, from wherever the machine gets its packages."""
    text = (project_root / f"{lock}.lock").read_text()
    blocks = re.split(r"^(?=\S)", text, flags=re.MULTILINE)[1:]
    pinned = re.compile(r"[a-z0-9-]+==\S+ .*\\\n    --hash=sha256:")

    assert [] == [block for block in blocks if not pinned.match(block)]
    assert len(blocks) > 5
    assert "://" not in text
    assert "--index" not in text


def test_the_lock_has_each_dependency(project_root: Path) -> None:
    """Whatever pyproject.toml asks for at run time is in the lock that the image is built from."""
    wanted = _project(project_root)["dependencies"]
    names = {re.split(r"[^a-z0-9-]", dependency)[0] for dependency in wanted}
    lock = (project_root / "requirements.lock").read_text()
    locked = re.findall(r"^([a-z0-9-]+)==", lock, re.MULTILINE)

    assert set() == names - set(locked)


def test_the_version_is_said_once(project_root: Path) -> None:
    """The package and its metadata agree about the version."""
    assert _project(project_root)["version"] == store_cache.__version__


def _yaml(file: Path) -> Any:
    return yaml.safe_load(file.read_text())


def _project(root: Path) -> dict[str, Any]:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert isinstance(project, dict)
    return project
