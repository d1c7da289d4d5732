"""The network between devices, bridge and broker: silent for a minute, or slow and in slices."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from typing import Self

from device.device_session import DeviceSession, open_device_session
from device.settings import DeviceSettings
from doorstep.provision import numbered
from doorstep.settings import MqttBroker
from tests.faults.background import Background
from tests.faults.fault import Fault, Seen
from tests.faults.lab import Lab
from tests.faults.proxy import Conditions, Proxy
from tests.faults.waiting import wait_until

PHONES = numbered("roamer-", 8)
TURN_S = 0.1  # a hasty phone's reports
TURNS = 10  # of which a usual phone reports in one
HOLE_S = 60.0
NOTICE_WITHIN_S = 45.0
SLOW_S = 45.0
SETTLE_WITHIN_S = 90.0
SLOW = Conditions(latency_s=1.0, jitter_s=0.5, slice_bytes=200, slice_gap_s=0.0005)
# 0.5 MB/s a link at most: four times what the bridge gets at 500 fixes/s


class Phones(Background):
    """A few devices with journals behind a port of their own, each reporting once a second.

    The first may be `hasty`: ten times as fast.
    """

    def __init__(self, lab: Lab, broker_port: int, *, hasty: bool = False) -> None:
        super().__init__("phones")
        self._lab = lab
        self._hasty = hasty
        self._settings = DeviceSettings(
            mqtt_url=(MqttBroker("127.0.0.1", broker_port, tls=False),),
            fleet_key_file=lab.stack.paths.fleet_key_file,
            staff_token_file=lab.stack.paths.staff_token_file,
            journal_dir=lab.stack.paths.journals,
            ack_every_s=lab.settings.ack_every_s,
        )
        self._phones: list[DeviceSession] = []
        self._quiet = threading.Event()

    def prepare(self) -> None:
        """Register them."""
        self._lab.stack.add_drivers(PHONES)

    def __enter__(self) -> Self:
        super().__enter__()
        wait_until(lambda: self.connected == len(PHONES), 60, "the phones are connected")
        return self

    @property
    def connected(self) -> int:
        """How many believe that they have a connection."""
        return sum(phone.device.connected for phone in self._phones)

    @property
    def published(self) -> int:
        """How many fixes they have journaled in this life."""
        return sum(phone.device.last_seq for phone in self._phones)

    @property
    def pending(self) -> int:
        """How many fixes they have not been told to be committed."""
        return sum(phone.device.pending for phone in self._phones)

    def settle(self) -> int:
        """Stop reporting and wait until all is committed; how many are not in time."""
        self._quiet.set()
        deadline = time.monotonic() + SETTLE_WITHIN_S
        while self.pending and time.monotonic() < deadline:
            time.sleep(0.1)
        return self.pending

    async def live(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            for driver_id in PHONES:
                phone = await stack.enter_async_context(
                    open_device_session(driver_id, self._settings)
                )
                self._phones.append(phone)
            turn = 0
            while not self.stopping.is_set():
                await asyncio.sleep(TURN_S)
                turn += 1
                for number, phone in enumerate(self._phones):
                    due = turn % TURNS == number or (self._hasty and number == 0)
                    if due and not self._quiet.is_set():
                        place = {"lat_deg": 43.75 + number * 1e-3, "lon_deg": 11.2 + turn * 1e-6}
                        phone.report({"fix_at": round(time.time() * 1000), **place})


def black_hole(lab: Lab) -> Seen:
    """Lose every packet for a minute, beside the bridge and beside devices."""
    broker_port = lab.addresses.mqtt[0].port
    with (
        lab.proxied(["bridge"], "mosquitto-1") as beside_bridge,
        Proxy(broker_port) as beside_phones,
        Phones(lab, beside_phones.port) as phones,
    ):
        dug_at = time.monotonic()
        beside_bridge.black_hole()
        beside_phones.black_hole()
        noticed: dict[str, float] = {}
        while (passed_s := time.monotonic() - dug_at) < HOLE_S:
            if "bridge" not in noticed and not lab.metric("bridge", "doorstep_bridge_connected"):
                noticed["bridge"] = passed_s
            if "devices" not in noticed and phones.connected == 0:
                noticed["devices"] = passed_s
            time.sleep(0.2)
        waiting = phones.pending
        beside_bridge.heal()
        beside_phones.heal()
        recovery_s = lab.wait_healthy(since=time.monotonic())
        left = phones.settle()
    told = ", ".join(f"the {who} after {s:.0f} s" for who, s in sorted(noticed.items()))
    in_time = len(noticed) == 2 and max(noticed.values()) <= NOTICE_WITHIN_S
    return Seen(
        f"noticed by {told or 'nobody'}; {waiting} fixes waited in {len(PHONES)} journals, "
        f"{left} after healing",
        recovery_s,
        in_time and not left,
    )


def slow_and_sliced(lab: Lab) -> Seen:
    """Delay every chunk by 1 s +- 0.5, in slices, beside the bridge and beside devices."""
    broker_port = lab.addresses.mqtt[0].port
    with (
        lab.proxied(["bridge"], "mosquitto-1") as beside_bridge,
        Proxy(broker_port) as beside_phones,
        Phones(lab, beside_phones.port) as phones,
    ):
        proxies = (beside_bridge, beside_phones)
        for proxy in proxies:
            proxy.set(SLOW)
        accepted = [proxy.accepted for proxy in proxies]
        before, relayed = phones.published, beside_bridge.bytes_down
        time.sleep(SLOW_S)
        relayed = beside_bridge.bytes_down - relayed
        reported, behind = phones.published - before, phones.pending
        connects = [p.accepted - known for p, known in zip(proxies, accepted, strict=True)]
        for proxy in proxies:
            proxy.heal()
        recovery_s = lab.wait_healthy(since=time.monotonic())
        left = phones.settle()
    return Seen(
        f"{connects[0]} reconnects of the bridge, {connects[1]} of {len(PHONES)} devices in "
        f"{SLOW_S:.0f} s; {relayed / 1000:.0f} kB to the bridge; of the devices' {reported} "
        f"fixes {behind} were under way at the end, {left} after healing",
        recovery_s,
        connects == [0, 0] and not left and 0 < behind < reported / 2,
    )


FAULTS = (
    Fault(
        7,
        "MQTT is a black hole for 60 s",
        "bridge and devices notice within 45 s; 0 lost",
        None,
        quick=False,
        run=black_hole,
    ),
    Fault(
        8,
        "MQTT late by 1 s +- 0.5, in slices",
        "0 lost, no reconnect",
        None,
        quick=False,
        run=slow_and_sliced,
    ),
)
