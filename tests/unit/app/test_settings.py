"""Settings: defaults, bounds, and the errors of wrong ones."""

import hashlib
from pathlib import Path

import pytest
from dotenv import dotenv_values

from store_cache.api.auth import HASHED, key_digest
from store_cache.api.key_file import NamedKey, encode_line
from store_cache.app.settings import (
    Settings,
    SettingsError,
    load_settings,
    warn_of_exposed_file,
)
from tests.harness.certificates import Certificates

PRODUCTION = {
    "ENVIRONMENT": "production",
    "STORE_ID": "shop-7",
    "API_KEYS": "a-key-of-till-one",
    "CENTRAL_API_KEY": "a-key-for-central",
}

HASH = "sha256:" + hashlib.sha256(b"till-1").hexdigest()


def settings(**env: str) -> Settings:
    return load_settings(env, env_file=None)


def errors(**env: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        settings(**env)
    return str(caught.value).splitlines()


def test_defaults_are_right_for_one_shop() -> None:
    """With nothing set, every setting has its documented default."""
    loaded = settings()
    shown = loaded.model_dump(exclude={"api_keys", "central_api_key"})

    assert {
        "environment": "development",
        "port": 8083,
        "host": "0.0.0.0",
        "grpc_port": None,
        "log_level": "info",
        "store_id": "store-s1",
        "tenant_id": "",
        "admin_api_keys": (),
        "keys_file": None,
        "central_api_url": "http://localhost:8081",
        "data_dir": Path("data"),
        "sync_interval_seconds": 30,
        "event_wait_timeout_seconds": 20,
        "event_batch_limit": 100,
        "sync_interval_minutes": 5,
        "verify_interval_minutes": 15.0,
        "verify_lap_hours": 24.0,
        "poll_mode": "continuous",
        "feed_source": "http",
        "nats_url": "nats://localhost:4222",
        "nats_api_prefix": "$JS.API",
        "nats_credentials_file": None,
        "nats_ca_file": None,
        "stale_after_seconds": 60,
        "cors_origins": (),
        "central_ca_file": None,
        "hole_grace_seconds": 2.0,
        "snapshot_min_percent": 50,
        "write_timeout_seconds": 8.0,
        "key_retention_hours": 24,
        "offline_writes": "refuse",
        "outbox_limit": 10_000,
        "outbox_max_age_hours": 0.0,
        "tls_cert_file": None,
        "tls_key_file": None,
        "tls_client_ca_file": None,
        "trusted_proxies": (),
        "central_client_cert_file": None,
        "central_client_key_file": None,
        "rate_limit_reads": 0,
        "rate_limit_writes": 0,
        "fleet_report": True,
        "fast_reads": True,
        "stream_readers": 500,
        "history_limit": 100_000,
        "stream_history": 10_000,
        "search": True,
        "console": True,
        "api_docs": True,
        "metrics": True,
        "metrics_key_required": False,
    } == shown
    assert ("store-s1-key", "demo", "demo") == loaded.secrets()


@pytest.mark.parametrize(
    ("variable", "lowest", "highest", "below", "above"),
    [
        ("STREAM_READERS", "0", "1800", "-1", "1801"),
        ("HISTORY_LIMIT", "0", "10000000", "-1", "10000001"),
        ("STREAM_HISTORY", "100", "1000000", "99", "1000001"),
        ("PORT", "0", "65535", "-1", "65536"),
        ("SYNC_INTERVAL_SECONDS", "10", "300", "9", "301"),
        ("EVENT_WAIT_TIMEOUT_SECONDS", "5", "60", "4", "61"),
        ("EVENT_BATCH_LIMIT", "10", "500", "9", "501"),
        ("SYNC_INTERVAL_MINUTES", "1", "1440", "0", "1441"),
        ("STALE_AFTER_SECONDS", "1", "86400", "0", "86401"),
        ("HOLE_GRACE_SECONDS", "0.1", "60", "0.09", "60.1"),
        ("SNAPSHOT_MIN_PERCENT", "0", "100", "-1", "101"),
        ("WRITE_TIMEOUT_SECONDS", "1", "60", "0.9", "60.1"),
        ("OUTBOX_LIMIT", "1", "100000", "0", "100001"),
        ("OUTBOX_MAX_AGE_HOURS", "0", "8760", "-1", "8761"),
        ("KEY_RETENTION_HOURS", "1", "8760", "0", "8761"),
        ("RATE_LIMIT_READS", "0", "100000", "-1", "100001"),
        ("RATE_LIMIT_WRITES", "0", "100000", "-1", "100001"),
    ],
)
def test_numbers_have_bounds(
    variable: str, lowest: str, highest: str, below: str, above: str
) -> None:
    """A number is accepted up to its bounds and refused beyond, and so is other text."""
    env = {"ENVIRONMENT": "staging"}
    for good in (lowest, highest):
        assert float(good) == getattr(settings(**env, **{variable: good}), variable.lower())
    for bad in (below, above, "many", "", "nan"):
        [line] = errors(**env, **{variable: bad})
        assert line.startswith(f"{variable} was {bad!r}")


def test_grpc_is_off_or_has_a_port_of_its_own() -> None:
    assert settings(GRPC_PORT="").grpc_port is None
    assert 0 == settings(GRPC_PORT="0").grpc_port
    assert 65535 == settings(ENVIRONMENT="staging", GRPC_PORT="65535").grpc_port
    for bad in ("-1", "65536", "many"):
        [line] = errors(GRPC_PORT=bad)
        assert line.startswith(f"GRPC_PORT was '{bad}'; it may be empty (no gRPC), or a whole")
    [line] = errors(ENVIRONMENT="staging", GRPC_PORT="0")
    assert "any free port, which only ENVIRONMENT=development allows" in line
    [line] = errors(PORT="9000", GRPC_PORT="9000")
    assert "is PORT too; HTTP and gRPC need a port each" in line


@pytest.mark.parametrize("variable", ["SYNC_INTERVAL_SECONDS", "EVENT_WAIT_TIMEOUT_SECONDS"])
def test_development_lowers_the_bounds_to_one_second(variable: str) -> None:
    """In development the intervals of the sync may be as short as one second."""
    assert 1 == getattr(settings(**{variable: "1"}), variable.lower())
    assert 1 == len(errors(**{variable: "0"}))


WRONG = {
    "ENVIRONMENT": ["prod"],
    "HOST": ["", "two hosts"],
    "LOG_LEVEL": ["loud"],
    "TENANT_ID": ["t" * 65, "a b", "süd"],
    "STORE_ID": ["", "s" * 65, "süd", "store-s1\n"],
    "CENTRAL_API_URL": [
        *("", "central.example.com", "ftp://central.example.com", "http://", "http://cen tral"),
        *("http://central:99999", "http://central/#top", "http://central/api/../admin"),
    ],
    "DATA_DIR": [""],
    "POLL_MODE": ["sometimes"],
    "FLEET_REPORT": ["maybe", "", "1"],
    "FEED_SOURCE": ["", "kafka"],
    "NATS_URL": [
        "",
        "nats.example.com",
        "http://nats.example.com",
        "nats://a/b",
    ],
    "NATS_API_PREFIX": ["", "$JS.>", "a..b", "a b"],
    "NATS_CREDENTIALS_FILE": ["/does/not/exist.creds"],
    "NATS_CA_FILE": ["/does/not/exist.pem"],
    "FAST_READS": ["maybe", "", "1"],
    "SEARCH": ["maybe", "", "1"],
    "API_DOCS": ["maybe", "", "1"],
    "METRICS": ["on"],
    "METRICS_KEY_REQUIRED": ["yes"],
    "CORS_ORIGINS": [
        *("till.example.com", "https://till.example.com/", "https://till.example.com:443"),
        *("https://Till.example.com", "https://a.example.com,*"),
    ],
    "CENTRAL_CA_FILE": ["/does/not/exist.pem"],
    "TLS_CERT_FILE": ["/does/not/exist.pem"],
    "TRUSTED_PROXIES": ["proxy.example.com", "10.0.0.1/8", "proxy-v1:10.0.0.1", "10.0.0.1,"],
}


@pytest.mark.parametrize(
    ("variable", "bad"), [(name, bad) for name in WRONG for bad in WRONG[name]]
)
def test_a_bad_value_is_named_and_explained(variable: str, bad: str) -> None:
    """The line names the variable, its value, the allowed values and an example."""
    [line] = errors(**{variable: bad})

    assert line.startswith(f"{variable} was {bad!r}")
    assert "; it may be " in line
    assert f", for example {variable}=" in line


@pytest.mark.parametrize(("word", "is_on"), [("true", True), ("False", False), ("FALSE", False)])
def test_a_switch_is_one_of_two_words(word: str, is_on: bool) -> None:
    """Case does not matter."""
    assert is_on == settings(FAST_READS=word).fast_reads


def test_all_bad_variables_are_reported_at_once() -> None:
    """There is one line for each, so that one start shows all mistakes."""
    lines = errors(
        PORT="x", STORE_ID="", API_KEYS="", CENTRAL_API_URL="x", ENVIRONMENT="prod", HOST=" "
    )

    named = [line.split()[0] for line in lines]
    assert ["ENVIRONMENT", "PORT", "HOST", "STORE_ID", "API_KEYS", "CENTRAL_API_URL"] == named


@pytest.mark.parametrize(
    "env",
    [
        {"API_KEYS": "canary-1,,canary-2"},
        {"API_KEYS": "canary é"},
        {"API_KEYS": "sha256:canary"},
        {"API_KEYS": "canary", "ADMIN_API_KEYS": "canary"},
        {"ADMIN_API_KEYS": "canary,"},
        {"CENTRAL_API_KEY": "canary\n"},
        {"CENTRAL_API_URL": "http://shop:canary@central"},
        {"CENTRAL_API_URL": "http://central/?key=canary"},
        {"CENTRAL_API_URL": "http://canary@central:port"},
    ],
)
def test_no_error_contains_a_secret(env: dict[str, str]) -> None:
    """Keys and passwords in addresses are not repeated in the message."""
    [line] = errors(**env)

    assert "canary" not in line


def test_settings_do_not_print_their_secrets() -> None:
    """Logging the object by mistake reveals no key."""
    loaded = settings(API_KEYS="canary", ADMIN_API_KEYS="canary-2", CENTRAL_API_KEY="canary-3")

    assert "canary" not in repr(loaded)


@pytest.mark.parametrize("variable", ["API_KEYS", "ADMIN_API_KEYS", "CENTRAL_API_KEY"])
def test_production_refuses_keys_that_others_know_or_guess(variable: str) -> None:
    """Keys of the documentation, whatever their length, and keys of less than 16 characters."""
    hashed_demo = "sha256:" + hashlib.sha256(b"demo").hexdigest()
    for known in ("demo", "the-key-that-central-gave"):
        [line] = errors(**PRODUCTION | {variable: known})
        assert "holds a key from the documentation, which production refuses" in line
    [short] = errors(**PRODUCTION | {variable: "x" * 15})

    assert "holds a key of less than 16 characters, which production refuses" in short
    assert "x" * 16 in settings(**PRODUCTION | {variable: "x" * 16}).secrets()
    if variable != "CENTRAL_API_KEY":
        [line] = errors(**PRODUCTION | {variable: f"{'x' * 16},{hashed_demo}"})
        assert "from the documentation" in line


@pytest.mark.parametrize("environment", ["production", "Production"])
def test_production_requires_the_store_s_id(tmp_path: Path, environment: str) -> None:
    """Any id will do, the default too, from the environment or the file."""
    given = {name: value for name, value in PRODUCTION.items() if name != "STORE_ID"}
    given["ENVIRONMENT"] = environment
    file = tmp_path / ".env"
    file.write_text("STORE_ID=store-s1\n")
    [line] = errors(**given)

    assert line.startswith("STORE_ID was not set, which production requires; it may be ")
    assert "store-s1" == settings(**given, STORE_ID="store-s1").store_id
    assert "store-s1" == load_settings(given, file).store_id


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("CENTRAL_API_ULR", "CENTRAL_API_URL"),
        ("CENTRAL_URL", "CENTRAL_API_URL"),
        ("api_key", "API_KEYS"),
        ("LOGLEVEL", "LOG_LEVEL"),
        ("SYNC_INTERVAL", "SYNC_INTERVAL_SECONDS"),
        ("KEY_RETENTION_DAYS", "KEY_RETENTION_HOURS"),
        ("STORE_ID_OLD", "STORE_ID"),
    ],
)
def test_a_misspelt_name_in_the_file_is_an_error(tmp_path: Path, name: str, meant: str) -> None:
    """In every environment; the line tells which setting may be meant, and no value."""
    file = tmp_path / ".env"
    file.write_text(f"{name}=canary\n")
    with pytest.raises(SettingsError) as caught:
        load_settings({}, file)

    assert f"{name.upper()} in {file} is no setting; if {meant} is meant" in str(caught.value)
    assert "canary" not in str(caught.value)


def test_other_names_are_ignored(tmp_path: Path) -> None:
    """Those of other programs in the file, and all unknown ones of the environment."""
    file = tmp_path / ".env"
    names = ("PATH", "TZ", "POSTGRES_PASSWORD", "COMPOSE_PROJECT_NAME", "CENTRAL_STUB_PORTS")
    file.write_text("".join(f"{name}=x\n" for name in names) + "ALONE\n")

    assert settings() == load_settings({"CENTRAL_API_ULR": "x"}, file)


@pytest.mark.parametrize(("mode", "lines"), [(0o600, 0), (0o640, 0), (0o644, 1)])
def test_a_file_that_everybody_can_read_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, lines: int
) -> None:
    """It may hold keys; the line tells how to correct that."""
    file = tmp_path / ".env"
    warn_of_exposed_file(file)
    file.touch()
    file.chmod(mode)
    warn_of_exposed_file(file)

    assert lines == len(caplog.records)
    assert all(f"chmod 600 {file}" in one.message for one in caplog.records)


def test_keys_may_be_plain_or_hashed() -> None:
    """Spaces around keys are ignored, and a hash stands for the key it was made of."""
    digits = HASH.removeprefix(HASHED)
    loaded = settings(API_KEYS=f" till-1 , {HASHED}{digits.upper()}", CENTRAL_API_KEY="c")

    assert ("till-1", HASH, "c") == loaded.secrets()
    assert key_digest("till-1") == key_digest(HASH)


def test_a_key_file_takes_the_place_of_the_default_keys(tmp_path: Path) -> None:
    """Keys that everybody knows are not accepted beside those of the file; others may be given, and
    none is in both. Production refuses known ones there too."""
    file = tmp_path / "keys.jsonl"
    lines = [NamedKey(f"till-{n}", "write", key_digest(f"till-{n}")) for n in range(2)]
    file.write_bytes(b"\n".join(map(encode_line, lines)))

    assert () == settings(KEYS_FILE=str(file)).api_keys
    assert "other" in settings(KEYS_FILE=str(file), API_KEYS="other").secrets()
    [line] = errors(KEYS_FILE=str(file), API_KEYS="till-1")
    assert "holds a key of KEYS_FILE too" in line
    [line] = errors(KEYS_FILE=str(file), ADMIN_API_KEYS=HASH)
    assert "holds a key of KEYS_FILE too" in line
    [line] = errors(**PRODUCTION | {"KEYS_FILE": str(file)})
    assert "KEYS_FILE" in line
    assert "holds a key from the documentation" in line


@pytest.mark.parametrize(
    ("content", "why"), [(None, "does not exist"), ("[]", "line 1, which is not a JSON object")]
)
def test_a_wrong_key_file_is_an_error(tmp_path: Path, content: str | None, why: str) -> None:
    """One line says what to do; no false line about API_KEYS follows."""
    file = tmp_path / "keys.jsonl"
    if content is not None:
        file.write_text(content)
    [line] = errors(KEYS_FILE=str(file))

    assert line.startswith("KEYS_FILE was ")
    assert why in line


def test_a_key_has_one_scope() -> None:
    """A key for tills and admins, even as its hash, is refused."""
    [line] = errors(API_KEYS="till-1", ADMIN_API_KEYS=HASH)

    assert "holds a key of API_KEYS too" in line


def test_central_may_have_a_path_in_front() -> None:
    """The address is used as given, without the slash at its end."""
    loaded = settings(CENTRAL_API_URL="https://gateway.example.com:8443/chain/central/")

    assert "https://gateway.example.com:8443/chain/central" == loaded.central_api_url


def test_origins_are_a_list_and_every_page_only_outside_production() -> None:
    """Several origins are allowed; `*` only alone, and not in production."""
    two = settings(CORS_ORIGINS="https://a.example.com, http://localhost:5173").cors_origins
    [line] = errors(**PRODUCTION, CORS_ORIGINS="*")

    assert ("https://a.example.com", "http://localhost:5173") == two
    assert ("*",) == settings(CORS_ORIGINS="*").cors_origins
    assert line.startswith("CORS_ORIGINS was '*', which allows every web page")


def test_a_certificate_authority_needs_https_and_certificates(tmp_path: Path) -> None:
    """The file must contain certificates, and the address must use https."""
    no_pem = tmp_path / "ca.pem"
    no_pem.write_text("not a certificate")
    [over_http] = errors(CENTRAL_CA_FILE=str(no_pem), CENTRAL_API_URL="http://central")
    [without_any] = errors(CENTRAL_CA_FILE=str(no_pem), CENTRAL_API_URL="https://central")

    assert "CENTRAL_API_URL is http" in over_http
    assert "holds no certificate in PEM form" in without_any


def test_a_certificate_authority_is_taken(tmp_path: Path) -> None:
    """A readable PEM file is accepted with https."""
    file = Certificates(tmp_path).ca_file
    loaded = settings(CENTRAL_CA_FILE=str(file), CENTRAL_API_URL="https://central")

    assert file == loaded.central_ca_file


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    """The file is used for variables that the environment lacks, in any case."""
    file = tmp_path / ".env"
    file.write_text("PORT=9001\nstore_id=from-file\nCENTRAL_STUB_PORT=1\nAPI_KEYS=a,b\n")
    loaded = load_settings({"PORT": "9002", "PATH": "/bin"}, env_file=file)

    assert (9002, "from-file", ("a", "b", "demo")) == (
        loaded.port,
        loaded.store_id,
        loaded.secrets(),
    )


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without arguments, variables come from the environment of the process."""
    monkeypatch.setenv("STORE_ID", "from-process")

    assert "from-process" == load_settings(env_file=None).store_id


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    """A damaged `.env` gives an error like a wrong setting, not a traceback."""
    file = tmp_path / ".env"
    file.write_bytes(b"PORT=\xff\xfe")
    with pytest.raises(SettingsError, match=r"\.env cannot be read as a file of settings"):
        load_settings({}, env_file=file)


@pytest.mark.parametrize(
    ("profile", "numbers", "others"),
    [
        ("busy-store", (10, 5, 200), {}),
        ("small-store", (60, 30, 50), {"poll_mode": "interval"}),
        ("development", (5, 2, 10), {"environment": "development", "log_level": "debug"}),
        ("production", (30, 20, 100), {"environment": "production", "log_level": "info"}),
    ],
)
def test_profiles_load(
    project_root: Path, profile: str, numbers: tuple[int, int, int], others: dict[str, str]
) -> None:
    """Each profile sets its interval, wait and batch limit, and no unknown variable."""
    file = project_root / "config" / f"{profile}.env"
    own = {name: value for name, value in PRODUCTION.items() if name != "ENVIRONMENT"}
    loaded = load_settings(own, env_file=file)

    assert numbers == (
        loaded.sync_interval_seconds,
        loaded.event_wait_timeout_seconds,
        loaded.event_batch_limit,
    )
    assert others == {name: getattr(loaded, name) for name in others}
    assert set(dotenv_values(file)) <= set(Settings.variables().values())
