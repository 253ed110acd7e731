"""The page about the stub says what is so."""

import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pytest

from central_stub.settings import MAY_BE, Settings
from central_stub.switches import Feature, Switches
from tests.unit.central_stub.asker import Asker

PAGE = (Path(__file__).parents[3] / "docs" / "central-stub.md").read_text()
COMMANDS = [line.strip() for line in PAGE.splitlines() if line.startswith("    curl ")]


def request_of(command: str) -> tuple[str, str, Any]:
    """Method, target and body of a curl command."""
    words = shlex.split(command.partition(" > ")[0])
    options = dict(pairwise(words))
    url = next(word for word in words if word.startswith("http"))
    body = options.get("-d")
    method = options.get("-X", "GET" if body is None else "POST")
    return method, url.removeprefix("http://127.0.0.1:8081"), body and orjson.loads(body)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_curl_command_works(asker: Asker, command: str) -> None:
    """It is answered with 200."""
    assert 200 == asker.ask(*request_of(command), key="admin-demo").status


def test_every_kind_of_fault_has_an_example() -> None:
    """So the list of the program is the list of the page."""
    refused = Asker(Switches()).admin("POST", "faults", {"kind": "?"}).body["message"]
    kinds = set(re.findall(r"'(\w+)'", refused)) - {"kind"}

    assert kinds <= {str((request_of(each)[2] or {}).get("kind")) for each in COMMANDS}
    assert 11 == len(kinds)


def test_every_setting_switch_and_feature_is_named() -> None:
    """With its own name, and settings with their defaults."""
    names = [f"CENTRAL_STUB_{name.upper()}" for name in MAY_BE]
    switches = [str(field.alias) for field in Switches.model_fields.values()]

    named = set(re.findall(r"`([^`]+)`", PAGE))

    assert set(MAY_BE) == set(Settings.model_fields)
    assert {*names, *switches, *(feature.value for feature in Feature)} <= named
