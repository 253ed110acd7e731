"""The `central-stub` command: serve, load, replay, stores, publish-feed, chain, and more."""

import argparse
import asyncio
import csv
import gc
import logging
import math
import resource
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import uvloop
from pydantic import ValidationError

from central_stub.fleet.cli import CallFailed, print_stores, read_stores
from central_stub.fleet.report import STATES
from central_stub.loading import LoadFailed, UnreadableFile, load, opened
from central_stub.replay import (
    KeyRefused,
    Summary,
    Target,
    central_target,
    read_movements,
    replay,
    store_target,
)
from central_stub.server import Running
from central_stub.settings import MAY_BE, PREFIX, BadSetting, Settings, read_settings
from central_stub.storage import StorageError
from central_stub.switches import Feature, Switches

SERVE_HELP = "serve Central on a port (settings: CENTRAL_STUB_* or the options)"
EPILOG = "Every switch and fault, with an example each: docs/central-stub.md"


BAD_USE = 2
NEEDS_POSTGRES = "this needs the extra postgres: pip install 'store-cache[postgres]'"
MOST_BAD_LINES_SHOWN = 5
EXPECTED = (
    'expected is a product a line, as JSON: {"productId": "A-1", "name": "Tea", "available": 9}; '
    "or CSV in a file named .csv, whose first line names the attributes"
)


class CannotListen(Exception):
    """The port cannot be had; the message says what to change."""


class CannotPublish(Exception):
    """The feed cannot be copied; the message says why."""


EXPECTED_FAILURES = (
    CannotListen,
    CannotPublish,
    StorageError,
    UnreadableFile,
    LoadFailed,
    KeyRefused,
    CallFailed,
)


def main(argv: list[str] | None = None) -> int:
    """Run the command and return the exit status.

    0: success. 1: failure. 2: wrong usage or a bad setting. 130: Ctrl-C.
    """
    options = _parser().parse_args(argv)
    try:
        code: int = options.run(options)
    except BadSetting as error:
        print(f"central-stub: {error}", file=sys.stderr)
        return BAD_USE
    except EXPECTED_FAILURES as error:
        print(f"central-stub: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="central-stub",
        description="A stub of Central to develop, test and load a store against.",
        epilog=EPILOG,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_serve(commands)
    _add_load(commands)
    _add_replay(commands)
    _add_publish_feed(commands)
    _add_migrate(commands)
    _add_restored(commands)
    _add_stores(commands)
    _add_chain(commands)
    return parser


def _add_serve(commands: Any) -> None:
    parser = commands.add_parser("serve", help=SERVE_HELP, description=SERVE_HELP, epilog=EPILOG)
    for name, may_be in MAY_BE.items():
        parser.add_argument(f"--{name.replace('_', '-')}", help=may_be, metavar="VALUE")
    parser.add_argument(
        "--switch",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any other difference of a deployed Central, e.g. eventOffsetMeans=next; repeatable",
    )
    parser.add_argument("--seed", type=int, help="makes odds and disorder the same every time")
    parser.set_defaults(run=_serve)


def _add_load(commands: Any) -> None:
    purpose = "put a catalogue into Central: products are created, or set where they exist"
    parser = commands.add_parser("load", help=purpose, description=purpose)
    parser.add_argument("file", type=Path, help="JSON lines or CSV, .gz too")
    _add_central(parser, "--url")
    parser.add_argument("--admin-key", default="admin-demo", help="(default: %(default)s)")
    parser.add_argument("--tenant", help="whose catalogue it is (default: the unnamed tenant's)")
    _add_json(parser)
    parser.set_defaults(run=_load)


def _add_replay(commands: Any) -> None:
    purpose = "sell from a file of stock movements, straight at Central or through stores"
    parser = commands.add_parser("replay", help=purpose, description=purpose)
    parser.add_argument("file", type=Path, help="CSV with productId and delta, .gz too")
    _add_central(parser, "--central")
    parser.add_argument(
        "--store",
        type=_address,
        action="append",
        default=[],
        metavar="URL",
        help="write through this store instead of straight at Central; repeatable",
    )
    parser.add_argument("--api-key", default="demo", help="of the tills (default: %(default)s)")
    parser.add_argument(
        "--store-id", default="replay", help="who writes at Central (default: %(default)s)"
    )
    parser.add_argument("--tills", type=_positive, default=8, help="at once (default: 8)")
    parser.add_argument("--lines", type=_positive, help="movements to write (default: all)")
    parser.add_argument("--skip", type=int, default=0, help="movements to leave out first")
    parser.add_argument(
        "--speed", type=_speed, default=None, help="movements per second, or max (default)"
    )
    _add_json(parser)
    parser.set_defaults(run=_replay)


def _add_publish_feed(commands: Any) -> None:
    purpose = "copy the feed of a Central into NATS JetStream, for many stores (docs/nats.md)"
    parser = commands.add_parser("publish-feed", help=purpose, description=purpose)
    _add_central(parser, "--central")
    parser.add_argument("--api-key", default="demo", help="of a store (default: %(default)s)")
    parser.add_argument(
        "--nats",
        default="nats://127.0.0.1:4222",
        metavar="URL",
        help="where NATS is; several of one cluster separated by commas (default: %(default)s)",
    )
    parser.add_argument(
        "--credentials", type=Path, metavar="FILE", help="a .creds file, or the seed of an nkey"
    )
    parser.add_argument("--ca", type=Path, metavar="FILE", help="authorities of NATS, in PEM form")
    parser.add_argument(
        "--replicas",
        type=_positive,
        default=1,
        help="on how many servers of a cluster the stream is kept (default: 1)",
    )
    parser.add_argument(
        "--mirror",
        action="append",
        default=[],
        metavar="DOMAIN",
        help="keep a mirror in the JetStream domain of a leaf node; may be repeated",
    )
    parser.set_defaults(run=_publish_feed)


def _add_migrate(commands: Any) -> None:
    purpose = "bring the schema of the database to the version of this program"
    parser = commands.add_parser("migrate", help=purpose, description=purpose)
    _add_database(parser)
    parser.set_defaults(run=_migrate)


def _add_restored(commands: Any) -> None:
    purpose = "begin a new generation after the database was restored from a backup"
    parser = commands.add_parser("restored", help=purpose, description=purpose)
    _add_database(parser)
    parser.set_defaults(run=_restored)


def _add_chain(commands: Any) -> None:
    purpose = "run a whole chain on this machine until Ctrl-C, to look at (docs/chain.md)"
    parser = commands.add_parser("chain", help=purpose, description=purpose)
    parser.add_argument("--central-port", type=int, default=8081, help="(default: %(default)s)")
    parser.add_argument("--store-port", type=int, default=8083, help="(default: %(default)s)")
    parser.set_defaults(run=_chain)


def _add_database(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--database", metavar="URL", help=f"default: {PREFIX}DATABASE")


def _add_stores(commands: Any) -> None:
    purpose = "show how the stores of the chain are, the worst first"
    parser = commands.add_parser("stores", help=purpose, description=purpose)
    _add_central(parser, "--url")
    parser.add_argument("--admin-key", default="admin-demo", help="(default: %(default)s)")
    parser.add_argument("--tenant", help="whose stores (default: the unnamed tenant's)")
    parser.add_argument("--state", choices=STATES, help="only those in this state")
    parser.add_argument("--id", default="", help="only those whose id contains this")
    parser.add_argument("--limit", type=_positive, default=20, help="at most (default: 20)")
    _add_json(parser)
    parser.set_defaults(run=_stores)


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 1")
    return number


def _speed(text: str) -> float | None:
    if text == "max":
        return None
    speed = float(text)
    if not 0 < speed < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is neither max nor a number above 0")
    return speed


def _address(text: str) -> str:
    return text if "://" in text else f"http://{text}"


def _add_central(parser: argparse.ArgumentParser, option: str) -> None:
    parser.add_argument(
        option,
        type=_address,
        default="http://127.0.0.1:8081",
        help="where Central is (default: %(default)s)",
    )


# serve


def _serve(options: argparse.Namespace) -> int:
    given = {name: getattr(options, name) for name in MAY_BE}
    settings = read_settings(**{name: each for name, each in given.items() if each is not None})
    switches = switched(settings.switches, options.switch)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s", level="INFO")
    _allow_many_connections()
    _collect_garbage_rarely()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve_until_stopped(settings, switches, options.seed))
    return 0


def switched(switches: Switches, assignments: Sequence[str]) -> Switches:
    """Return the switches with those that `--switch NAME=VALUE` names beside them. BadSetting."""
    given = dict(assignment.partition("=")[::2] for assignment in assignments)
    try:
        named = switches.model_dump(by_alias=True, exclude_unset=True)
        return Switches.model_validate(named | given)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False)[0]
        name = str(problem["loc"][0])
        raise BadSetting(f"--switch {name} was {problem['input']!r}: {problem['msg']}") from None


async def _serve_until_stopped(settings: Settings, switches: Switches, seed: int | None) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    central = Running(settings, switches, seed)
    try:
        await central.start()
    except OSError as error:
        where = f"{settings.host}:{settings.port}"
        message = f"cannot listen on {where}: {error.strerror}; see CENTRAL_STUB_PORT"
        raise CannotListen(message) from error
    print(f"central-stub serves {await central.products()} products at {central.url}", flush=True)
    _print_missing_features(switches)
    await stopped.wait()
    await central.stop()


def _print_missing_features(switches: Switches) -> None:
    missing = [feature.value for feature in Feature if not switches.has(feature)]
    if missing:
        print(f"without {', '.join(missing)}", flush=True)


def _allow_many_connections() -> None:
    """Raise the limit of open files: each held poll is a connection."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _collect_garbage_rarely() -> None:
    """Searching ten thousand held polls for cycles took a third of the time to wake them."""
    gc.set_threshold(200_000, 50, 1000)


def _print_json(document: object) -> None:
    print(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())


# load


def _load(options: argparse.Namespace) -> int:
    loaded = load(options.file, url=options.url, admin_key=options.admin_key, tenant=options.tenant)
    if options.json:
        _print_json(
            {
                "created": loaded.created,
                "set": loaded.changed,
                "badLines": [{"line": line, "issue": issue} for line, issue in loaded.bad_lines],
            }
        )
        return 1 if loaded.bad_lines else 0
    for number, issue in loaded.bad_lines[:MOST_BAD_LINES_SHOWN]:
        print(f"{options.file}:{number}: {issue}", file=sys.stderr)
    if more := len(loaded.bad_lines[MOST_BAD_LINES_SHOWN:]):
        print(f"and {more} more bad lines", file=sys.stderr)
    if not (loaded.created or loaded.changed) and loaded.bad_lines:
        print(EXPECTED, file=sys.stderr)
    print(f"{loaded.created} created, {loaded.changed} set, {len(loaded.bad_lines)} bad lines")
    return 1 if loaded.bad_lines else 0


# stores


def _stores(options: argparse.Namespace) -> int:
    fleet = read_stores(
        options.url,
        options.admin_key,
        tenant=options.tenant,
        state=options.state,
        part=options.id,
        limit=options.limit,
    )
    if options.json:
        _print_json(fleet)
    else:
        print_stores(fleet)
    return 0


# replay


def _replay(options: argparse.Namespace) -> int:
    summary = asyncio.run(_replay_file(options))
    if options.json:
        _print_json(
            {
                "sold": summary.sold,
                "refused": [{"line": line, "reason": why} for line, why in summary.refused],
                "conflicts": summary.conflicts,
                "repeats": summary.repeats,
                "doubtful": list(summary.doubtful),
                "seconds": round(summary.duration_seconds, 3),
                "linesPerSecond": round(summary.rate, 1),
            }
        )
        return 1 if summary.refused else 0
    for line, reason in summary.refused:
        print(f"line {line} was not sold: {reason}", file=sys.stderr)
    if summary.doubtful:
        lines = ", ".join(map(str, summary.doubtful))
        print(f"possibly sold twice, if Central had forgotten keys: {lines}", file=sys.stderr)
    print(
        f"{summary.sold} lines sold, {summary.conflicts} conflicts, {summary.repeats} repeats, "
        f"{summary.duration_seconds:.1f} s, {summary.rate:.0f} lines a second"
    )
    return 1 if summary.refused else 0


async def _replay_file(options: argparse.Namespace) -> Summary:
    with opened(options.file, "lines", options.lines) as (text, bar):
        movements = read_movements(text, skip=options.skip, lines=options.lines)
        try:
            return await replay(
                movements,
                _targets(options),
                tills=options.tills,
                events_per_second=options.speed,
                answered=lambda _: bar.update(),
            )
        except (ValueError, csv.Error) as error:
            raise UnreadableFile(f"{options.file}: {error}") from error


def _targets(options: argparse.Namespace) -> list[Target]:
    stores = [store_target(url, options.api_key) for url in options.store]
    return stores or [central_target(options.central, options.api_key, options.store_id)]


# publish-feed


def _publish_feed(options: argparse.Namespace) -> int:
    try:
        from central_stub.publisher import cli as publisher  # noqa: PLC0415 - an extra
        from central_stub.publisher.central import Nameless  # noqa: PLC0415
        from central_stub.publisher.mirrors import NoDomain  # noqa: PLC0415
    except ImportError as error:
        message = f"{error.name} is not installed: pip install 'store-cache[nats]'"
        raise CannotPublish(message) from error
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(publisher.publish(options))
    except (Nameless, NoDomain, publisher.CannotConnect) as error:
        raise CannotPublish(str(error)) from error
    return 0


# migrate, restored


def _migrate(options: argparse.Namespace) -> int:
    for name in asyncio.run(_upkeep().migrate(_database_url(options))):
        print(f"applied {name}")
    print("the schema is up to date")
    return 0


def _restored(options: argparse.Namespace) -> int:
    for tenant, generation in asyncio.run(_upkeep().begin_generations(_database_url(options))):
        print(f"generation {generation} begins{f' for tenant {tenant}' if tenant else ''}")
    return 0


def _chain(options: argparse.Namespace) -> int:
    try:
        from central_stub import chain  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise StorageError(NEEDS_POSTGRES) from error
    try:
        asyncio.run(chain.run(central_port=options.central_port, store_port=options.store_port))
    except chain.ChainFailed as problem:
        raise StorageError(str(problem)) from problem
    print("Stopped; nothing is left behind.")
    return 0


def _upkeep() -> Any:
    try:
        from central_stub.postgres import upkeep  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise StorageError(NEEDS_POSTGRES) from error
    return upkeep


def _database_url(options: argparse.Namespace) -> str:
    settings = read_settings(**({} if options.database is None else {"database": options.database}))
    if settings.database_url is None:
        raise BadSetting(f"{PREFIX}DATABASE is missing; it may be {MAY_BE['database']}")
    return settings.database_url
