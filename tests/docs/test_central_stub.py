"""docs/central-stub.md: its commands work, and it names every setting, switch and fault."""

import re

import orjson
import pytest

from central_stub.settings import MAY_BE, Settings
from central_stub.switches import Feature, Switches
from tests.docs.pages import DOCS, Call, calls, quoted
from tests.unit.central_stub.asker import Asker

PAGE = DOCS / "central-stub.md"
CALLS = [call for call, _ in calls(PAGE)]


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_every_curl_command_works(asker: Asker, call: Call) -> None:
    """It is answered with 200."""
    body = orjson.loads(call.body) if call.body else None

    assert 200 == asker.ask(call.method, call.target, body, key="admin-demo").status


def test_every_kind_of_fault_has_an_example() -> None:
    """The kinds of the page are those of the program."""
    refused = Asker(Switches()).admin("POST", "faults", {"kind": "?"}).body["message"]
    kinds = set(re.findall(r"'(\w+)'", refused)) - {"kind"}
    shown = {
        orjson.loads(call.body)["kind"]
        for call in CALLS
        if call.method == "POST" and call.target.endswith("/faults")
    }

    assert kinds == shown
    assert 12 == len(kinds)


def test_every_setting_switch_and_feature_is_named() -> None:
    """By its own name."""
    features = {feature.value for feature in Feature}
    settings = {f"CENTRAL_STUB_{name.upper()}" for name in MAY_BE}
    switches = {str(field.alias) for field in Switches.model_fields.values()}

    assert set(MAY_BE) == set(Settings.model_fields)
    assert settings | switches | features <= quoted(PAGE)
