"""The one command, `model-manager`: runs the processes and the small chores around them.

Heavy imports wait until a command needs them, so that `--help` answers at once.
"""

import argparse
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from core import logging
from core.errors import SettingsError
from core.settings import Settings, load
from core.version import VERSION

CONFIGURATION_ERROR = 78
"""EX_CONFIG of sysexits.h: starting again will not help."""


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = _parser().parse_args(argv)
    try:
        settings = load()
        logging.configure(level=settings.log_level, json=settings.log_format == "json")
        run: Callable[[Settings, argparse.Namespace], int] = arguments.run
        return run(settings, arguments)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return CONFIGURATION_ERROR
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    """Describe the commands."""
    parser = argparse.ArgumentParser(
        prog="model-manager", description="A control plane for language models on Kubernetes GPU clusters."
    )
    parser.add_argument("--version", action="version", version=f"model-manager {VERSION}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, module, summary in (
        ("serve", "cli.serve", "Run everything on this machine: API, worker, sync, SQLite and Valkey"),
        ("api", "cli.api", "Run an API process"),
        ("worker", "cli.worker", "Run a worker process, the only kind that touches the weights"),
        ("sync", "cli.sync", "Run the sync process"),
        ("migrate", "cli.migrate", "Bring the database to this version's tables"),
    ):
        commands.add_parser(name, help=summary, description=summary).set_defaults(run=_process(module))
    _add_schema(commands.add_parser("schema", help="Write the GraphQL schema, or compare it with a file"))
    _add_token(commands.add_parser("token", help="Make access tokens"))
    return parser


def _process(module: str) -> Callable[[Settings, argparse.Namespace], int]:
    """Make a command of a module's `run(settings)`."""

    def run(settings: Settings, _arguments: argparse.Namespace) -> int:
        return int(import_module(module).run(settings) or 0)

    return run


def _add_schema(parser: argparse.ArgumentParser) -> None:
    """Describe `schema`."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--output", type=Path, help="write it to this file")
    where.add_argument("--check", type=Path, help="exit with 1 when this file says something else")
    parser.set_defaults(
        run=lambda _settings, given: import_module("cli.schema").run(output=given.output, check=given.check)
    )


def _add_token(parser: argparse.ArgumentParser) -> None:
    """Describe `token create`."""
    create = parser.add_subparsers(required=True, metavar="ACTION").add_parser("create", help="Make a token")
    create.add_argument("name", help="whose or what it is for; shown as the actor of what it does")
    create.add_argument("--scope", choices=["READ", "OPERATE", "ADMIN"], default="READ", help="what it may do")
    create.set_defaults(
        run=lambda settings, given: import_module("cli.token").create(settings, name=given.name, scope=given.scope)
    )
