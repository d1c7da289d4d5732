"""Programs that `./run test` provides: a test without one fails, and names the program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

import pytest

from ops.stack.errors import StackError
from ops.stack.settings import StackSettings

P = ParamSpec("P")
Found = TypeVar("Found")


def provided(
    find: Callable[Concatenate[StackSettings, P], Found], *args: P.args, **kwargs: P.kwargs
) -> Found:
    """Return what `find` finds with the default settings; it raises StackError if it is missing."""
    try:
        return find(StackSettings(), *args, **kwargs)
    except StackError as exc:
        pytest.fail(str(exc))
