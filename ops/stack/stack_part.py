"""What the parts of a stack's class need of it."""

from __future__ import annotations

from abc import ABC, abstractmethod

from ops.console import Echo
from ops.stack.addresses import Addresses
from ops.stack.paths import StackPaths


class StackPart(ABC):
    """One concern of `Stack`, in a module of its own."""

    paths: StackPaths
    _echo: Echo

    @property
    @abstractmethod
    def addresses(self) -> Addresses:
        """The addresses of the running stack. Raises StackError if none runs."""
