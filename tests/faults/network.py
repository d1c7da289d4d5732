"""The network between devices, bridge and broker: packets dropped, or slow and in slices."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from typing import Self

from device.device_session import DeviceSession, open_device_session
from device.settings import DeviceSettings
from doorstep.provision import numbered_ids
from doorstep.settings import MqttBroker
from ops.servers.waiting import wait_until
from tests.faults.background import Background
from tests.faults.environment import FaultEnvironment
from tests.faults.fault import Fault, Outcome
from tests.faults.proxy import Conditions, Proxy

DEVICES = numbered_ids("roamer-", 8)
TURN_S = 0.1  # between reports of the fast device
TURNS = 10  # between reports of the other devices
DROP_S = 60.0
DETECT_WITHIN_S = 45.0
SLOW_S = 45.0
SETTLE_WITHIN_S = 90.0
SLOW = Conditions(latency_s=1.0, jitter_s=0.5, slice_bytes=200, slice_gap_s=0.0005)
# At most 0.5 MB/s per link: four times the bridge's traffic at 500 fixes/s.


class RoamingDevices(Background):
    """Devices with journals that connect to a given port and report once a second.

    With `fast` the first one reports ten times as often.
    """

    def __init__(self, env: FaultEnvironment, broker_port: int, *, fast: bool = False) -> None:
        super().__init__("devices")
        self._lab = env
        self._hasty = fast
        self._settings = DeviceSettings(
            mqtt_url=(MqttBroker("127.0.0.1", broker_port, tls=False),),
            fleet_key_file=env.stack.paths.fleet_key_file,
            staff_token_file=env.stack.paths.staff_token_file,
            journal_dir=env.stack.paths.journals,
            ack_every_s=env.settings.ack_every_s,
        )
        self._sessions: list[DeviceSession] = []
        self._quiet = threading.Event()

    def prepare(self) -> None:
        """Register the drivers."""
        self._lab.stack.add_drivers(DEVICES)

    def __enter__(self) -> Self:
        super().__enter__()
        wait_until(lambda: self.connected == len(DEVICES), 60, "the devices are connected")
        return self

    @property
    def connected(self) -> int:
        """The number of devices that report a connection."""
        return sum(session.device.connected for session in self._sessions)

    @property
    def published(self) -> int:
        """The number of fixes journaled in this boot."""
        return sum(session.device.last_seq for session in self._sessions)

    @property
    def pending(self) -> int:
        """The number of fixes that are not acknowledged."""
        return sum(session.device.pending for session in self._sessions)

    def settle(self) -> int:
        """Stop reporting and wait for the acks. Returns the number of fixes without one."""
        self._quiet.set()
        deadline = time.monotonic() + SETTLE_WITHIN_S
        while self.pending and time.monotonic() < deadline:
            time.sleep(0.1)
        return self.pending

    async def work(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            for driver_id in DEVICES:
                session = await stack.enter_async_context(
                    open_device_session(driver_id, self._settings)
                )
                self._sessions.append(session)
            turn = 0
            while not self.stopping.is_set():
                await asyncio.sleep(TURN_S)
                turn += 1
                for number, session in enumerate(self._sessions):
                    due = turn % TURNS == number or (self._hasty and number == 0)
                    if due and not self._quiet.is_set():
                        place = {"lat_deg": 43.75 + number * 1e-3, "lon_deg": 11.2 + turn * 1e-6}
                        session.report({"fix_at": round(time.time() * 1000), **place})


def black_hole(env: FaultEnvironment) -> Outcome:
    """Drop every packet of the bridge and of devices for a minute."""
    broker_port = env.addresses.mqtt[0].port
    with (
        env.proxied(["bridge"], "mosquitto-1") as bridge_proxy,
        Proxy(broker_port) as device_proxy,
        RoamingDevices(env, device_proxy.port) as devices,
    ):
        cut_off_at = time.monotonic()
        bridge_proxy.black_hole()
        device_proxy.black_hole()
        detected_s: dict[str, float] = {}
        while (passed_s := time.monotonic() - cut_off_at) < DROP_S:
            if "bridge" not in detected_s and not env.metric("bridge", "doorstep_bridge_connected"):
                detected_s["bridge"] = passed_s
            if "devices" not in detected_s and devices.connected == 0:
                detected_s["devices"] = passed_s
            time.sleep(0.2)
        waiting = devices.pending
        bridge_proxy.heal()
        device_proxy.heal()
        recovery_s = env.wait_healthy(since=time.monotonic())
        left = devices.settle()
    detected = ", ".join(f"the {who} after {s:.0f} s" for who, s in sorted(detected_s.items()))
    in_time = len(detected_s) == 2 and max(detected_s.values()) <= DETECT_WITHIN_S
    return Outcome(
        f"detected by {detected or 'none'}; {waiting} fixes pending in {len(DEVICES)} journals, "
        f"{left} after healing",
        recovery_s,
        in_time and not left,
    )


def slow_and_sliced(env: FaultEnvironment) -> Outcome:
    """Delay every chunk of the bridge and of devices by 1 s +- 0.5, in slices."""
    broker_port = env.addresses.mqtt[0].port
    with (
        env.proxied(["bridge"], "mosquitto-1") as bridge_proxy,
        Proxy(broker_port) as device_proxy,
        RoamingDevices(env, device_proxy.port) as devices,
    ):
        proxies = (bridge_proxy, device_proxy)
        for proxy in proxies:
            proxy.set(SLOW)
        accepted = [proxy.accepted for proxy in proxies]
        before, relayed = devices.published, bridge_proxy.bytes_down
        time.sleep(SLOW_S)
        relayed = bridge_proxy.bytes_down - relayed
        reported, behind = devices.published - before, devices.pending
        connects = [p.accepted - known for p, known in zip(proxies, accepted, strict=True)]
        for proxy in proxies:
            proxy.heal()
        recovery_s = env.wait_healthy(since=time.monotonic())
        left = devices.settle()
    return Outcome(
        f"{connects[0]} reconnects of the bridge, {connects[1]} of {len(DEVICES)} devices in "
        f"{SLOW_S:.0f} s; {relayed / 1000:.0f} kB to the bridge; of the devices' {reported} "
        f"fixes {behind} in flight at the end, {left} after healing",
        recovery_s,
        connects == [0, 0] and not left and 0 < behind < reported / 2,
    )


FAULTS = (
    Fault(
        7,
        "MQTT is a black hole for 60 s",
        "bridge and devices detect it within 45 s; 0 lost",
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
