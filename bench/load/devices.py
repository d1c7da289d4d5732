"""The devices of one generator: who they are, and what each of their fixes says.

A fix follows from its device and its seq alone, so that nothing is kept of it: asked again, it is
the same, byte by byte.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bench.load import mqtt_packets
from bench.load.route import JITTER_MICRO, LAT_DEG, LON_DEG, DeliveryRoute, IdleRoute, Leg, Route
from bench.load.schedule import Schedule

_FIX = b'%b%d,"fix_at":%d,"lat_deg":%b.%06d,"lon_deg":%b.%06d,%b'
_NO_LEG = Leg(0.0, 0.0, 0.0, 0.0, 0.0, b"")  # over when the walk begins
_LAT, _LON = str(LAT_DEG).encode(), str(LON_DEG).encode()


@dataclass(frozen=True, slots=True)
class Device:
    """One device. `share` is its place among all devices, 0 to 1: when it is its turn."""

    driver_id: str
    boot: str
    share: float
    script: Route

    def as_json(self) -> list[Any]:
        """As it stands in a generator's plan."""
        kind = "errand" if isinstance(self.script, DeliveryRoute) else "stroll"
        values = [getattr(self.script, name) for name in self.script.__slots__]  # type: ignore[attr-defined]
        return [self.driver_id, self.boot, self.share, kind, *values]

    @classmethod
    def from_json(cls, values: list[Any]) -> Device:
        """Read what `as_json` gave."""
        driver_id, boot, share, kind, *rest = values
        script: Route = DeliveryRoute(*rest) if kind == "errand" else IdleRoute(*rest)
        return cls(driver_id, boot, share, script)


class Fixes:
    """Makes the devices' messages. `origin_ms` is when their walks begin (epoch)."""

    def __init__(self, devices: list[Device], schedule: Schedule, per_message: int) -> None:
        self.origin_ms = 0.0
        self._schedule = schedule
        self._per_message = per_message
        self._scripts = [one.script for one in devices]
        self._topics = [mqtt_packets.position_topic(one.driver_id) for one in devices]
        self._heads = [b'{"boot":"%b","seq":' % one.boot.encode() for one in devices]
        self._legs = [_NO_LEG] * len(devices)  # each one's latest

    def fix(self, device: int, seq: int, due_ms: int) -> bytes:
        """One fix as JSON."""
        ms = due_ms - self.origin_ms
        leg = self._legs[device]
        if ms >= leg[0]:
            leg = self._legs[device] = self._scripts[device].leg_at(ms)
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
        """A device's message, counted from 1, as a packet; its newest fix is due at `due_ms`."""
        if self._per_message == 1:
            payload = self.fix(device, number, due_ms)
        else:
            payload = self._array(device, number)
        return mqtt_packets.position(
            self._topics[device], (number - 1) % mqtt_packets.FIX_IDS + 1, payload
        )

    def again(self, device: int, number: int, packet_id: int) -> bytes:
        """An earlier message once more, under another packet id."""
        if self._per_message > 1:
            payload = self._array(device, number)
        else:
            self._legs[device] = _NO_LEG  # back in time
            payload = self.fix(device, number, self._schedule.due_ms(device, number))
            self._legs[device] = _NO_LEG
        return mqtt_packets.position(self._topics[device], packet_id, payload)

    def _array(self, device: int, number: int) -> bytes:
        first = (number - 1) * self._per_message + 1
        self._legs[device] = _NO_LEG
        fixes = [
            self.fix(device, seq, self._schedule.due_ms(device, seq))
            for seq in range(first, first + self._per_message)
        ]
        return b"[%b]" % b",".join(fixes)
