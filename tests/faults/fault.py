"""A fault and its outcome."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from tests.faults.environment import FaultEnvironment

Kind = Literal["plain", "tls", "replicas", "own"]
"""A stack as it is, with --tls, with --ha, or one that the fault starts and checks."""


@dataclass(frozen=True, slots=True)
class Counts:
    """The fixes of a stack that a fault has checked itself."""

    commit_acked: int
    lost: int
    duplicates: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a fault's `run` observed, in words, and the time until the environment was healthy.

    `ok` covers what is specific to this fault. `limit_s` and the invariants are checked for every
    fault alike.
    """

    seen: str
    recovery_s: float | None
    ok: bool
    counts: Counts | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to break the stack.

    `run` gets a healthy environment under load, breaks it, waits until it is healthy again
    (`env.wait_healthy`) and returns the outcome. It leaves every part running as before. An
    exception is a failure as well. `limit_s` bounds `recovery_s`. The `quick` faults take seconds
    and run in CI. `not_here` says why a fault cannot run on this machine.
    """

    id: int
    name: str
    expected: str
    limit_s: float | None
    quick: bool
    run: Callable[[FaultEnvironment], Outcome]
    environment: Kind = "plain"
    not_here: str = ""
