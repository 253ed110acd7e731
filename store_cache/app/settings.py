"""The settings: each variable, its default, its allowed values, and how they are read.

Parts of the program receive plain values, never this object. Every wrong variable is reported, each
in a line of its own; no line contains a secret.
"""

import contextlib
import ipaddress
import logging
import os
import re
import ssl
import stat
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import SplitResult, urlsplit

from dotenv import dotenv_values
from pydantic import (
    BeforeValidator,
    Field,
    SecretStr,
    Strict,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from store_cache.api.auth import HASHED, key_digest
from store_cache.api.key_file import KeyFileError, load_key_file
from store_cache.api.proxies import TrustedProxies
from store_cache.api.tls import TlsFilesError, load_authorities, load_certificate

log = logging.getLogger(__name__)

PUBLISHED_KEYS = (
    *("store-s1-key", "demo", "admin-demo", "office", "office-secret", "the-key-that-central-gave"),
    *("till-1", "till-2", "till-1-secret", "till-2-secret"),
)
"""Every key that the documentation, the examples or the defaults show. They are known to all."""

_LEAST_KEY_CHARACTERS = 16

# Settings of the Central stub, which may share the store's `.env`.
_STUB_PREFIX = "CENTRAL_STUB_"

# How alike two names are, from 0 to 1, for one to be taken for a misspelling of the other.
_ALIKE = 0.8

_VISIBLE_ASCII = re.compile(r"[!-~]+")
_NATS_SECRET = re.compile(r"^SU[A-Z2-7]{40,}\s*$", re.MULTILINE)
_HASHED_KEY = re.compile(r"sha256:[0-9a-f]{64}")
_HOST_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9])?")
_USER = re.compile(r"//.*@")
_QUERY = re.compile(r"\?.*", re.DOTALL)
_SHOWN_CHARACTERS = 100
_SECRET_VARIABLES = frozenset({"API_KEYS", "ADMIN_API_KEYS", "CENTRAL_API_KEY"})


class SettingsError(ValueError):
    """The settings are wrong; `str()` has one line for each wrong variable."""


def load_settings(
    env: Mapping[str, str] | None = None, env_file: Path | None = Path(".env")
) -> "Settings":
    """Read each setting from the environment, else from the file, else its default.

    `env` is the process's environment unless given. A missing `env_file` is not an error. Unknown
    variables are ignored, but for those of the file that look like misspelt settings. Raises
    SettingsError.
    """
    in_file = _read_file(env_file)
    source = in_file | dict(os.environ if env is None else env)
    given: dict[str, Any] = {
        field: source[name] for field, name in Settings.variables().items() if name in source
    }
    if given.get("keys_file"):
        given.setdefault("api_keys", "")  # its default, which all know, is for a first try
    problems: dict[str, str] = {}
    try:
        settings = Settings(**given)
    except ValidationError as exc:
        for error in exc.errors():
            field = str(error["loc"][0])
            problems.setdefault(field, _error_line(field, error))
    if "store_id" not in given and _lowered(given.get("environment")) == "production":
        # Stores that forget it would share one id, and each other's keys at Central.
        problems["store_id"] = _line("store_id", "was not set, which production requires")
    lines = [problems[field] for field in Settings.model_fields if field in problems]
    lines += [line for name in in_file if (line := _misspelt(name, env_file))]
    if lines:
        raise SettingsError("\n".join(lines))
    return settings


def given_text(name: str, env_file: Path | None = Path(".env")) -> str:
    """Return a variable as it is given, checked by nobody; empty if it is not. Raises
    SettingsError."""
    return os.environ.get(name) or _read_file(env_file).get(name, "")


def _read_file(env_file: Path | None) -> dict[str, str]:
    """Return the variables of the file; none if there is no file."""
    if env_file is None or not env_file.is_file():
        return {}
    try:
        values = dotenv_values(env_file, encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise SettingsError(f"{env_file} cannot be read as a file of settings: {exc}") from exc
    return {name.upper(): value for name, value in values.items() if value is not None}


def _misspelt(name: str, env_file: Path | None) -> str | None:
    """Return a line about a name that no setting has, if it looks like one of ours."""
    known = Settings.variables().values()
    if name in known or name.startswith(_STUB_PREFIX):
        return None
    begins = [one for one in known if "_" in name and one.split("_")[:2] == name.split("_")[:2]]
    if not (meant := begins or get_close_matches(name, known, n=1, cutoff=_ALIKE)):
        return None
    return f"{name} in {env_file} is no setting; if {meant[0]} is meant, write that, else remove it"


def warn_of_exposed_file(env_file: Path = Path(".env")) -> None:
    """Log a warning if the file may be read by every user of the machine."""
    with contextlib.suppress(OSError):  # there is none
        mode = stat.S_IMODE(env_file.stat().st_mode)
        if mode & stat.S_IROTH:
            log.warning(
                "%s, which may hold keys, can be read by every user of this machine (mode %03o): "
                "chmod 600 %s",
                *(env_file, mode, env_file),
            )


def _lowered(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _switched(value: object) -> object:
    """Read true and false; leave anything else for the type to refuse."""
    return {"true": True, "false": False}.get(str(value).lower(), value)


def _listed(value: object) -> object:
    """Split a comma-separated list; an empty text is an empty list."""
    if not isinstance(value, str):
        return value
    return tuple(item.strip() for item in value.split(",")) if value.strip() else ()


def _empty_is_none(value: object) -> object:
    return None if value == "" else value


def _setting(default: str | float, *, may_be: str, example: str, **bounds: Any) -> Any:
    """Return a field whose default is written as in the environment, and checked like it."""
    return Field(default, description=may_be, examples=[example], **bounds)


def _switch(default: str) -> Any:
    """Return a field that is true or false; `default` as in the environment."""
    return _setting(default, may_be="true or false", example="true")


_Switch = Annotated[bool, Strict(), BeforeValidator(_switched)]
_File = Annotated[Path | None, BeforeValidator(_empty_is_none)]
_Keys = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_listed)]
_KEYS_MAY_BE = (
    "keys of visible ASCII characters, separated by commas, each plain or as sha256:<hex>"
)


class Settings(BaseSettings):
    """The checked settings. Attributes are named like the variables, in lower case."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,
        validate_default=True,
        allow_inf_nan=False,
    )

    # First, since the bounds of some others depend on it.
    environment: Annotated[
        Literal["development", "staging", "production"], BeforeValidator(_lowered)
    ] = _setting("development", may_be="development, staging or production", example="production")
    port: int = _setting(
        8083,
        may_be="a whole number from 0 to 65535 (0: any free port)",
        example="8083",
        ge=0,
        le=65535,
    )
    host: str = _setting(
        "0.0.0.0",  # noqa: S104 - the tills of the shop are on other machines
        may_be="an address or a host name",
        example="127.0.0.1",
    )
    grpc_port: Annotated[int | None, BeforeValidator(_empty_is_none)] = _setting(
        "",
        may_be="empty (no gRPC), or a whole number from 1 to 65535 (from 0, any free port, in "
        "development)",
        example="8084",
        ge=0,
        le=65535,
    )
    log_level: Annotated[Literal["debug", "info", "warn", "error"], BeforeValidator(_lowered)] = (
        _setting("info", may_be="debug, info, warn or error", example="info")
    )
    store_id: str = _setting(
        "store-s1",
        may_be="1 to 64 letters, digits, - and _",
        example="store-s1",
        pattern=r"^[A-Za-z0-9_-]{1,64}$",
    )
    tenant_id: str = _setting(
        "",
        may_be="empty, or 1 to 64 letters, digits, - and _",
        example="acme",
        pattern=r"^[A-Za-z0-9_-]{0,64}$",
    )
    # Before the two lists, which may hold none of its keys.
    keys_file: _File = _setting(
        "",
        may_be="empty, or a file that `store-cache keys` wrote",
        example="/etc/store-cache/keys.jsonl",
    )
    api_keys: _Keys = _setting(
        "store-s1-key,demo", may_be=_KEYS_MAY_BE, example="till-1-secret,till-2-secret"
    )
    admin_api_keys: _Keys = _setting(
        "", may_be=f"empty, or {_KEYS_MAY_BE}", example="office-secret"
    )
    central_api_url: str = _setting(
        "http://localhost:8081",
        may_be="an http or https address without user, query or fragment",
        example="https://central.example.com",
    )
    central_api_key: SecretStr = _setting(
        "demo", may_be="a key of visible ASCII characters", example="the-key-that-central-gave"
    )
    data_dir: Path = _setting("./data", may_be="the path of a folder", example="./data")
    sync_interval_seconds: int = _setting(
        30,
        may_be="a whole number from 10 to 300 (from 1 in development)",
        example="30",
        ge=1,
        le=300,
    )
    event_wait_timeout_seconds: int = _setting(
        20,
        may_be="a whole number from 5 to 60 (from 1 in development)",
        example="20",
        ge=1,
        le=60,
    )
    event_batch_limit: int = _setting(
        100, may_be="a whole number from 10 to 500", example="100", ge=10, le=500
    )
    sync_interval_minutes: int = _setting(
        5, may_be="a whole number from 1 to 1440", example="5", ge=1, le=1440
    )
    verify_interval_minutes: float = _setting(
        15, may_be="a number from 0 to 1440", example="15", ge=0, le=1440
    )
    verify_lap_hours: float = _setting(
        24, may_be="a number from 0.1 to 720", example="24", ge=0.1, le=720
    )
    poll_mode: Annotated[Literal["continuous", "interval"], BeforeValidator(_lowered)] = _setting(
        "continuous", may_be="continuous or interval", example="continuous"
    )
    feed_source: Annotated[Literal["http", "nats"], BeforeValidator(_lowered)] = _setting(
        "http", may_be="http or nats", example="nats"
    )
    nats_url: str = _setting(
        "nats://localhost:4222",
        may_be="nats or tls addresses without user, path, query or fragment, separated by commas",
        example="tls://nats.example.com:4222",
    )
    nats_api_prefix: str = _setting(
        "$JS.API",
        may_be="a subject without wildcards",
        example="FEED.API",
        pattern=r"^[A-Za-z0-9_$-]+(\.[A-Za-z0-9_$-]+)*$",
    )
    nats_credentials_file: _File = _setting(
        "",
        may_be="empty, or a readable file: a .creds file, or the seed of an nkey",
        example="/etc/store-cache/nats.creds",
    )
    nats_ca_file: _File = _setting(
        "",
        may_be="empty, or a readable file of PEM certificates",
        example="/etc/store-cache/nats-ca.pem",
    )
    stale_after_seconds: int = _setting(
        60, may_be="a whole number from 1 to 86400", example="60", ge=1, le=86400
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed)] = _setting(
        "",
        may_be="empty, origins as a browser sends them, separated by commas, or * alone",
        example="https://till.example.com",
    )
    central_ca_file: _File = _setting(
        "",
        may_be="empty, or a readable file of PEM certificates, with an https CENTRAL_API_URL",
        example="/etc/store-cache/central-ca.pem",
    )
    central_client_cert_file: _File = _setting(
        "",
        may_be="empty, or a readable file of a certificate in PEM form, with an https "
        "CENTRAL_API_URL",
        example="/etc/store-cache/central-client.pem",
    )
    central_client_key_file: _File = _setting(
        "",
        may_be="empty if CENTRAL_CLIENT_CERT_FILE holds the key too, or a readable file of its "
        "private key in PEM form, not encrypted",
        example="/etc/store-cache/central-client-key.pem",
    )
    hole_grace_seconds: float = _setting(
        2, may_be="a number from 0.1 to 60", example="2", ge=0.1, le=60
    )
    snapshot_min_percent: int = _setting(
        50, may_be="a whole number from 0 to 100", example="50", ge=0, le=100
    )
    write_timeout_seconds: float = _setting(
        8, may_be="a number from 1 to 60", example="8", ge=1, le=60
    )
    key_retention_hours: int = _setting(
        24, may_be="a whole number from 1 to 8760", example="24", ge=1, le=8760
    )
    offline_writes: Annotated[Literal["refuse", "queue"], BeforeValidator(_lowered)] = _setting(
        "refuse", may_be="refuse or queue", example="refuse"
    )
    outbox_limit: int = _setting(
        10_000, may_be="a whole number from 1 to 100000", example="10000", ge=1, le=100_000
    )
    outbox_max_age_hours: float = _setting(
        0, may_be="a number from 0 to 8760 (0: no limit)", example="12", ge=0, le=8760
    )
    tls_cert_file: _File = _setting(
        "",
        may_be="empty, or a readable file of a certificate and its chain in PEM form",
        example="/etc/store-cache/tls.pem",
    )
    tls_key_file: _File = _setting(
        "",
        may_be="empty if TLS_CERT_FILE holds the key too, or a readable file of its private key "
        "in PEM form, not encrypted",
        example="/etc/store-cache/tls-key.pem",
    )
    tls_client_ca_file: _File = _setting(
        "",
        may_be="empty, or a readable file of PEM certificates, with a TLS_CERT_FILE",
        example="/etc/store-cache/till-ca.pem",
    )
    trusted_proxies: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed)] = _setting(
        "",
        may_be="empty, or addresses and networks, separated by commas, each plain if it adds "
        "X-Forwarded-For, or as proxy-v2:<address> if it speaks PROXY protocol v2",
        example="10.0.0.5,proxy-v2:10.0.1.0/24",
    )
    rate_limit_reads: int = _setting(
        0, may_be="a whole number from 0 to 100000 (0: no limit)", example="500", ge=0, le=100000
    )
    rate_limit_writes: int = _setting(
        0, may_be="a whole number from 0 to 100000 (0: no limit)", example="50", ge=0, le=100000
    )
    fleet_report: _Switch = _switch("true")
    fast_reads: _Switch = _switch("true")
    stream_readers: int = _setting(
        500, may_be="a whole number from 0 to 1800 (0: off)", example="500", ge=0, le=1800
    )
    history_limit: int = _setting(
        100_000,
        may_be="a whole number from 0 to 10000000 (0: off)",
        example="100000",
        ge=0,
        le=10_000_000,
    )
    stream_history: int = _setting(
        10_000, may_be="a whole number from 100 to 1000000", example="10000", ge=100, le=1_000_000
    )
    search: _Switch = _switch("true")
    console: _Switch = _switch("true")
    api_docs: _Switch = _switch("true")
    metrics: _Switch = _switch("true")
    metrics_key_required: _Switch = _switch("false")

    @classmethod
    def variables(cls) -> dict[str, str]:
        """Return the name of the variable of each field."""
        return {field: field.upper() for field in cls.model_fields}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the arguments alone, which `load_settings` passes."""
        return (init_settings,)

    def secrets(self) -> tuple[str, ...]:
        """Return every value that must never be logged."""
        held = (*self.api_keys, *self.admin_api_keys, self.central_api_key)
        return tuple(secret.get_secret_value() for secret in held)

    @field_validator("sync_interval_seconds", "event_wait_timeout_seconds")
    @classmethod
    def _check_lower_bound(cls, seconds: int, info: ValidationInfo) -> int:
        lower = 10 if info.field_name == "sync_interval_seconds" else 5
        if seconds < lower and _environment(info) != "development":
            raise ValueError(f"is below {lower}, which only ENVIRONMENT=development allows")
        return seconds

    @field_validator("host")
    @classmethod
    def _check_host(cls, host: str) -> str:
        if not _is_host(host):
            raise ValueError("is neither an IP address nor a host name")
        return host

    @field_validator("grpc_port")
    @classmethod
    def _check_grpc_port(cls, port: int | None, info: ValidationInfo) -> int | None:
        if port == 0 and _environment(info) != "development":
            raise ValueError("is any free port, which only ENVIRONMENT=development allows")
        if port and port == info.data.get("port"):
            raise ValueError("is PORT too; HTTP and gRPC need a port each")
        return port

    @field_validator("keys_file")
    @classmethod
    def _check_keys_file(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        if path is None:
            return None
        try:
            digests = {key.digest for key in load_key_file(path)}
        except KeyFileError as exc:
            raise ValueError(str(exc)) from None
        if _environment(info) == "production" and digests & _digests(PUBLISHED_KEYS):
            raise ValueError("holds a key from the documentation, which production refuses")
        return path

    @field_validator("api_keys")
    @classmethod
    def _check_api_keys(
        cls, keys: tuple[SecretStr, ...], info: ValidationInfo
    ) -> tuple[SecretStr, ...]:
        if not keys and info.data.get("keys_file", "a wrong one") is None:
            raise ValueError("holds no key, so that no till could call")
        return _checked_keys(keys, info)

    @field_validator("admin_api_keys")
    @classmethod
    def _check_admin_api_keys(
        cls, keys: tuple[SecretStr, ...], info: ValidationInfo
    ) -> tuple[SecretStr, ...]:
        checked = _checked_keys(keys, info)
        if _digests(checked) & _digests(info.data.get("api_keys", ())):
            raise ValueError("holds a key of API_KEYS too, so that its scope is not clear")
        return checked

    @field_validator("central_api_url")
    @classmethod
    def _check_central_api_url(cls, url: str) -> str:
        parts = _split_url(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("is not an http or https address")
        if parts.username is not None or "?" in url or "#" in url:
            raise ValueError("holds more than scheme, host, port and path")
        if not _is_host(parts.hostname) or ".." in parts.path.split("/"):
            raise ValueError("has a host or a path that cannot be")
        return url.rstrip("/")

    @field_validator("feed_source")
    @classmethod
    def _check_feed_source(cls, source: str) -> str:
        if source == "nats" and find_spec("nats") is None:
            raise ValueError("needs a package: pip install 'store-cache[nats]'")
        return source

    @field_validator("nats_url")
    @classmethod
    def _check_nats_url(cls, urls: str) -> str:
        for url in urls.split(","):
            parts = _split_url(url.strip())
            if parts.scheme not in ("nats", "tls") or not _is_host(parts.hostname or ""):
                raise ValueError("holds something else than a nats or tls address")
            if parts.username is not None or parts.path or "?" in url or "#" in url:
                raise ValueError("holds more than scheme, host and port")
        return urls

    @field_validator("nats_credentials_file")
    @classmethod
    def _check_nats_credentials(cls, path: Path | None) -> Path | None:
        if path is not None:
            try:
                text = path.read_text(encoding="ascii")
            except (OSError, UnicodeDecodeError) as exc:
                raise ValueError(f"cannot be read: {exc}") from None
            if not _NATS_SECRET.search(text):
                raise ValueError("holds neither a NATS user JWT with its seed nor a seed")
        return path

    @field_validator("nats_ca_file")
    @classmethod
    def _check_nats_authorities(cls, path: Path | None) -> Path | None:
        if path is not None:
            load_authorities(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), path)
        return path

    @field_validator("central_api_key")
    @classmethod
    def _check_central_api_key(cls, key: SecretStr, info: ValidationInfo) -> SecretStr:
        if not _VISIBLE_ASCII.fullmatch(key.get_secret_value()):
            raise ValueError("is empty or holds something else than visible ASCII characters")
        if _environment(info) == "production":
            _check_strength((key,))
        return key

    @field_validator("data_dir", mode="before")
    @classmethod
    def _check_data_dir(cls, path: object) -> object:
        if path == "" or "\0" in str(path):
            raise ValueError("names no folder")
        return path

    @field_validator("cors_origins")
    @classmethod
    def _check_cors_origins(cls, origins: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if origins == ("*",):
            if _environment(info) == "production":
                raise ValueError("allows every web page, which production refuses")
            return origins
        for origin in origins:
            if not _is_origin(origin):
                raise ValueError(f"holds {_shown(origin)}, which is no origin")
        return origins

    @field_validator("trusted_proxies")
    @classmethod
    def _check_trusted_proxies(cls, entries: tuple[str, ...]) -> tuple[str, ...]:
        TrustedProxies.parse(entries)
        return entries

    @field_validator("central_ca_file", "central_client_cert_file", "tls_cert_file")
    @classmethod
    def _check_certificates(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        url = info.data.get("central_api_url", "https:")
        if path is None:
            return None
        if info.field_name != "tls_cert_file" and url.startswith("http:"):
            raise ValueError("is given, but CENTRAL_API_URL is http, where it has no meaning")
        load_authorities(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), path)
        return path

    @field_validator("central_client_key_file", "tls_key_file")
    @classmethod
    def _check_private_key(cls, key: Path | None, info: ValidationInfo) -> Path | None:
        """Also where the certificate's file is to hold the key."""
        cert_field = str(info.field_name).replace("key", "cert")
        cert = info.data.get(cert_field)
        if cert is not None:
            try:
                load_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), cert, key)
            except TlsFilesError as exc:
                where = "" if key else f"is not given, and {cert_field.upper()} "
                raise ValueError(f"{where}{exc}") from None
        elif key is not None and cert_field in info.data:
            raise ValueError(f"is given without {cert_field.upper()}")
        return key

    @field_validator("tls_client_ca_file")
    @classmethod
    def _check_client_authorities(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        if path is None:
            return None
        if info.data.get("tls_cert_file", path) is None:
            raise ValueError("is given without TLS_CERT_FILE")
        load_authorities(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), path)
        return path


def _environment(info: ValidationInfo) -> str:
    """Return ENVIRONMENT; development if it is wrong itself, so that no false lines follow."""
    return str(info.data.get("environment", "development"))


def _checked_keys(keys: tuple[SecretStr, ...], info: ValidationInfo) -> tuple[SecretStr, ...]:
    checked = tuple(SecretStr(_checked_key(key.get_secret_value())) for key in keys)
    if _environment(info) == "production":
        _check_strength(checked)
    path = info.data.get("keys_file")
    if path is not None and _digests(checked) & {key.digest for key in load_key_file(path)}:
        raise ValueError("holds a key of KEYS_FILE too, so that its name is not clear")
    return checked


def _check_strength(keys: tuple[SecretStr, ...]) -> None:
    """Raises ValueError if somebody could know or guess one of the keys."""
    if _digests(keys) & _digests(PUBLISHED_KEYS):
        raise ValueError("holds a key from the documentation, which production refuses")
    plain = [key for key in keys if not key.get_secret_value().startswith(HASHED)]
    if any(len(key) < _LEAST_KEY_CHARACTERS for key in plain):
        raise ValueError(
            f"holds a key of less than {_LEAST_KEY_CHARACTERS} characters, which production refuses"
        )


def _checked_key(key: str) -> str:
    if not _VISIBLE_ASCII.fullmatch(key):
        raise ValueError("holds an empty key, or one with other than visible ASCII characters")
    if not key.startswith(HASHED):
        return key
    hashed = key.lower()
    if not _HASHED_KEY.fullmatch(hashed):
        raise ValueError("holds a sha256: that is not followed by 64 hexadecimal digits")
    return hashed


def _digests(keys: Iterable[SecretStr | str]) -> set[bytes]:
    return {key_digest(key if isinstance(key, str) else key.get_secret_value()) for key in keys}


def _split_url(url: str) -> SplitResult:
    """Raises ValueError, whose text contains nothing of the address."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises if it is malformed
    except ValueError:
        raise ValueError("is no address: its host or its port is malformed") from None
    if not _VISIBLE_ASCII.fullmatch(url):
        raise ValueError("is empty or holds something else than visible ASCII characters")
    return parts


def _is_host(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return _HOST_NAME.fullmatch(host) is not None
    return True


def _is_origin(origin: str) -> bool:
    """Return whether a browser may send this as `Origin`: in lower case, without the default
    port."""
    parts = _split_url(origin)
    usual_port = {"http": 80, "https": 443}.get(parts.scheme)
    whole = f"{parts.scheme}://{parts.netloc}".lower() == origin and "@" not in parts.netloc
    return whole and usual_port not in (None, parts.port) and _is_host(parts.hostname or "")


def _error_line(field: str, error: ErrorDetails) -> str:
    was = "***" if field.upper() in _SECRET_VARIABLES else _shown(error["input"])
    why = f", which {error['ctx']['error']}" if error["type"] == "value_error" else ""
    return _line(field, f"was {was}{why}")


def _line(field: str, problem: str) -> str:
    name, setting = field.upper(), Settings.model_fields[field]
    example = (setting.examples or [""])[0]
    return f"{name} {problem}; it may be {setting.description}, for example {name}={example}"


def _shown(value: object) -> str:
    """Return the value in one short line, without what may be a password in an address."""
    text = _QUERY.sub("?***", _USER.sub("//***@", str(value)))
    return repr(text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "...")
