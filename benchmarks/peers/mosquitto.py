"""mosquitto, which hands a message that is published on to each of its subscribers.

Its configuration is the fastest: nothing on disk, no log, each message sent at once.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.harness.processes import serving
from tests.harness.processes import Program, free_port

MISSING = "mosquitto is not installed (Debian: apt-get install mosquitto)"
TOPIC = "changes"

CONFIGURATION = """
listener {port} 127.0.0.1
allow_anonymous true
persistence false
log_type none
set_tcp_nodelay true
"""


def is_installed() -> bool:
    return program() is not None


def program() -> str | None:
    """Return its path: Debian puts it where only root's PATH leads."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")


@asynccontextmanager
async def mosquitto(folder: Path) -> AsyncIterator[Program]:
    """Run mosquitto. It listens a moment after it has begun: who connects has to try again."""
    command, port = program(), free_port()
    assert command is not None
    configuration = folder / "mosquitto.conf"
    configuration.write_text(CONFIGURATION.format(port=port), encoding="utf-8")
    async with serving(
        (command, "-c", str(configuration)), port=port, log=folder / "mosquitto.log"
    ) as server:
        yield server
