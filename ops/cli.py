"""The command line of `./run`: `python -m ops COMMAND`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import get_args

from data import BUNDLED_CITY
from doorstep.errors import DoorstepError
from doorstep.sampling import Mode
from doorstep.settings import EX_CONFIG
from ops.commands import (
    audit_command,
    backup_command,
    city_command,
    drivers_command,
    operator_commands,
    orders_command,
    rotate_command,
    simulator_commands,
    sources_command,
    stack_commands,
    staff_command,
)
from ops.commands.broker_users import add_arguments
from ops.console import print_line
from ops.stack.settings import StackSettings
from ops.stack.stack import Stack

DESCRIPTION = """Doorstep tracks a delivery fleet: devices publish fixes over MQTT, Kafka carries
them, PostGIS stores them, and HTTP APIs answer."""

EXAMPLES = """examples:
  ./run demo                                  couriers deliver in a city until Ctrl-C
  ./run demo --speedup 10 --exit-after 120 --json
  ./run up && ./run status                    the stack in the background
  DOORSTEP_BIND=0.0.0.0 ./run up --tls        the same for other machines, with TLS
  ./run drivers add anna bruno                register two drivers
  ./run drivers token anna                    the bearer token for driver_api
  ./run sources add weather                   register a source of series
  ./run send --driver anna --lat 43.77 --lon 11.25
  ./run replay track.gpx --driver bus304 --speedup 60
  ./run where anna 1                          trace anna's first fix through the system
  ./run dead-letters --reason not_json        list inputs that were rejected
  ./run rebuild                               recompute all states and compare
  ./run logs bridge --follow
  ./run down                                  stop the stack; --erase also deletes its data

Settings are environment variables. DOORSTEP_BIND (127.0.0.1) is the bind address for devices and
customers. MQTT_BROKERS (1) is the number of brokers. MQTT_PORT, KAFKA_PORT, DATABASE_PORT,
TRACKING_API_PORT and DRIVER_API_PORT choose ports; a port that is taken is replaced and reported.
docs/reference/settings.md lists all of them."""

DEMO_DESCRIPTION = """Start the stack, let simulated couriers deliver orders on a city's streets,
and stop both at the end. The demo prints links to the pages, then its progress. Ctrl-C ends it in
order: all fixes are committed, and open orders are cancelled or failed."""

DEMO_EXAMPLES = """examples:
  ./run demo                                        200 couriers at real speed
  ./run demo --couriers 20 --speedup 10             20 couriers, ten times as fast
  ./run demo --city helsinki                        in a city of ./run city add
  ./run demo --exit-after 120 --json                two minutes; the result as one JSON object
  ./run demo --cities 50 --tickers 100              also vans in France, and series at /series
  ./run demo --reporting dead_reckoning             phones send only fixes that cannot be predicted

The report compares the devices' journals with the database. The exit status is 0 if they match,
else 1."""

Command = Callable[[Stack, argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the return value is the exit status."""
    parser = _parser()
    options, rest = parser.parse_known_args(argv)
    if rest and not options.takes_rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    options.rest = rest
    # SIGINT too: a shell starts background commands (`&`) with SIGINT ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt_demo if options.command_name == "demo" else _interrupt)
    try:
        settings = StackSettings.load()
        if getattr(options, "tls", False):
            settings = settings.model_copy(update={"doorstep_tls": True})
        if getattr(options, "observe", False):
            settings = settings.model_copy(update={"doorstep_observe": True})
        if getattr(options, "ha", False):
            settings = settings.model_copy(update={"doorstep_ha": True})
        stack = Stack(settings)
        command: Command = options.command
        return command(stack, options)
    except DoorstepError as exc:
        print_line(f"run: {exc}")
        return EX_CONFIG if exc.problem == "settings" else 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # `./run logs | head`
        return 0


def launcher_commands() -> set[str]:
    """Return the names of all commands."""
    (commands,) = (one for one in _parser()._actions if one.dest == "command_name")
    return set(commands.choices or ())


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    """Handle SIGTERM like Ctrl-C: the command stops in order."""
    raise KeyboardInterrupt


def _interrupt_demo(_signal: int, _frame: FrameType | None) -> None:
    """Acknowledge Ctrl-C at once: stopping a demo takes some seconds."""
    os.write(2, b"\nstopping\n")  # not print(), which the signal may have interrupted
    raise KeyboardInterrupt


def _demo(stack: Stack, options: argparse.Namespace) -> int:
    from ops.demo.demo import run_demo

    return run_demo(stack, options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./run",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command_name", required=True, metavar="COMMAND")

    def add(
        name: str, help: str, command: Command, description: str = "", examples: str = ""
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=help,
            description=description or help,
            epilog=examples,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(command=command, takes_rest=False)
        return sub

    def add_passthrough(name: str, help: str, command: Command) -> argparse.ArgumentParser:
        """Add a command whose own parser reads its arguments, --help included."""
        sub = commands.add_parser(name, help=help, add_help=False)
        sub.set_defaults(command=command, takes_rest=True)
        return sub

    _add_demo(add("demo", "run a fleet of couriers", _demo, DEMO_DESCRIPTION, DEMO_EXAMPLES))
    up = add(
        "up",
        "start the stack in the background and wait until it is ready",
        stack_commands.up,
        examples=stack_commands.UP_EXAMPLES,
    )
    _add_stack_options(up)
    down = add("down", "stop the stack", stack_commands.down, examples=stack_commands.DOWN_EXAMPLES)
    down.add_argument("--erase", action="store_true", help="also delete its data and secrets")
    add(
        "upgrade",
        "bring a running stack to this code, service by service",
        stack_commands.upgrade,
        stack_commands.UPGRADE_DESCRIPTION,
    )
    status = add(
        "status",
        "list the processes: address, pid, readiness",
        stack_commands.status,
        examples=stack_commands.STATUS_EXAMPLES,
    )
    status.add_argument("--json", action="store_true", help="print a JSON list")
    logs = add(
        "logs",
        "print the last lines of the logs",
        stack_commands.logs,
        examples=stack_commands.LOGS_EXAMPLES,
    )
    logs.add_argument("process", nargs="?", metavar="PROCESS", help="as `status` names it (all)")
    logs.add_argument("--follow", "-f", action="store_true", help="print new lines as they come")
    logs.add_argument("--lines", "-n", type=int, default=20, metavar="N", help="lines each (20)")

    drivers = add(
        "drivers",
        "list, add, rotate, revoke or remove drivers, or print their credentials",
        drivers_command.drivers,
        drivers_command.DESCRIPTION,
        drivers_command.EXAMPLES,
    )
    add_arguments(drivers, drivers_command.ACTIONS)
    orders_command.add_arguments(
        add(
            "orders",
            "create orders from CSV",
            orders_command.orders,
            orders_command.DESCRIPTION,
            orders_command.EXAMPLES,
        )
    )
    sources = add(
        "sources",
        "list, add, rotate, revoke or remove sources of series, or print their passwords",
        sources_command.sources,
        sources_command.DESCRIPTION,
        sources_command.EXAMPLES,
    )
    add_arguments(sources, sources_command.ACTIONS)
    staff_command.add_arguments(
        add(
            "staff",
            "add, list, rotate or revoke named staff",
            staff_command.staff,
            staff_command.DESCRIPTION,
            staff_command.EXAMPLES,
        )
    )
    add(
        "rotate-secrets",
        "replace the passwords of services",
        rotate_command.rotate,
        rotate_command.DESCRIPTION,
        rotate_command.EXAMPLES,
    )
    backup_command.add_backup_arguments(
        add(
            "backup",
            "back up the database, and archive its WAL from now on",
            backup_command.backup,
            examples=backup_command.BACKUP_EXAMPLES,
        )
    )
    backup_command.add_backups_arguments(
        add(
            "backups",
            "list the backups",
            backup_command.backups,
            examples=backup_command.BACKUPS_EXAMPLES,
        )
    )
    backup_command.add_restore_arguments(
        add(
            "restore",
            "restore the database, to its newest state or an earlier instant",
            backup_command.restore,
            examples=backup_command.RESTORE_EXAMPLES,
        )
    )
    audit_command.add_arguments(
        add(
            "audit",
            "print who did what, to whom and when",
            audit_command.audit,
            audit_command.DESCRIPTION,
            audit_command.EXAMPLES,
        )
    )

    city_command.add_arguments(
        add(
            "city",
            "add, list, update or remove cities",
            city_command.city,
            city_command.DESCRIPTION,
            city_command.EXAMPLES,
        )
    )

    for name, purpose in simulator_commands.AS_DRIVER.items():
        add_passthrough(name, purpose, simulator_commands.run_as_driver).add_argument("--driver")
    for name, purpose in simulator_commands.PUBLISHERS.items():
        add_passthrough(name, purpose, simulator_commands.run_publisher)
    for name, purpose in operator_commands.COMMANDS.items():
        add_passthrough(name, purpose, operator_commands.run_operator_command)
    return parser


def _add_stack_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--tls", action="store_true", help="HTTPS and MQTT over TLS")
    command.add_argument(
        "--observe", action="store_true", help="also Prometheus, Alertmanager and exporters"
    )
    command.add_argument(
        "--ha", action="store_true", help="with a standby of the database and three Kafka nodes"
    )


def _add_demo(demo: argparse.ArgumentParser) -> None:
    _add_stack_options(demo)
    demo.add_argument("--couriers", type=int, default=200, metavar="N", help="1 to 5,000 (200)")
    demo.add_argument("--city", default=BUNDLED_CITY, metavar="NAME", help=f"({BUNDLED_CITY})")
    demo.add_argument("--speedup", type=float, default=1.0, metavar="X", help="1 to 20 (1)")
    demo.add_argument(
        "--reporting",
        choices=get_args(Mode),
        help="which fixes phones send (as the server commands)",
    )
    demo.add_argument("--cities", type=int, default=0, metavar="N", help="vans in France (0)")
    demo.add_argument("--tickers", type=int, default=0, metavar="N", help="series of numbers (0)")
    demo.add_argument("--exit-after", type=float, metavar="S", help="end after S seconds")
    demo.add_argument(
        "--json", action="store_true", help="print the result as one JSON object, the last line"
    )
