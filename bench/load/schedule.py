"""When each device's messages fall due. Pure arithmetic: nothing is stored per message.

The devices of all generators are spread evenly over the time between two messages of one device.
A change of the rate begins a new era, in which each device goes on with its next seq.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Era:
    """A time of one rate. `before` has, for each device, its messages of earlier eras."""

    began_ms: int
    interval_ms: float  # between two fixes of a device
    before: Sequence[int]


class Schedule:
    """The devices of one generator, in the order in which they fall due.

    `shares` has each device's place among all devices, 0 to 1, ascending. A message carries
    `fixes_per_message` fixes and is due with the newest of them.
    """

    def __init__(self, shares: Sequence[float], fixes_per_message: int = 1) -> None:
        self._shares = shares
        self._per_message = fixes_per_message
        self._eras: list[Era] = []

    def begin(self, began_ms: int, interval_ms: float, made: Sequence[int]) -> None:
        """Begin an era; `made` has the messages that each device has made so far."""
        self._eras.append(Era(began_ms, interval_ms, list(made)))

    def round_ms(self, number: int) -> int:
        """When the era's messages of a round, counted from 0, begin to be due."""
        era = self._eras[-1]
        last_fix = (number + 1) * self._per_message - 1
        return era.began_ms + int(last_fix * era.interval_ms)

    def offsets_ms(self) -> list[int]:
        """How long after its round's begin each device's message is due."""
        return [self._offset_ms(device, self._eras[-1]) for device in range(len(self._shares))]

    def due_ms(self, device: int, seq: int) -> int:
        """When a fix is due: its `fix_at`. The epoch is 1970, as everywhere."""
        per_message = self._per_message
        message = (seq - 1) // per_message
        era = next(one for one in reversed(self._eras) if message >= one.before[device])
        fixes = seq - 1 - era.before[device] * per_message
        return era.began_ms + int(fixes * era.interval_ms) + self._offset_ms(device, era)

    def _offset_ms(self, device: int, era: Era) -> int:
        return int(self._shares[device] * era.interval_ms * self._per_message)
