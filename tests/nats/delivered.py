"""NATS servers with the configuration of `config/nats`, and keys for it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import nats
import nkeys
from nats.aio.client import Client

from tests.harness.nats_server import NatsServer
from tests.harness.processes import free_port

CONFIG = Path(__file__).parents[2] / "config" / "nats"
USERS = ("PUBLISHER", "STORE_S1", "REGION_NORTH")
LEAF_PORT = "port: 7422"


class Key:
    """An nkey of a user. `file` holds its seed."""

    def __init__(self, file: Path) -> None:
        self.seed = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
        self.public: str = nkeys.from_seed(bytearray(self.seed)).public_key.decode()
        self.file = file
        file.write_bytes(self.seed)


def keys_in(folder: Path) -> dict[str, Key]:
    return {name: Key(folder / name) for name in USERS}


def leaf_port(port: int) -> str:
    """Return what a configuration says of the port for leaf nodes, at this machine's own address:
    at others, connections of other tests may take it meanwhile."""
    return f'host: "127.0.0.1"\n  port: {port}'


def server_of(
    name: str, folder: Path, keys: Mapping[str, Key], replaced: Mapping[str, str] | None = None
) -> NatsServer:
    """Return a server with a configuration as it is delivered, but for its folder, its keys, the
    port for leaf nodes, and what is `replaced`."""
    folder.mkdir()
    texts = {"/var/lib/nats": str(folder / "jetstream"), LEAF_PORT: leaf_port(free_port())}
    texts |= replaced or {}
    for user, key in keys.items():
        texts |= {f"${user}_NKEY": f'"{key.public}"', f"${user}_SEED": f'"{key.seed.decode()}"'}
    for each in (name, "stores.conf"):
        config = (CONFIG / each).read_text()
        for old, new in texts.items():
            config = config.replace(old, new)
        (folder / each).write_text(config)
    return NatsServer(folder, (folder / name).read_text())


async def connected(server: NatsServer, key: Key, problems: list[str], name: str = "") -> Client:
    """Return a client; what the server refuses is added to `problems`."""

    async def note(error: Exception) -> None:
        problems.append(str(error))

    inbox = f"_INBOX.{name}" if name else "_INBOX"
    return await nats.connect(
        server.url,
        nkeys_seed=str(key.file),
        error_cb=note,
        inbox_prefix=inbox,
        max_reconnect_attempts=-1,
        reconnect_time_wait=0.1,
    )
