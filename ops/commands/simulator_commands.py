"""`./run replay`, `send`, `cities` and `tickers`: simulators against the running stack.

If no stack is up, the command starts one and stops it at its end.
"""

from __future__ import annotations

import argparse
import subprocess
from collections.abc import Sequence

from doorstep.provision import CITIES, numbered_ids
from ops.commands.broker_users import refusal
from ops.console import print_line
from ops.stack.processes import module_argv
from ops.stack.settings import PROJECT
from ops.stack.stack import Stack

AS_DRIVER = {
    "replay": "publish a recorded track as a device: FILE... --driver ID",
    "send": "publish one fix and report its outcome: --driver ID --lat DEG --lon DEG",
}
PUBLISHERS = {
    "cities": "publish vans on their way between French cities",
    "tickers": "publish series of numbers, each a random walk",
}


def run_as_driver(stack: Stack, options: argparse.Namespace) -> int:
    """Run `replay` or `send`. Registers the driver first if there has been none of that name."""
    argv = [*module_argv(options.command_name), *options.rest]
    if options.driver is None or asks_for_help(options.rest):
        return subprocess.run([*argv, "--help"], check=False, cwd=PROJECT).returncode
    argv += ["--driver", options.driver]
    _announce_start(stack)
    with stack.session():
        is_new = options.driver not in {one.device_id for one in stack.devices("driver")}
        locked_out = stack.add_drivers([options.driver])
        if locked_out:
            print_line(refusal(locked_out[0]))
            return 1
        if is_new:
            print_line(f"registered {options.driver} as a new driver")
        return subprocess.run(argv, check=False, env=stack.client_environment()).returncode


def run_publisher(stack: Stack, options: argparse.Namespace) -> int:
    """Run `cities` or `tickers` until Ctrl-C."""
    argv = [*module_argv(options.command_name), *options.rest]
    if asks_for_help(options.rest):
        return subprocess.run(argv, check=False, cwd=PROJECT).returncode
    _announce_start(stack)
    with stack.session():
        if options.command_name == "cities":
            stack.add_drivers(numbered_ids(*CITIES))
        return subprocess.run(argv, check=False, env=stack.client_environment()).returncode


def asks_for_help(arguments: Sequence[str]) -> bool:
    """Whether --help is among the arguments."""
    return bool({"-h", "--help"} & set(arguments))


def _announce_start(stack: Stack) -> None:
    if not stack.is_up():
        print_line("no stack is up: starting one for this command")
