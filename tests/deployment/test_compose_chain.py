"""`compose.chain.yaml`: settings and commands that exist, and services where they are named."""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from central_stub.cli import _parser
from central_stub.settings import Settings as CentralSettings
from store_cache.app.settings import Settings as StoreSettings
from store_cache.app.settings import load_settings

OTHERS = frozenset({"postgres", "nats"})
"""Services with an image of their own."""


@pytest.fixture(scope="module")
def compose(project_root: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((project_root / "compose.chain.yaml").read_text())
    return document


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = compose["services"]
    return found


def test_it_has_what_a_chain_has(services: dict[str, Any]) -> None:
    """The same as `make chain`."""
    assert {
        *("postgres", "migrate", "central-a", "central-b", "nats", "publisher"),
        *("store-1", "store-2", "store-3"),
    } == set(services)


def test_its_settings_can_be_set(services: dict[str, Any]) -> None:
    """Each variable of our services is a setting with a legal value."""
    known = {f"CENTRAL_STUB_{name.upper()}" for name in CentralSettings.model_fields}
    known |= set(StoreSettings.variables().values())
    for name, service in services.items():
        environment = service.get("environment", {})
        if name not in OTHERS:
            assert set() == set(environment) - known
        if name.startswith("store-"):
            assert name == load_settings(environment, None).store_id
        if name.startswith("central-"):
            read = {
                variable.removeprefix("CENTRAL_STUB_").lower(): value
                for variable, value in environment.items()
                if variable.startswith("CENTRAL_STUB_")
            }
            assert CentralSettings(_env_file=None, **read).database_url is not None


def test_its_commands_exist(services: dict[str, Any]) -> None:
    """Their options too."""
    for name, service in services.items():
        program, *arguments = service.get("command", ["store-cache", "serve"])
        if name not in OTHERS and program == "central-stub":
            assert callable(_parser().parse_args(arguments).run)


def test_its_services_are_where_they_are_named(services: dict[str, Any]) -> None:
    """Each address names a service, and the port on which that one listens."""
    ports = {"postgres": None, "nats": 4222, "central-a": 8081, "central-b": 8082}
    for service in services.values():
        texts = [*service.get("environment", {}).values(), *service.get("command", [])]
        for where in (urlsplit(text) for text in texts if "://" in text):
            assert where.port == ports[str(where.hostname)]
    listening = [each["ports"] for each in services.values() if "ports" in each]
    assert [[f"{port}:{port}"] for port in range(8081, 8086)] == listening


def test_its_volumes_are_declared_and_not_shared(compose: dict[str, Any]) -> None:
    used = [
        volume.split(":")[0]
        for service in compose["services"].values()
        for volume in service.get("volumes", [])
    ]

    assert sorted(compose["volumes"]) == sorted(used)
