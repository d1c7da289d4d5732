"""`./run where`, `dead-letters`, `rebuild` and others of COMMANDS: operations on a running stack.

Each runs as the database's owner.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence

from ops.commands.simulator_commands import asks_for_help
from ops.console import print_line
from ops.stack.stack import Stack

COMMANDS = {
    "where": "trace one fix through the system: DRIVER SEQ",
    "dead-letters": "list, show or resend inputs that were rejected",
    "rebuild": "recompute evidence and states from the history, and compare",
    "compact": "pack sealed days of the history, and delete expired ones",
    "learn": "learn travel times from the history, for the ETA",
    "retention": "print or set how long personal data are kept",
    "export": "write what is stored of a driver or an order as JSON",
    "forget": "erase a driver's data, or make an order anonymous",
}


def run_operator_command(stack: Stack, options: argparse.Namespace) -> int:
    """Run a command of COMMANDS with the environment of the running stack."""
    if not asks_for_help(options.rest):
        if not stack.is_up():
            print_line("run: no stack is up: ./run up")
            return 1
        os.environ.update(stack.operator_environment())
    return _import_main(options.command_name)(options.rest)


def _import_main(name: str) -> Callable[[Sequence[str]], int]:
    """Import one command only: each imports client libraries of its own."""
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
        case "retention":
            from ops.commands.retention_command import main
        case "export":
            from ops.commands.export_command import main
        case "forget":
            from ops.commands.forget_command import main
        case _:
            raise ValueError(f"{name!r} is not an operator's command")
    return main
