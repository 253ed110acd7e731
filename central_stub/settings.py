"""The settings of `central-stub serve`: options, the environment, and `.env`, in this order.

A bad one raises BadSetting: one line with the variable, its value and the values it may have. The
value of a secret is not shown.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from central_stub.switches import LIKE, Feature, Switches

PREFIX = "CENTRAL_STUB_"
FEATURES = ", ".join(feature.value for feature in Feature)
MAY_BE = {
    "port": "a whole number from 0 to 65535 (0: any free port)",
    "host": "an address to listen on",
    "api_keys": "one or more keys, comma-separated",
    "admin_api_keys": "one or more keys, comma-separated",
    "tenant_keys": "pairs as acme:key-of-a-store, comma-separated, each key once, or empty",
    "store_ids": "pairs as store-17:key-of-that-store, comma-separated, or empty",
    "data_dir": "a folder, or empty for memory only",
    "database": "postgresql://user:password@host/name, or empty; then without a data_dir",
    "event_limit": "a whole number from 1 to 100000000",
    "page_limit": "a whole number from 1 to 1000000",
    "rate_limit": "a whole number from 0 to 1000000000 (0: no limit)",
    "key_memory_seconds": "a number of seconds from 0 to 1000000000",
    "like": f"{', '.join(LIKE)}, or empty",
    "without": f"any of {FEATURES}, comma-separated, or empty",
}
SECRET = frozenset({"api_keys", "admin_api_keys", "tenant_keys", "store_ids", "database"})

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")

KeyList = Annotated[tuple[SecretStr, ...], NoDecode, Field(min_length=1)]


class BadSetting(ValueError):
    """One line to print: the variable, its value, and the values it may have."""


class Settings(BaseSettings):
    """`CENTRAL_STUB_*`, checked."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=".env", env_file_encoding="utf-8", extra="ignore", frozen=True
    )

    port: Annotated[int, Field(ge=0, le=65_535)] = 8081
    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    api_keys: KeyList = (SecretStr("demo"),)
    admin_api_keys: KeyList = (SecretStr("admin-demo"),)
    tenant_keys: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    store_ids: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    data_dir: Path | None = None
    database: SecretStr | None = None
    event_limit: Annotated[int, Field(ge=1, le=100_000_000)] = 10_000
    page_limit: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    rate_limit: Annotated[int, Field(ge=0, le=1_000_000_000)] = 0
    key_memory_seconds: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)] = 86_400
    like: Literal["older"] | None = None
    without: Annotated[frozenset[Feature], NoDecode] = frozenset()

    @field_validator(
        "api_keys", "admin_api_keys", "tenant_keys", "store_ids", "without", mode="before"
    )
    @classmethod
    def _split(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return [part.strip() for part in value.split(",") if part.strip()]

    @field_validator("data_dir", "database", "like", mode="before")
    @classmethod
    def _empty_is_none(cls, value: Any) -> Any:
        return None if value == "" else value

    @field_validator("database")
    @classmethod
    def _is_the_only_place(
        cls, database: SecretStr | None, info: ValidationInfo
    ) -> SecretStr | None:
        if database is not None and info.data.get("data_dir") is not None:
            raise ValueError("a ledger is in a folder or in a database")
        if database is not None and "://" not in database.get_secret_value():
            raise ValueError("not a URL")
        return database

    @field_validator("tenant_keys")
    @classmethod
    def _are_pairs(
        cls, pairs: tuple[SecretStr, ...], info: ValidationInfo
    ) -> tuple[SecretStr, ...]:
        known = {*info.data.get("api_keys", ()), *info.data.get("admin_api_keys", ())}
        for pair in pairs:
            tenant, _, key = pair.get_secret_value().partition(":")
            if not (_NAME.fullmatch(tenant) and key):
                raise ValueError("a pair is no tenant and key")
            if SecretStr(key) in known:
                raise ValueError("a key belongs to two tenants")
            known.add(SecretStr(key))
        return pairs

    @field_validator("store_ids")
    @classmethod
    def _are_of_known_keys(
        cls, pairs: tuple[SecretStr, ...], info: ValidationInfo
    ) -> tuple[SecretStr, ...]:
        known = {key.get_secret_value() for key in info.data.get("api_keys", ())}
        for pair in info.data.get("tenant_keys", ()):
            known.add(pair.get_secret_value().partition(":")[2])
        for pair in pairs:
            store_id, _, key = pair.get_secret_value().partition(":")
            if not _NAME.fullmatch(store_id):
                raise ValueError("a pair does not begin with the id of a store")
            if key not in known:
                raise ValueError("a key is none of a store")
        return pairs

    @property
    def switches(self) -> Switches:
        """The switches of the Central that `like` names, and those that are set by themselves."""
        base = Switches() if self.like is None else LIKE[self.like]
        names = self.model_fields_set & Switches.model_fields.keys()
        return base.model_copy(update={name: getattr(self, name) for name in names})

    @property
    def database_url(self) -> str | None:
        return None if self.database is None else self.database.get_secret_value()

    @property
    def store_keys(self) -> list[str]:
        return [key.get_secret_value() for key in self.api_keys]

    @property
    def keys_of_tenants(self) -> dict[str, list[str]]:
        """The keys of the stores of each tenant that has a name."""
        keys: dict[str, list[str]] = {}
        for pair in self.tenant_keys:
            tenant, _, key = pair.get_secret_value().partition(":")
            keys.setdefault(tenant, []).append(key)
        return keys

    @property
    def store_ids_of_keys(self) -> dict[str, set[str]]:
        """The stores that each key belongs to, of the keys that are bound to some."""
        bound: dict[str, set[str]] = {}
        for pair in self.store_ids:
            store_id, _, key = pair.get_secret_value().partition(":")
            bound.setdefault(key, set()).add(store_id)
        return bound

    @property
    def admin_keys(self) -> list[str]:
        return [key.get_secret_value() for key in self.admin_api_keys]


def read_settings(**options: Any) -> Settings:
    """Return the settings; `options` override the environment. BadSetting."""
    try:
        return Settings(**options)
    except ValidationError as error:
        raise BadSetting(_line(error)) from None


def _line(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_context=False)[0]
    name = str(problem["loc"][0])
    was = "(not shown)" if name in SECRET else _shown(problem["input"])
    return f"{PREFIX}{name.upper()} was {was}; it may be {MAY_BE[name]}"


def _shown(value: Any) -> str:
    text = repr(value.value if isinstance(value, Feature) else value)
    return text if len(text) <= 80 else f"{text[:77]}..."
