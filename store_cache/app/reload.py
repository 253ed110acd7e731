"""Reloading at SIGHUP: keys, TLS files and the log level change while requests go on.

Everything is read and checked first. If anything is wrong, the log says what, and all stays as it
was: a mistake in a file must not lock a shop out.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import ssl
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from store_cache.api.auth import Authenticator, Caller, KeyRing
from store_cache.api.key_file import KeyFileError, load_key_file
from store_cache.api.tls import ServerTls, TlsFilesError
from store_cache.app.logging import change_logging
from store_cache.app.settings import Settings, SettingsError, load_settings
from store_cache.app.tls import reload_central_tls, server_tls

log = logging.getLogger(__name__)

RELOADED = frozenset(
    {
        *("api_keys", "admin_api_keys", "keys_file", "log_level"),
        *("tls_cert_file", "tls_key_file", "tls_client_ca_file"),
        *("central_ca_file", "central_client_cert_file", "central_client_key_file"),
    }
)
"""The settings that a reload applies; others need a restart."""

_SOON_SECONDS = 14 * 86_400.0

_CENTRAL_FILES = ("central_ca_file", "central_client_cert_file")


class ReloadSignal:
    """Notes SIGHUP, from its creation on, so that it never ends the process.

    The handler is not the event loop's, which is there only while the loop runs.
    """

    def __init__(self) -> None:
        self._is_wanted = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._arrived = asyncio.Event()
        signal.signal(signal.SIGHUP, self._note)

    def _note(self, *_: object) -> None:
        self._is_wanted = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._arrived.set)

    def close(self) -> None:
        """Ignore it from now on. A handler of Python would not outlive the interpreter."""
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    async def wait(self) -> None:
        """Wait for the next signal; one that came before counts, several count as one."""
        self._loop = asyncio.get_running_loop()
        while not self._is_wanted:
            await self._arrived.wait()
            self._arrived.clear()
        self._is_wanted = False


class TlsListener(Protocol):
    """The API's server."""

    @property
    def is_tls(self) -> bool: ...

    def use_tls(self, tls: ServerTls) -> None: ...


@dataclass(frozen=True, slots=True)
class _Read:
    """What a reload has read and checked."""

    settings: Settings
    ring: KeyRing
    tls: ServerTls | None


class Reloader:
    """`settings` are those in force; `load` reads them again. `central_tls` is the context of
    connections to Central, if they have one of their own, `local` the command line's key."""

    def __init__(
        self,
        settings: Settings,
        authenticator: Authenticator,
        listener: TlsListener,
        *,
        central_tls: ssl.SSLContext | None = None,
        local: Caller | None = None,
        load: Callable[[], Settings] = load_settings,
    ) -> None:
        self._settings = settings
        self._authenticator = authenticator
        self._listener = listener
        self._central_tls = central_tls
        # What the context towards Central was made with, and all that it has been given since.
        self._central_files_at_start = _central_files(settings)
        self._central_files = self._central_files_at_start
        self._local = local
        self._load = load

    async def run(self, wanted: ReloadSignal) -> None:
        """Reload at each signal, for ever."""
        while True:
            await wanted.wait()
            try:
                await self.reload()
            except Exception:
                log.exception("reload: a defect of the store; please report it")

    async def reload(self) -> None:
        """Read everything again and apply it, or log why not."""
        try:
            read = await asyncio.to_thread(self._read)
        except (SettingsError, KeyFileError, TlsFilesError) as problem:
            for line in str(problem).splitlines():
                log.error("reload: refused, all stays as it was: %s", line)
            return
        settings = read.settings
        self._authenticator.replace(read.ring)
        if read.tls is not None and self._listener.is_tls:
            self._listener.use_tls(read.tls)
        change_logging(settings.log_level, secrets=settings.secrets())
        log.info("reload: done; %d API keys, log level %s", len(read.ring), settings.log_level)
        if left := self._left_for_a_restart(settings):
            log.warning("reload: changes of these need a restart: %s", ", ".join(left))

    def _read(self) -> _Read:
        settings = self._load()
        read = _Read(settings, key_ring(settings, self._local), server_tls(settings))
        if self._central_tls is not None:
            reload_central_tls(self._central_tls, settings)
        return read

    def _left_for_a_restart(self, settings: Settings) -> list[str]:
        """Return the variables whose changes are not applied."""
        left = [
            name
            for name in Settings.model_fields
            if name not in RELOADED and getattr(settings, name) != getattr(self._settings, name)
        ]
        if (settings.tls_cert_file is not None) != self._listener.is_tls:
            left.append("tls_cert_file")
        left += self._left_towards_central(settings)
        return [name.upper() for name in left]

    def _left_towards_central(self, settings: Settings) -> list[str]:
        """Return the settings of files that connections to Central do not follow: a context cannot
        forget a certificate or an authority, and has none if there was no file at the start."""
        given = _central_files(settings)
        if self._central_tls is None:
            return sorted(given)
        left = self._central_files - given
        left |= (given - self._central_files_at_start) & {"central_ca_file"}
        self._central_files |= given
        return sorted(left)


def _central_files(settings: Settings) -> frozenset[str]:
    """Return the settings that name a file for connections to Central."""
    return frozenset(name for name in _CENTRAL_FILES if getattr(settings, name) is not None)


def key_ring(settings: Settings, local: Caller | None = None) -> KeyRing:
    """Return the API keys that the settings name, and the command line's. Logs those of the key
    file that end soon.

    Raises KeyFileError.
    """
    named = None
    if settings.keys_file is not None:
        named = load_key_file(settings.keys_file)
        now = time.time()
        valid = Counter(key.name for key in named if key.expires_at > now + _SOON_SECONDS)
        for key in named:
            if not valid[key.name]:
                _log_end(key.name, key.expires_at - now)
    return KeyRing(
        keys=[key.get_secret_value() for key in settings.api_keys],
        admin_keys=[key.get_secret_value() for key in settings.admin_api_keys],
        named=None if named is None else [key.caller() for key in named],
        local=local,
        tenant_id=settings.tenant_id,
    )


def _log_end(name: str, seconds: float) -> None:
    advice = f"give it a new one: store-cache keys new {name}"
    if seconds <= 0:
        log.warning("the API key of %s has expired; %s", name, advice)
    else:
        log.warning("the API key of %s expires in %.1f days; %s", name, seconds / 86_400, advice)
