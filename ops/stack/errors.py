"""The launcher's errors."""

from __future__ import annotations

from doorstep.errors import DoorstepError


class StackError(DoorstepError):
    """The stack cannot be started or reached."""
