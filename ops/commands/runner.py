"""Error messages and exit statuses of the operators' commands."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from doorstep.errors import DoorstepError, NotFound, OrderOpen, SettingsError
from doorstep.settings import EX_CONFIG
from ops.console import print_line


class BadArgument(DoorstepError):
    """An argument of the command line is invalid."""


def as_order_id(text: str) -> str:
    """Return an order's id in its usual form. Raises BadArgument."""
    try:
        return str(UUID(text))
    except ValueError as exc:
        raise BadArgument(f"{text!r} is not an order's id") from exc


def run_command(name: str, work: Callable[[], int]) -> int:
    """Run `./run NAME`: an error becomes one line on stderr and an exit status.

    2 for a bad argument or an unknown id, 78 for a setting, 130 for Ctrl-C, 1 for other errors.
    """
    try:
        return work()
    except SettingsError as exc:
        print_line(f"{name}: {exc} (./run {name} sets it while a stack is up)")
        return EX_CONFIG
    except (BadArgument, NotFound) as exc:
        print_line(f"{name}: {exc}")
        return 2
    except OrderOpen as exc:
        print_line(f"{name}: {exc}")
        return 1
    except DoorstepError as exc:
        print_line(f"{name}: {exc}; check ./run status, then repeat the command")
        return 1
    except KeyboardInterrupt:
        return 130
