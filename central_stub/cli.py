"""The `central-stub` command: serve, load. It knows options and exit codes, nothing else."""

import argparse
import asyncio
import logging
import resource
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvloop
from pydantic import ValidationError

from central_stub.loading import LoadFailed, load
from central_stub.server import Running
from central_stub.settings import MAY_BE, BadSetting, Settings, read_settings
from central_stub.storage import StorageError
from central_stub.switches import Feature, Switches

SERVE_HELP = "serve Central on a port (settings: CENTRAL_STUB_* or the options)"
EPILOG = "Every switch and fault, with an example each: docs/central-stub.md"


def main(argv: list[str] | None = None) -> int:
    """Run the command; the exit code is 0, 1 when something failed, 2 for a wrong use."""
    options = _parser().parse_args(argv)
    try:
        code: int = options.run(options)
    except (BadSetting, StorageError, LoadFailed) as error:
        print(f"central-stub: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="central-stub",
        description="A small, honest Central to develop, test and load a store against.",
        epilog=EPILOG,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_serve(commands)
    _add_load(commands)
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
    said = "put a catalogue into Central: products are created, or set where they exist"
    parser = commands.add_parser("load", help=said, description=said)
    parser.add_argument("file", type=Path, help="JSON lines or CSV, .gz too")
    _add_central(parser, "--url")
    parser.add_argument("--admin-key", default="admin-demo", help="(default: %(default)s)")
    parser.set_defaults(run=_load)


def _add_central(parser: argparse.ArgumentParser, option: str) -> None:
    parser.add_argument(
        option, default="http://127.0.0.1:8081", help="where Central is (default: %(default)s)"
    )


# serve


def _serve(options: argparse.Namespace) -> int:
    given = {name: getattr(options, name) for name in MAY_BE}
    settings = read_settings(**{name: each for name, each in given.items() if each is not None})
    switches = _switched(settings.switches, options.switch)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s", level="INFO")
    _allow_many_connections()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve_until_told(settings, switches, options.seed))
    return 0


def _switched(switches: Switches, assignments: Sequence[str]) -> Switches:
    given = dict(assignment.partition("=")[::2] for assignment in assignments)
    try:
        return Switches.model_validate(switches.model_dump(by_alias=True) | given)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False)[0]
        name = str(problem["loc"][0])
        raise BadSetting(f"--switch {name} was {problem['input']!r}: {problem['msg']}") from None


async def _serve_until_told(settings: Settings, switches: Switches, seed: int | None) -> None:
    told = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    central = Running(settings, switches, seed)
    try:
        await central.start()
    except OSError as error:
        where = f"{settings.host}:{settings.port}"
        said = f"cannot listen on {where}: {error.strerror}; see CENTRAL_STUB_PORT"
        raise BadSetting(said) from error
    print(f"central-stub serves {len(central.ledger)} products at {central.url}", flush=True)
    _say_what_is_missing(switches)
    await told.wait()
    await central.stop()


def _say_what_is_missing(switches: Switches) -> None:
    missing = [feature.value for feature in Feature if not switches.has(feature)]
    if missing:
        print(f"without {', '.join(missing)}", flush=True)


def _allow_many_connections() -> None:
    """Thousands of held polls are a connection, and so a file, each."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


# load


def _load(options: argparse.Namespace) -> int:
    loaded = load(options.file, url=options.url, admin_key=options.admin_key)
    for number, issue in loaded.bad_lines:
        print(f"{options.file}:{number}: {issue}", file=sys.stderr)
    print(f"{loaded.created} created, {loaded.changed} set, {len(loaded.bad_lines)} bad lines")
    return 1 if loaded.bad_lines else 0
