"""How every command of an operator ends: what it says, and its exit status."""

from __future__ import annotations

import sys
from collections.abc import Callable

from doorstep.errors import DoorstepError, NotFound, SettingsError
from doorstep.settings import EX_CONFIG


class BadArgument(DoorstepError):
    """An argument of the command line can't be used."""


def run_command(name: str, work: Callable[[], int]) -> int:
    """Run the work of `./run NAME`; an error becomes one line and an exit status.

    2 is an argument that can't be used or names nothing, 78 a setting, 130 Ctrl-C, 1 all else.
    """
    try:
        return work()
    except SettingsError as exc:
        say(name, f"{exc} (./run {name} sets it, while a stack is up)")
        return EX_CONFIG
    except (BadArgument, NotFound) as exc:
        say(name, str(exc))
        return 2
    except DoorstepError as exc:
        say(name, f"{exc}; ./run status says what is up, and {name} can be run again")
        return 1
    except KeyboardInterrupt:
        return 130


def say(name: str, line: str) -> None:
    """Say something to people, on the error stream."""
    print(f"{name}: {line}", file=sys.stderr, flush=True)
