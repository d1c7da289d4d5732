"""The due times of each device's messages. Nothing is stored per message.

The devices of all generators are spread evenly over the interval between two messages of one
device. A change of rate starts a new period, in which each device continues with its next seq.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RatePeriod:
    """A period of one rate. `before` holds each device's messages of earlier periods."""

    began_ms: int
    interval_ms: float  # between two fixes of a device
    before: Sequence[int]


class Schedule:
    """The due times of one generator's devices.

    `shares` holds each device's phase among all devices, 0 to 1, ascending. A message carries
    `fixes_per_message` fixes and is due with the newest of them.
    """

    def __init__(self, shares: Sequence[float], fixes_per_message: int = 1) -> None:
        self._shares = shares
        self._per_message = fixes_per_message
        self._periods: list[RatePeriod] = []

    def start_period(self, began_ms: int, interval_ms: float, generated: Sequence[int]) -> None:
        """Start a period. `generated` holds each device's messages so far."""
        self._periods.append(RatePeriod(began_ms, interval_ms, list(generated)))

    def round_ms(self, number: int) -> int:
        """The due time of the first message of a round, from 0 on."""
        period = self._periods[-1]
        last_fix = (number + 1) * self._per_message - 1
        return period.began_ms + int(last_fix * period.interval_ms)

    def offsets_ms(self) -> list[int]:
        """Each device's offset within a round."""
        return [self._offset_ms(device, self._periods[-1]) for device in range(len(self._shares))]

    def due_ms(self, device: int, seq: int) -> int:
        """The due time of a fix, epoch ms: its `fix_at`."""
        per_message = self._per_message
        message = (seq - 1) // per_message
        period = next(one for one in reversed(self._periods) if message >= one.before[device])
        fixes = seq - 1 - period.before[device] * per_message
        return period.began_ms + int(fixes * period.interval_ms) + self._offset_ms(device, period)

    def _offset_ms(self, device: int, period: RatePeriod) -> int:
        return int(self._shares[device] * period.interval_ms * self._per_message)
