"""The users in Mosquitto's password file: drivers and sources of series."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from doorstep.provision import SERVICE_USERS, read_sources
from ops.stack.stack import Stack


def read_driver_ids(stack: Stack) -> list[str]:
    """Return the ids of all registered drivers, in the order in which they were added."""
    if not stack.paths.password_file.exists():
        return []
    with stack.paths.password_file.open(encoding="ascii") as file:
        names = [line.partition(":")[0] for line in file]
    others = {*SERVICE_USERS, *read_source_ids(stack)}
    return [name for name in names if name not in others]


def read_source_ids(stack: Stack) -> list[str]:
    """Return the ids of all registered sources, sorted."""
    return sorted(read_sources(stack.paths.password_file))


def print_secrets(ids: Sequence[str], derive: Callable[[str], str]) -> None:
    """Print one secret bare, for use in a shell, or several as lines of id and secret."""
    for one in ids:
        print(derive(one) if len(ids) == 1 else f"{one} {derive(one)}")
