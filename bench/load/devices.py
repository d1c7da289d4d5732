"""The devices of one generator, and the content of their fixes.

A fix is a function of its device and seq: a resent fix is identical, byte by byte.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bench.load import device_packets
from bench.load.route import JITTER_MICRO, LAT_DEG, LON_DEG, DeliveryRoute, IdleRoute, Leg, Route
from bench.load.schedule import Schedule

_FIX = b'%b%d,"fix_at":%d,"lat_deg":%b.%06d,"lon_deg":%b.%06d,%b'
_NO_LEG = Leg(0.0, 0.0, 0.0, 0.0, 0.0, b"")  # ends at the start of the route
_LAT, _LON = str(LAT_DEG).encode(), str(LON_DEG).encode()


@dataclass(frozen=True, slots=True)
class Device:
    """One device. `share` is its phase among all devices, 0 to 1.

    It sends `fixes_per_message` fixes at a time.
    """

    driver_id: str
    boot: str
    share: float
    route: Route
    fixes_per_message: int = 1

    def as_json(self) -> list[Any]:
        """Encode it for a generator's plan."""
        kind = "delivery" if isinstance(self.route, DeliveryRoute) else "idle"
        values = [getattr(self.route, name) for name in self.route.__slots__]  # type: ignore[attr-defined]
        return [self.driver_id, self.boot, self.share, kind, *values]

    @classmethod
    def from_json(cls, values: list[Any]) -> Device:
        """Decode the result of `as_json`."""
        driver_id, boot, share, kind, *rest = values
        route: Route = DeliveryRoute(*rest) if kind == "delivery" else IdleRoute(*rest)
        return cls(driver_id, boot, share, route)


class Fixes:
    """Encodes the devices' messages. `start_ms` is the epoch instant at which routes start."""

    def __init__(self, devices: list[Device], schedule: Schedule, per_message: int) -> None:
        self.start_ms = 0.0
        self._schedule = schedule
        self._per_message = per_message
        self._routes = [one.route for one in devices]
        self._topics = [device_packets.position_topic(one.driver_id) for one in devices]
        self._heads = [b'{"boot":"%b","seq":' % one.boot.encode() for one in devices]
        self._legs = [_NO_LEG] * len(devices)  # the current one per device

    def fix(self, device: int, seq: int, due_ms: int) -> bytes:
        """One fix as JSON."""
        ms = due_ms - self.start_ms
        leg = self._legs[device]
        if ms >= leg[0]:
            leg = self._legs[device] = self._routes[device].leg_at(ms)
        _until_ms, lon_micro, lat_micro, lon_per_ms, lat_per_ms, tail = leg
        return _FIX % (
            self._heads[device],
            seq,
            due_ms,
            _LAT,
            int(lat_micro + lat_per_ms * ms) + seq * 5 % JITTER_MICRO,
            _LON,
            int(lon_micro + lon_per_ms * ms) + seq * 7 % JITTER_MICRO,
            tail,
        )

    def message(self, device: int, number: int, due_ms: int) -> bytes:
        """A device's n-th message as a packet, from 1 on; its newest fix is due at `due_ms`."""
        if self._per_message == 1:
            payload = self.fix(device, number, due_ms)
        else:
            payload = self._array(device, number)
        return device_packets.position(
            self._topics[device], (number - 1) % device_packets.FIX_IDS + 1, payload
        )

    def repeat(self, device: int, number: int, packet_id: int) -> bytes:
        """An earlier message, under another packet id."""
        if self._per_message > 1:
            payload = self._array(device, number)
        else:
            self._legs[device] = _NO_LEG  # the current leg may be a later one
            payload = self.fix(device, number, self._schedule.due_ms(device, number))
            self._legs[device] = _NO_LEG
        return device_packets.position(self._topics[device], packet_id, payload)

    def _array(self, device: int, number: int) -> bytes:
        first = (number - 1) * self._per_message + 1
        self._legs[device] = _NO_LEG
        fixes = [
            self.fix(device, seq, self._schedule.due_ms(device, seq))
            for seq in range(first, first + self._per_message)
        ]
        return b"[%b]" % b",".join(fixes)
