"""The command line: `store-cache serve`, `demo`, `status`, `sync`, `keys`."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import uvloop

from store_cache.api.key_file import SCOPES, KeyFileError
from store_cache.api.server import CannotServe
from store_cache.api.tls import TlsFilesError
from store_cache.app.logging import configure_logging
from store_cache.app.reload import ReloadSignal
from store_cache.app.serve import serve_until_signal
from store_cache.app.settings import (
    SettingsError,
    given_text,
    load_settings,
    warn_of_exposed_file,
)
from store_cache.cli.client import CallFailed
from store_cache.cli.completion import SHELLS, completion_script
from store_cache.cli.connect import add_connection_options, store_client
from store_cache.cli.demo import DemoFailed, run_demo
from store_cache.cli.display import show_first_sync
from store_cache.cli.dump import STANDARD_OUTPUT, DumpFailed, dump
from store_cache.cli.keys import KeysRefused, print_keys, print_new_key, print_revoked
from store_cache.cli.outbox import add_outbox
from store_cache.cli.report import force_with_progress, print_status
from store_cache.cli.verify import verify
from store_cache.cli.watch import watch
from store_cache.cli.writes import print_in_doubt, settle
from store_cache.storage.directory import DirectoryExposed, DirectoryRefused
from store_cache.storage.framing import OtherStore

BAD_USE = 2
NOT_ON_DISK = 3
LARGEST_PORT = 65_535
LONGEST_OUTAGE_SECONDS = 3_600
INTERRUPTED = 130
"""As shells report Ctrl-C: a script must not take it for success."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status.

    0: success. 1: failure. 2: wrong usage or a bad setting. 3: `serve` ended while the disk failed,
    so that acknowledged changes are lost. 130: Ctrl-C.
    """
    options = _parser().parse_args(argv)
    try:
        status: int = options.run(options)
    except SettingsError as problem:
        print(problem, file=sys.stderr)
        return BAD_USE
    except (OtherStore, DirectoryExposed, KeysRefused) as problem:
        print(f"store-cache: {problem}", file=sys.stderr)
        return BAD_USE
    except (KeyFileError, TlsFilesError) as problem:
        what = "key file" if isinstance(problem, KeyFileError) else "file for TLS"
        print(f"store-cache: the {what} {problem}", file=sys.stderr)
        return BAD_USE
    except (CallFailed, CannotServe, DirectoryRefused, DemoFailed, DumpFailed) as problem:
        print(f"store-cache: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # whoever reads has enough: `store-cache status | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="store-cache",
        description="A shop's own copy of Central's inventory: reads at once, also when Central "
        "is away; writes forwarded once.",
        epilog="Settings come from the environment and from .env; see .env.example.",
    )
    parser.add_argument("--version", action="version", version=version("store-cache"))
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_serve(commands)
    _add_demo(commands)
    _add_status(commands)
    _add_sync(commands)
    _add_verify(commands)
    _add_dump(commands)
    _add_writes(commands)
    add_outbox(commands)
    _add_keys(commands)
    _add_completion(commands)
    return parser


def _add_serve(commands: Any) -> None:
    command = commands.add_parser(
        "serve",
        help="run the store cache",
        description="Run the store cache until SIGTERM or Ctrl-C. All settings are environment "
        "variables, also read from .env; a bad one stops the start with a line that says why.",
    )
    command.set_defaults(run=_serve)


def _add_demo(commands: Any) -> None:
    command = commands.add_parser(
        "demo",
        help="Central stub, store cache and live changes in one",
        description="Run a Central stub with a small catalogue, a store cache that follows it, "
        "and sales going on at both, until Ctrl-C. Nothing is kept.",
    )
    command.add_argument("--port", type=_port, default=8083, help="of the store (default: 8083)")
    command.add_argument(
        "--central-port", type=_port, default=8081, help="of the stub (default: 8081)"
    )
    command.add_argument(
        "--outages",
        type=_outage_seconds,
        nargs="?",
        const=60,
        default=0,
        metavar="SECONDS",
        help="let Central go away for so long now and then, while sales are queued (default: 60)",
    )
    command.set_defaults(run=_demo)


def _port(text: str) -> int:
    if not (text.isdecimal() and int(text) <= LARGEST_PORT):
        raise argparse.ArgumentTypeError(
            f"{text} is not a whole number from 0 to {LARGEST_PORT} (0: any free port)"
        )
    return int(text)


def _outage_seconds(text: str) -> int:
    if not (text.isdecimal() and 1 <= int(text) <= LONGEST_OUTAGE_SECONDS):
        raise argparse.ArgumentTypeError(
            f"{text} is not a whole number of seconds from 1 to {LONGEST_OUTAGE_SECONDS}"
        )
    return int(text)


def _add_status(commands: Any) -> None:
    command = commands.add_parser(
        "status",
        help="how fresh a running store is, and why",
        description="Ask a running store for its sync status. Exits with 1 if the store is not in "
        "sync with Central, so that a script can tell.",
    )
    add_connection_options(command)
    command.add_argument("--json", action="store_true", help="the document as the API gives it")
    command.add_argument("--watch", action="store_true", help="show it as it changes, until Ctrl-C")
    command.set_defaults(run=_status)


def _add_sync(commands: Any) -> None:
    command = commands.add_parser(
        "sync",
        help="force a full sync of a running store, and watch it",
        description="Have a running store read Central's whole catalogue again, and wait for it. "
        "Needs an admin key. Interrupting the wait does not stop the sync.",
    )
    add_connection_options(command)
    command.add_argument(
        "--accept",
        action="store_true",
        help="take the catalogue even if it has far fewer products than the store holds",
    )
    command.add_argument("--json", action="store_true", help="the answer as the API gives it")
    command.set_defaults(run=_sync)


def _add_keys(commands: Any) -> None:
    command = commands.add_parser(
        "keys",
        help="give out, list and revoke API keys in the key file",
        description="Edit the key file (KEYS_FILE). A running store takes it over at SIGHUP.",
    )
    actions = command.add_subparsers(required=True, metavar="ACTION")
    new = actions.add_parser(
        "new",
        help="give a client a key",
        description="Add a key to the file, which is created if need be, and print it. It cannot "
        "be shown again. A client may have two keys at a time, so that it can change from one to "
        "the other.",
    )
    new.add_argument("name", help="of the client, such as till-3; logs show it")
    new.add_argument(
        "--scope",
        choices=sorted(SCOPES),
        help="what it may do; a higher one includes the lower: read, write, admin (default: that "
        "of the client's other key, else write)",
    )
    new.add_argument("--expires", metavar="WHEN", help="90d, or 2027-01-31 (default: never)")
    new.set_defaults(run=_keys_new)
    shown = actions.add_parser("list", help="names, scopes and ends; never the keys themselves")
    shown.set_defaults(run=_keys_list)
    revoke = actions.add_parser("revoke", help="take the keys of a client away")
    revoke.add_argument("name", help="of the client")
    revoke.add_argument("--old", action="store_true", help="all but the newest one")
    revoke.set_defaults(run=_keys_revoke)
    for action in (new, shown, revoke):
        action.add_argument("--file", type=Path, help="the key file (default: KEYS_FILE)")


def _add_verify(commands: Any) -> None:
    command = commands.add_parser(
        "verify",
        help="compare a running store with Central, and repair what differs",
        description="Have a running store compare its catalogue with Central's, and wait for it. "
        "Needs an admin key. Exits with 0 if they are equal, with 1 if they were not, with 2 if "
        "they could not be compared.",
    )
    add_connection_options(command)
    command.add_argument("--no-repair", action="store_true", help="only tell what differs")
    command.add_argument("--json", action="store_true", help="the document as the API gives it")
    command.set_defaults(run=_verify)


def _add_dump(commands: Any) -> None:
    command = commands.add_parser(
        "dump",
        help="write the catalogue of a running store into a file",
        description="Write the whole catalogue of a running store as JSON lines: first generation, "
        "offset and number of products, then a product in each line, all as of this position. "
        "Needs an admin key. The file is written completely or not at all; then the exit status "
        "is 1.",
    )
    command.add_argument("file", metavar="FILE", help=f"{STANDARD_OUTPUT} is standard output")
    add_connection_options(command)
    command.set_defaults(run=_dump)


def _add_writes(commands: Any) -> None:
    command = commands.add_parser(
        "writes",
        help="list the writes whose outcome is unknown, and settle one",
        description="List the writes of which a running store does not know whether Central has "
        "applied them.",
    )
    add_connection_options(command)
    command.add_argument("--json", action="store_true", help="the document as the API gives it")
    command.set_defaults(run=_writes)
    actions = command.add_subparsers(metavar="ACTION")
    settling = actions.add_parser(
        "settle",
        help="say what became of a write",
        description="Say what became of a write in doubt, once you have found out. It is never "
        "sent again, and its till gets this answer. Needs an admin key.",
    )
    settling.add_argument("idempotency_key", metavar="IDEMPOTENCY_KEY", help="of the write")
    settling.add_argument("outcome", choices=("applied", "not_applied"), help="what became of it")
    settling.add_argument("--reason", required=True, help="how you know; it is logged and kept")
    add_connection_options(settling)
    settling.add_argument("--json", action="store_true", help="the document as the API gives it")
    settling.set_defaults(run=_settle)


def _add_completion(commands: Any) -> None:
    command = commands.add_parser(
        "completion",
        help="print a script that completes commands and options",
        description="Print a script for the shell, which then completes commands and options at "
        "the tab key.",
    )
    command.add_argument("shell", choices=SHELLS)
    command.set_defaults(run=_completion)


# -- what the commands do ----------------------------------------------------------------------


def _serve(_options: argparse.Namespace) -> int:
    reloads = ReloadSignal()  # first: a signal that comes during the start counts after it
    try:
        settings = load_settings()
        configure_logging(settings.log_level, secrets=settings.secrets())
        warn_of_exposed_file()
        is_all_on_disk = uvloop.run(
            serve_until_signal(settings, reloads, show_start=show_first_sync)
        )
    finally:
        reloads.close()
    return 0 if is_all_on_disk else NOT_ON_DISK


def _demo(options: argparse.Namespace) -> int:
    return asyncio.run(
        run_demo(
            port=options.port,
            central_port=options.central_port,
            outage_seconds=options.outages,
        )
    )


def _completion(options: argparse.Namespace) -> int:
    print(completion_script(_parser(), options.shell), end="")
    return 0


def _status(options: argparse.Namespace) -> int:
    if options.watch:
        return watch(lambda: store_client(options), as_json=options.json)
    with store_client(options) as client:
        return print_status(client, as_json=options.json)


def _sync(options: argparse.Namespace) -> int:
    with store_client(options) as client:
        return force_with_progress(client, accept=options.accept, as_json=options.json)


def _keys_new(options: argparse.Namespace) -> int:
    path = _key_file(options)
    print_new_key(path, options.name, scope=options.scope, expires=options.expires)
    return 0


def _keys_list(options: argparse.Namespace) -> int:
    print_keys(_key_file(options))
    return 0


def _keys_revoke(options: argparse.Namespace) -> int:
    print_revoked(_key_file(options), options.name, only_old=options.old)
    return 0


def _key_file(options: argparse.Namespace) -> Path:
    if options.file is not None:
        return Path(options.file)
    if given := given_text("KEYS_FILE"):
        return Path(given)
    raise KeysRefused("there is no key file: set KEYS_FILE, or give --file")


def _verify(options: argparse.Namespace) -> int:
    with store_client(options) as client:
        return verify(client, repair=not options.no_repair, as_json=options.json)


def _dump(options: argparse.Namespace) -> int:
    with store_client(options) as client:
        return dump(client, options.file)


def _writes(options: argparse.Namespace) -> int:
    with store_client(options) as client:
        return print_in_doubt(client, as_json=options.json)


def _settle(options: argparse.Namespace) -> int:
    with store_client(options) as client:
        return settle(
            client,
            options.idempotency_key,
            outcome=options.outcome,
            reason=options.reason,
            as_json=options.json,
        )
