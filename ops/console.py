"""Messages for the person at the terminal. Results go to stdout, messages to stderr."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Callable

Echo = Callable[[str], None]
"""Where a long operation reports its progress, a line at a time."""


def print_line(line: str) -> None:
    """Write a message to stderr and flush it."""
    print(line, file=sys.stderr, flush=True)


def escaped(text: str) -> str:
    """Escape text of others for one line of a terminal: no control characters remain."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def operator() -> str:
    """Return the name under which the audit records what this user does."""
    try:
        return f"run:{getpass.getuser()}"
    except (KeyError, OSError):  # a container's user has no name
        return "run"
