"""One hostile device beside the load: gapped seqs, endless new boots, a flood."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta

from bench.attacks import ATTACKS
from device.connection import Connection
from device.device import make_login
from device.settings import DeviceSettings, FleetSecrets
from doorstep.mqtt_topics import POSITION, topic_of
from tests.faults.background import Background
from tests.faults.devices import instant_ms
from tests.faults.environment import FaultEnvironment
from tests.faults.fault import Fault, Outcome
from tests.faults.load_process import PROBE

FIXES_PER_MESSAGE = 250  # 256 are allowed
MESSAGES_PER_S = {"odd": 4.0, "boots": 4.0, "flood": 8.0}  # 200 and 400 times the quota
MAX_IN_FLIGHT = 16
PHASE_S = 15.0
SETTLE_S = 3.0  # between two phases
MAX_RATIO = 2.0

# In the load's fixes of these spans: from due, which is fix_at, to the write of the row.
P99 = """
    SELECT count(*), coalesce(percentile_cont(0.99) WITHIN GROUP (
        ORDER BY extract(epoch FROM h.recorded_at - h.fix_at)), 0)
    FROM fix_history h
    WHERE h.driver_id LIKE %(drivers)s AND EXISTS (
        SELECT FROM unnest(%(since)s::timestamptz[], %(until)s::timestamptz[]) AS s (since, until)
        WHERE h.fix_at >= s.since AND h.fix_at < s.until)
"""

Span = tuple[datetime, datetime]


class HostileDevice(Background):
    """Publishes one attack of `bench.attacks` until the block ends."""

    def __init__(self, env: FaultEnvironment, driver_id: str, attack: str) -> None:
        super().__init__("hostile device")
        self._settings = DeviceSettings(
            mqtt_url=env.addresses.mqtt_url,
            fleet_key_file=env.stack.paths.fleet_key_file,
            staff_token_file=env.stack.paths.staff_token_file,
        )
        self._driver_id, self._attack = driver_id, attack
        self.sent = 0

    async def work(self) -> None:
        acked: asyncio.Queue[int] = asyncio.Queue()
        login = make_login(self._driver_id, self._settings, FleetSecrets(self._settings))
        connection = Connection(login, b"{}", acked.put_nowait, lambda _topic, _payload: None)
        await connection.open()
        topic = topic_of(self._driver_id, POSITION)
        in_flight = 0
        while not self.stopping.is_set():
            connection.publish(topic, json.dumps(self._fixes()).encode())
            in_flight += 1
            while in_flight >= MAX_IN_FLIGHT or not acked.empty():
                await acked.get()
                in_flight -= 1
            await asyncio.sleep(1 / MESSAGES_PER_S[self._attack])
        await connection.disconnect()

    def _fixes(self) -> list[dict[str, object]]:
        first_at = datetime.now(UTC) - timedelta(hours=1)
        fixes: list[dict[str, object]] = []
        for _ in range(FIXES_PER_MESSAGE):
            boot, seq, _is_void = ATTACKS[self._attack](self.sent)
            fix_at = first_at + timedelta(milliseconds=self.sent)
            fixes.append(
                {
                    "boot": f"{self._attack}-{boot}",
                    "seq": seq,
                    "fix_at": instant_ms(fix_at),
                    "lat_deg": 43.77,
                    "lon_deg": 11.25,
                }
            )
            self.sent += 1
        return fixes


def beside_a_hostile_device(env: FaultEnvironment) -> Outcome:
    """Compare the others' commits during each attack with those between the attacks."""
    calm: list[Span] = [_span(PHASE_S)]
    during: dict[str, Span] = {}
    sent = 0
    driver_ids = {attack: f"hostile-{attack}-{time.monotonic_ns()}" for attack in MESSAGES_PER_S}
    env.stack.add_drivers(list(driver_ids.values()))
    for attack, driver_id in driver_ids.items():
        with HostileDevice(env, driver_id, attack) as device:
            time.sleep(SETTLE_S)
            during[attack] = _span(PHASE_S)
        sent += device.sent
        time.sleep(SETTLE_S)
        calm.append(_span(PHASE_S))
    recovery_s = env.wait_healthy()
    calm_count, calm_s = _p99(env, calm)
    counts, p99s = zip(*(_p99(env, [span]) for span in during.values()), strict=True)
    with env.database() as conn:  # they would trickle in at the quota for hours
        conn.execute("DELETE FROM parked_fix WHERE driver_id = ANY(%s)", [[*driver_ids.values()]])
    beside = ", ".join(
        f"{attack} {p99_s * 1000:.0f} ms" for attack, p99_s in zip(during, p99s, strict=True)
    )
    return Outcome(
        f"{sent:,} hostile fixes; the others' p99 from due to stored: {calm_s * 1000:.0f} ms "
        f"without, beside {beside}",
        recovery_s,
        calm_count > 0 and min(counts) > 0 and max(p99s) <= MAX_RATIO * calm_s,
    )


def _span(seconds: float) -> Span:
    """Wait, and return the instants between."""
    began_at = datetime.now(UTC)
    time.sleep(seconds)
    return began_at, datetime.now(UTC)


def _p99(env: FaultEnvironment, spans: list[Span]) -> tuple[int, float]:
    """Return the number of the load's fixes in these spans, and their p99 in seconds."""
    with env.database() as conn:
        row = conn.execute(
            P99,
            {
                "drivers": PROBE + "%",
                "since": [since for since, _ in spans],
                "until": [until for _, until in spans],
            },
        ).fetchone()
    assert row is not None
    return row[0], float(row[1])


FAULTS = (
    Fault(
        40,
        "one hostile device: odd seqs, new boots, a flood",
        f"the others' p99 to the commit <= {MAX_RATIO:g} times that without it",
        None,
        quick=False,
        run=beside_a_hostile_device,
    ),
)
