"""config/systemd: the unit is hardened, and fits what the program does."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from dotenv import dotenv_values

from store_cache.api.limits import ConnectionLimits
from store_cache.app.build import WRITES_GRACE_SECONDS
from store_cache.app.serve import REQUESTS_GRACE_SECONDS
from store_cache.app.settings import SettingsError, load_settings
from store_cache.cli.main import BAD_USE

UNIT = Path(__file__).parents[2] / "config/systemd/store-cache.service"
SETTINGS = UNIT.with_name("store-cache.env")

HIGHEST_EXPOSURE = 30
"""In tenths: systemd calls up to 30 low."""

FILLED_IN = {
    "STORE_ID": "shop-7",
    "CENTRAL_API_URL": "https://central.example.com",
    "CENTRAL_API_KEY": "a-key-for-central",
    "API_KEYS": "a-key-of-till-one",
}

systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


def service() -> dict[str, str]:
    """The section [Service]; of a setting that is given twice, the last one."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # names have capitals
    parser.read(UNIT)
    return dict(parser["Service"])


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", "--no-pager", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


@systemd
def test_service_is_hardened() -> None:
    """`systemd-analyze security` rates its exposure below 3."""
    done = analyze("security", "--offline=true", f"--threshold={HIGHEST_EXPOSURE - 1}", UNIT)

    assert 0 == done.returncode, done.stdout + done.stderr


@systemd
def test_unit_has_no_mistake(tmp_path: Path) -> None:
    """systemd knows every setting of it and reads every value."""
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/store-cache/bin/store-cache", sys.executable))
    done = analyze("verify", "--man=no", "--recursive-errors=no", unit)
    about_it = [line for line in done.stderr.splitlines() if unit.name in line]

    assert [] == about_it


def test_unit_fits_the_program() -> None:
    """It waits for a clean stop, does not restart what a restart cannot mend, reloads by SIGHUP,
    and leaves room for every connection."""
    unit = service()
    limits = ConnectionLimits()

    assert int(unit["TimeoutStopSec"]) > WRITES_GRACE_SECONDS + REQUESTS_GRACE_SECONDS + 2
    assert ("on-failure", str(BAD_USE)) == (unit["Restart"], unit["RestartPreventExitStatus"])
    assert unit["ExecReload"].endswith("-HUP $MAINPID")
    assert ConnectionLimits.within(int(unit["LimitNOFILE"])) == limits


def test_settings_name_all_that_production_needs() -> None:
    """What is empty stops the start with a line each; filled in, the file is legal, and the data
    is where the unit gives the service a folder."""
    given = {name: value or "" for name, value in dotenv_values(SETTINGS).items()}
    with pytest.raises(SettingsError) as refused:
        load_settings(given, None)
    settings = load_settings(given | FILLED_IN, None)

    assert FILLED_IN.keys() == {line.split()[0] for line in str(refused.value).splitlines()}
    assert "production" == settings.environment
    assert Path("/var/lib") / service()["StateDirectory"] == settings.data_dir
    assert SETTINGS.name == Path(service()["EnvironmentFile"]).name
