"""The launcher's commands."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import get_args

from doorstep.credentials import driver_token, mqtt_password
from doorstep.errors import DoorstepError
from doorstep.provision import (
    CITIES,
    SERVICE_USERS,
    numbered,
    read_sources,
)
from doorstep.sampling import Mode
from doorstep.settings import EX_CONFIG
from ops.stack.paths import print_line
from ops.stack.processes import module_argv
from ops.stack.settings import PROJECT, StackSettings
from ops.stack.stack import Stack

EXAMPLES = """examples:
  ./run demo                                  couriers deliver in Florence; Ctrl-C ends it
  ./run demo --speedup 10 --exit-after 120 --json
  ./run test tests/unit -k fix
  ./run up && ./run status                    the stack in the background
  ./run drivers add anna bruno                each with MQTT credentials and a token
  ./run drivers token anna                    what to send driver_api as a bearer
  ./run sources add weather                   who publishes series of numbers, with a password
  ./run send --driver anna --lat 43.77 --lon 11.25
  ./run replay track.gpx --driver bus304 --speedup 60
  ./run where anna 1                          what became of her first fix, step by step
  ./run dead-letters --reason not_json        inputs that could not be used
  ./run rebuild                               works all states out again, and compares
  ./run faults --only 1 3 9                   breaks parts of a stack of its own under load
  ./run logs bridge --follow
  ./run down                                  stops it; --erase deletes its data, too

DOORSTEP_BIND (127.0.0.1) is where devices and customers reach it; MQTT_BROKERS (1) is the number of
brokers; MQTT_PORT, KAFKA_PORT, DATABASE_PORT, TRACKING_API_PORT and DRIVER_API_PORT choose ports.
A taken port is replaced by another, which is said."""

OPERATOR_COMMANDS = {
    "where": "what became of one fix, step by step: DRIVER SEQ",
    "dead-letters": "list, show or send again what could not be used",
    "rebuild": "derive evidence and states again from the record, and compare",
    "compact": "pack sealed days of the history, and drop those past retention",
    "learn": "learn the streets' speeds from the history, for the ETA",
}
PUBLISHERS = {  # what each publishes, beside a running stack or one for this command
    "cities": "vans on their way from one French city to another",
    "tickers": "series of numbers, each a random walk",
}

Command = Callable[[Stack, argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the answer is the exit status."""
    options, rest = _parser().parse_known_args(argv)
    if rest and not options.takes_rest:
        _parser().error(f"unrecognized arguments: {' '.join(rest)}")
    options.rest = rest
    for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT, too: a script's `&` has it ignored
        signal.signal(number, _interrupt_demo if options.command_name == "demo" else _interrupt)
    try:
        stack = Stack(StackSettings.load())
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


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    """Let SIGTERM end a foreground command the way Ctrl-C does: in order."""
    raise KeyboardInterrupt


def _interrupt_demo(_signal: int, _frame: FrameType | None) -> None:
    """Say at once that Ctrl-C was heard: to stop takes some seconds."""
    os.write(2, b"\nstopping\n")  # print() may be what is interrupted
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./run",
        description="Doorstep: tracks a delivery fleet, MQTT -> Kafka -> PostGIS.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command_name", required=True, metavar="COMMAND")

    def add(name: str, help: str, command: Command | None) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=help)
        sub.set_defaults(command=command, takes_rest=False)
        return sub

    demo = add("demo", "couriers deliver orders on Florence's streets; Ctrl-C stops all", _demo)
    demo.add_argument("--couriers", type=int, default=200, metavar="N", help="how many (200)")
    demo.add_argument("--speedup", type=float, default=1.0, metavar="X", help="1 to 20 (1)")
    demo.add_argument(
        "--reporting", choices=get_args(Mode), default="all", help="which fixes phones send (all)"
    )
    demo.add_argument("--cities", type=int, default=0, metavar="N", help="vans in France (0)")
    demo.add_argument("--tickers", type=int, default=0, metavar="N", help="series, /series (0)")
    demo.add_argument("--exit-after", type=float, metavar="S", help="stop after S seconds")
    demo.add_argument("--json", action="store_true", help="the last line is one JSON object")

    add("up", "start the stack in the background, or wait until it is ready", _up)
    down = add("down", "stop the stack", _down)
    down.add_argument("--erase", action="store_true", help="and delete its data and secrets")
    status = add("status", "each part: address, pid, ready", _status)
    status.add_argument("--json", action="store_true", help="as a JSON list")
    logs = add("logs", "the last lines of each part's log, or of one", _logs)
    logs.add_argument("part", nargs="?", metavar="PART")
    logs.add_argument("--follow", "-f", action="store_true", help="go on as lines come")
    logs.add_argument("--lines", "-n", type=int, default=20, metavar="N", help="how many (20)")

    drivers = add("drivers", "list the drivers, add some, or tell one's credentials", _drivers)
    drivers.add_argument(
        "action",
        nargs="?",
        choices=["list", "add", "token", "password"],
        default="list",
        help="token: for driver_api; password: for MQTT, with the id as user name",
    )
    drivers.add_argument("driver_ids", nargs="*", metavar="ID")

    sources = add("sources", "list the sources of series, add some, or tell a password", _sources)
    sources.add_argument("action", nargs="?", choices=["list", "add", "password"], default="list")
    sources.add_argument("source_ids", nargs="*", metavar="ID")

    for name, purpose in (
        ("replay", "publish a GPX, CSV or GeoJSON track as a device: FILE... --driver ID"),
        ("send", "publish one fix and say what became of it: --driver ID --lat ... --lon ..."),
    ):
        sub = commands.add_parser(name, help=purpose, add_help=False)
        sub.add_argument("--driver", metavar="ID")
        sub.set_defaults(command=_simulate, takes_rest=True)
    for name, purpose in OPERATOR_COMMANDS.items():
        sub = commands.add_parser(name, help=purpose, add_help=False)
        sub.set_defaults(command=_operate, takes_rest=True)
    for name, purpose in PUBLISHERS.items():
        sub = commands.add_parser(name, help=purpose, add_help=False)
        sub.set_defaults(command=_publish, takes_rest=True)
    return parser


def launcher_commands() -> set[str]:
    """The names of all commands, for those who must know them too."""
    (commands,) = (one for one in _parser()._actions if one.dest == "command_name")
    return set(commands.choices or ())


def _demo(stack: Stack, options: argparse.Namespace) -> int:
    from ops.stack.demo import run_demo

    return int(run_demo(stack, options))


def _up(stack: Stack, _options: argparse.Namespace) -> int:
    stack.up()
    print(f"tracking_api  {stack.addresses.tracking_api_url}   (map: /fleet, API: /docs)")
    print(f"driver_api    {stack.addresses.driver_api_url}")
    print(f"MQTT          {stack.addresses.mqtt_url}")
    print(f"staff token   {stack.paths.staff_token_file}")
    owner_pid = stack.owner_pid()
    if owner_pid is not None:
        print_line(f"it belongs to {_kind_of(owner_pid)} (pid {owner_pid}) that will take it down")
    return 0


def _kind_of(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        words = []
    return "a demo" if b"demo" in words else "a command"


def _down(stack: Stack, options: argparse.Namespace) -> int:
    was_up = stack.is_up()
    stack.down(erase=options.erase)
    print_line("stopped" if was_up else "the stack was not up")
    if options.erase:
        print_line("its data and secrets are erased")
    return 0


def _status(stack: Stack, options: argparse.Namespace) -> int:
    states = stack.status()
    if options.json:
        print(json.dumps(stack.status_json() if states else []))
    elif not states:
        print("the stack is not up")
    else:
        for one in states:
            ready = "ready" if one.ready else one.detail or "not ready"
            print(f"{one.part:<15} {one.address:<22} pid {one.pid:<8} {ready}")
    return 0 if states and all(one.ready for one in states) else 1


def _logs(stack: Stack, options: argparse.Namespace) -> int:
    files = stack.log_files()
    if options.part is not None:
        # `mosquitto` means its only broker
        chosen = [path for name, path in files.items() if _names(options.part, name)]
        if not chosen:
            print_line(f"run: no log of {options.part!r}; there are: {', '.join(files)}")
            return 2
    else:
        chosen = list(files.values())
    argv = ["tail", "-n", str(options.lines), *(["-F"] if options.follow else [])]
    return subprocess.run([*argv, *map(str, chosen)], check=False).returncode if chosen else 0


def _names(asked: str, part: str) -> bool:
    return part == asked or part.rpartition("-")[0] == asked


def _drivers(stack: Stack, options: argparse.Namespace) -> int:
    if options.action == "add":
        return _add_drivers(stack, options.driver_ids)
    known = _known_drivers(stack)
    if options.action == "list":
        print("\n".join(known))
        return 0
    unknown = [driver_id for driver_id in options.driver_ids if driver_id not in known]
    if unknown:
        print_line(f"run: no driver {' '.join(unknown)}: ./run drivers add {' '.join(unknown)}")
        return 1
    secret_of = driver_token if options.action == "token" else mqtt_password
    for driver_id in options.driver_ids:
        print(secret_of(stack.paths.fleet_key(), driver_id))
    return 0


def _add_drivers(stack: Stack, driver_ids: Sequence[str]) -> int:
    known = set(_known_drivers(stack))
    stack.add_drivers(driver_ids)
    there = [driver_id for driver_id in driver_ids if driver_id in known]
    if there:
        print_line(f"already there: {' '.join(there)}")
    if len(there) < len(driver_ids):
        print_line(f"added {len(driver_ids) - len(there)}; MQTT user name = driver id")
    return 0


def _known_drivers(stack: Stack) -> list[str]:
    if not stack.paths.password_file.exists():
        return []
    with stack.paths.password_file.open(encoding="ascii") as file:
        names = [line.partition(":")[0] for line in file]
    sources = read_sources(stack.paths.password_file)
    return [name for name in names if name not in SERVICE_USERS and name not in sources]


def _sources(stack: Stack, options: argparse.Namespace) -> int:
    if options.action == "add":
        stack.add_sources(options.source_ids)
        return 0
    known = sorted(read_sources(stack.paths.password_file))
    if options.action == "list":
        print("\n".join(known))
        return 0
    for source_id in options.source_ids:
        if source_id not in known:
            print_line(f"run: no source {source_id}: ./run sources add {source_id}")
            return 1
        print(mqtt_password(stack.paths.fleet_key(), source_id))
    return 0


def _simulate(stack: Stack, options: argparse.Namespace) -> int:
    """Run `replay` or `send` against the stack, with its driver registered."""
    argv = [*module_argv(options.command_name), *options.rest]
    if options.driver is None or {"-h", "--help"} & set(options.rest):
        return subprocess.run([*argv, "--help"], check=False, cwd=PROJECT).returncode
    argv += ["--driver", options.driver]
    if not stack.is_up():
        print_line("no stack is up: starting one for this command")
    with stack.session():
        is_known = options.driver in _known_drivers(stack)
        stack.add_drivers([options.driver])
        if not is_known:
            print_line(f"registered {options.driver} as a new driver")
        return subprocess.run(argv, check=False, env=stack.client_environment()).returncode


def _operate(stack: Stack, options: argparse.Namespace) -> int:
    """Run an operator's command against the running stack, as the database's owner."""
    is_help = bool({"-h", "--help"} & set(options.rest))
    if not is_help and not stack.is_up():
        print_line("run: no stack is up: ./run up")
        return 1
    if not is_help:
        os.environ.update(stack.operator_environment())
    return _operator_main(options.command_name)(options.rest)


def _operator_main(name: str) -> Callable[[Sequence[str]], int]:
    """Import one command's `main`; each brings clients that the others do not need."""
    match name:
        case "where":
            from ops.commands.trace_command import main
        case "dead-letters":
            from ops.commands.dead_letters_command import main
        case "rebuild":
            from ops.commands.rebuild_command import main
        case "compact":
            from ops.commands.compact_command import main
        case "learn":
            from ops.commands.learn_command import main
        case _:
            raise ValueError(f"{name!r} is not an operator's command")
    return main


def _publish(stack: Stack, options: argparse.Namespace) -> int:
    """Run `cities` or `tickers` beside the stack."""
    argv = [*module_argv(options.command_name), *options.rest]
    if {"-h", "--help"} & set(options.rest):
        return subprocess.run(argv, check=False, cwd=PROJECT).returncode
    if not stack.is_up():
        print_line("no stack is up: starting one for this command")
    with stack.session():
        if options.command_name == "cities":
            stack.add_drivers(numbered(*CITIES))
        return subprocess.run(argv, check=False, env=stack.operator_environment()).returncode
