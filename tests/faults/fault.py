"""What a fault is, and what was seen of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.faults.lab import Lab


@dataclass(frozen=True, slots=True)
class Seen:
    """What a fault's `run` saw: in words, how long until healthy again, and whether it may be so.

    `ok` is about what this fault is expected to do, its `limit_s` apart: that, and the invariants,
    are checked for every fault alike.
    """

    seen: str
    recovery_s: float | None
    ok: bool


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to break the stack.

    `run` gets a healthy lab under load, breaks it, waits until it is healthy again
    (`lab.wait_healthy`) and tells what it saw; it leaves every part running as it found it. What it
    raises is a failure as well. `limit_s` bounds `recovery_s`. `quick` ones take seconds and run in
    CI.
    """

    id: int
    name: str
    expected: str
    limit_s: float | None
    quick: bool
    run: Callable[[Lab], Seen]
