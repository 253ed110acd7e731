"""A PostgreSQL server in a folder of its own, for `make chain` and the tests.

It listens only on a socket in that folder, which nobody else may enter. PostgreSQL refuses to run
as root: then it runs as `nobody`.

Errors:
    NoPostgres          its programs are not installed
    DidNotStart         the message has the end of its log
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

START_SECONDS = 60.0
LOOK_SECONDS = 0.05
UNPRIVILEGED = "nobody"
DEBIAN = Path("/usr/lib/postgresql")

QUICK = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
}
"""Where durability is not what is tried."""


class NoPostgres(Exception):
    """PostgreSQL is not installed; the message says what to install."""


class DidNotStart(Exception):
    """The server ended or does not answer."""


def programs() -> Path:
    """Return the folder of initdb, postgres and pg_basebackup: Debian's, or the one in the path."""
    versions = [each for each in DEBIAN.glob("*/bin") if (each / "initdb").exists()]
    if versions:
        return max(versions, key=lambda each: int(each.parent.name))
    found = shutil.which("initdb")
    if found is None:
        raise NoPostgres("PostgreSQL is not installed: apt-get install postgresql")
    return Path(found).resolve().parent


class TemporaryServer:
    """One server; `with` creates, starts and removes it. `settings` are those of postgresql.conf.

    `folder` is created if it is not given, and removed at the end in any case.
    """

    def __init__(
        self, settings: Mapping[str, str] | None = None, folder: Path | None = None
    ) -> None:
        self.folder = folder or Path(tempfile.mkdtemp(prefix="central-postgres-"))
        self._settings = dict(settings or {})
        self._programs = programs()
        self._process: subprocess.Popen[bytes] | None = None
        self._user = UNPRIVILEGED if os.geteuid() == 0 else None

    def __enter__(self) -> Self:
        try:
            self.create()
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.remove()

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@/{database}?host={quote(str(self.folder))}"

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def data(self) -> Path:
        return self.folder / "data"

    # Its life

    def create(self) -> None:
        """Create an empty cluster."""
        self._own()
        self.run(
            *("initdb", "--pgdata", str(self.data), "--username", "postgres", "--auth", "trust"),
            *("--encoding", "UTF8", "--locale", "C", "--no-sync"),
        )

    def create_as_replica(self, primary: "TemporaryServer") -> None:
        """Create a copy of a running primary that follows it."""
        self._own()
        self.run(
            *("pg_basebackup", "--pgdata", str(self.data), "--host", str(primary.folder)),
            *("--username", "postgres", "--write-recovery-conf", "--no-sync"),
            *("--checkpoint", "fast", "--wal-method", "stream"),
        )

    def start(self) -> None:
        """Start it, and wait until it answers. DidNotStart."""
        usual = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.folder),
            "max_connections": "60",
            "shared_buffers": "64MB",
        }
        options = [f"--{name}={value}" for name, value in (usual | self._settings).items()]
        ends_at = time.monotonic() + START_SECONDS
        while True:
            with (self.folder / "log").open("ab") as log:
                self._process = subprocess.Popen(  # noqa: S603
                    [self._programs / "postgres", "-D", str(self.data), *options],
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    **self._as_user(),
                )
            while self._process.poll() is None and time.monotonic() < ends_at:
                if self._answers():
                    return
                time.sleep(LOOK_SECONDS)
            if time.monotonic() >= ends_at or "still in use" not in self._said():
                raise DidNotStart(self._said())

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """End it: at once but in order (SIGINT, "fast"), or as a crash (SIGQUIT)."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.wait()

    def kill(self) -> None:
        """End it and all its processes as `kill -9` does."""
        process, self._process = self._process, None
        if process is None:
            return
        everyone = [process.pid, *_children_of(process.pid)]
        for each in everyone:
            _signal(each, signal.SIGKILL)
        process.wait()

    def pause(self) -> None:
        """Let all its processes hang, as a machine does that is cut off."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal_all(signal.SIGCONT)

    def promote(self) -> None:
        """Make a replica the primary, and wait until it is."""
        self.run("pg_ctl", "promote", "--pgdata", str(self.data), "--wait")

    def remove(self) -> None:
        """End it and remove its folder."""
        self.resume()
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, program: str, *arguments: str) -> str:
        """Run one of PostgreSQL's programs; return what it prints. CalledProcessError."""
        done: subprocess.CompletedProcess[str] = subprocess.run(  # noqa: S603
            [self._programs / program, *arguments],
            check=True,
            capture_output=True,
            text=True,
            cwd=self.folder,
            **self._as_user(),
        )
        return done.stdout

    def query(self, statement: str, database: str = "postgres") -> str:
        """Return what psql prints of a statement, without headings."""
        where = ("--host", str(self.folder), "--username", "postgres", database)
        return self.run("psql", "-qAtX", "-v", "ON_ERROR_STOP=1", "-c", statement, *where).strip()

    def cpu_seconds(self) -> float:
        """Return the processor time of all its processes, also of those that have ended."""
        if self._process is None:
            return 0.0
        own = _cpu_seconds(self._process.pid, with_ended=True)
        return own + sum(_cpu_seconds(each) for each in _children_of(self._process.pid))

    # How

    def _own(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._give(self.folder)
        self.folder.chmod(0o700)

    def own_data(self) -> None:
        """Give it files that were put into its folder."""
        for each in (self.data, *self.data.rglob("*")):
            self._give(each)

    def _give(self, path: Path) -> None:
        if self._user is not None:
            account = pwd.getpwnam(self._user)
            os.chown(path, account.pw_uid, account.pw_gid)

    def _as_user(self) -> dict[str, Any]:
        if self._user is None:
            return {}
        account = pwd.getpwnam(self._user)
        home = {"HOME": str(self.folder), "PATH": os.environ.get("PATH", ""), "LC_ALL": "C"}
        return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": [], "env": home}

    def _answers(self) -> bool:
        try:
            self.run("pg_isready", "--host", str(self.folder), "--timeout", "1")
        except subprocess.CalledProcessError:
            return False
        return True

    def _said(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-2000:]

    def _signal_all(self, number: signal.Signals) -> None:
        if self._process is not None:
            for each in (self._process.pid, *_children_of(self._process.pid)):
                _signal(each, number)


def _children_of(process_id: int) -> list[int]:
    children = Path(f"/proc/{process_id}/task/{process_id}/children")
    return [int(each) for each in children.read_text().split()] if children.exists() else []


def _cpu_seconds(process_id: int, *, with_ended: bool = False) -> float:
    try:
        stat = Path(f"/proc/{process_id}/stat").read_text()
    except FileNotFoundError:
        return 0.0
    fields = stat.rpartition(")")[2].split()
    ticks = fields[11:15] if with_ended else fields[11:13]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def _signal(process_id: int, number: signal.Signals) -> None:
    try:
        os.kill(process_id, number)
    except ProcessLookupError:
        return
