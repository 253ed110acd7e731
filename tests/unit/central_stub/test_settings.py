"""Settings: their defaults, and one line for a bad one."""

from pathlib import Path

import pytest

from central_stub.settings import BadSetting, Settings, read_settings
from central_stub.switches import LIKE, Feature, Switches

CANARY = "canary-secret"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove `.env` and the variables of the machine."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(f"CENTRAL_STUB_{name.upper()}", raising=False)


def test_the_defaults_are_those_of_the_documentation() -> None:
    """Port 8081, in memory, with every feature."""
    settings = read_settings()

    assert ("127.0.0.1", 8081, None) == (settings.host, settings.port, settings.data_dir)
    assert (["demo"], ["admin-demo"]) == (settings.store_keys, settings.admin_keys)
    switches = settings.switches
    limits = (switches.event_limit, switches.page_limit, switches.rate_limit)
    assert ((10_000, 1000, 0), 86_400) == (limits, switches.key_memory_seconds)
    assert frozenset() == switches.without


def test_options_win_over_the_environment_and_that_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty folder means memory."""
    lines = ["CENTRAL_STUB_PORT=1", "CENTRAL_STUB_HOST=h", "CENTRAL_STUB_PAGE_LIMIT=7", "PORT=9"]
    (tmp_path / ".env").write_text("\n".join([*lines, "CENTRAL_STUB_DATA_DIR="]))
    monkeypatch.setenv("CENTRAL_STUB_PORT", "2")
    monkeypatch.setenv("CENTRAL_STUB_WITHOUT", " hold, gone ,")

    settings = read_settings(host="127.0.0.2")

    assert (2, "127.0.0.2", 7) == (settings.port, settings.host, settings.page_limit)
    assert frozenset({Feature.HOLD, Feature.GONE}) == settings.without
    assert settings.data_dir is None


def test_a_deployed_central_can_be_named_and_adjusted() -> None:
    """Settings that are given win over those of the Central that `like` names."""
    like = read_settings(like="older", rate_limit="0").switches

    assert LIKE["older"].model_copy(update={"rate_limit": 0}) == like
    assert Switches() == read_settings(like="").switches


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("LIKE", "newer", "was 'newer'; it may be older, or empty"),
        ("PORT", "many", "was 'many'; it may be a whole number from 0 to 65535 (0: any free port)"),
        ("PORT", "65536", "was '65536'; it may be a whole number from 0 to 65535"),
        ("EVENT_LIMIT", "0", "was '0'; it may be a whole number from 1 to 100000000"),
        ("RATE_LIMIT", "-1", "was '-1'; it may be a whole number from 0 to"),
        ("KEY_MEMORY_SECONDS", "inf", "was 'inf'; it may be a number of seconds from 0"),
        ("WITHOUT", "hold,air", "was 'air'; it may be any of generation, event-offset, gone,"),
        ("API_KEYS", ",", "was (not shown); it may be one or more keys, comma-separated"),
        ("HOST", "", "was ''; it may be an address to listen on"),
    ],
)
def test_a_bad_setting_is_one_line_that_names_it(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, line: str
) -> None:
    """The variable, its value, and what it may be."""
    monkeypatch.setenv(f"CENTRAL_STUB_{name}", value)

    with pytest.raises(BadSetting) as bad:
        read_settings()

    assert str(bad.value).startswith(f"CENTRAL_STUB_{name} {line}")
    assert "\n" not in str(bad.value)


def test_secrets_are_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in the settings' repr nor in an error about another one."""
    monkeypatch.setenv("CENTRAL_STUB_API_KEYS", CANARY)
    shown = repr(read_settings())
    monkeypatch.setenv("CENTRAL_STUB_PORT", "x")

    with pytest.raises(BadSetting) as bad:
        read_settings()

    assert CANARY not in shown + str(bad.value)
