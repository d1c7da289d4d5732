"""The server's clock: set by an hour while fixes arrive, and set right again.

`stepped_clock.c`, compiled here, sets the clock of PostgreSQL, Kafka and the services. The load
runs with the true one, as phones do. libfaketime would not do: it leaves C11's cnd_timedwait, with
which librdkafka waits, to the true clock, and a wait under way does not follow its steps.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from doorstep.credentials import driver_token
from ops.servers.waiting import poll_until
from tests.faults.devices import RESTAURANT_ID, instant_ms
from tests.faults.environment import FaultEnvironment
from tests.faults.fault import Fault, Outcome
from tests.faults.load_process import PROBE

STEPPED = ("postgres", "kafka", "bridge", "driver_events", "driver_api", "tracking_api")
STEPS_S = (3600, -3600)
SOURCE = Path(__file__).with_name("stepped_clock.c")
COMPILE_TIMEOUT_S = 60
STOPPED_WITHIN_S = 10.0
STEPPED_S = 20.0
CLOCK_DRIVER = "clock-step"
REJECTED = """
    SELECT coalesce(sum(upper(r) - lower(r)), 0)
    FROM driver_boot CROSS JOIN unnest(rejected) AS r WHERE driver_id LIKE %s
"""


class SteppedClock:
    """The clock of the parts in STEPPED."""

    def __init__(self, folder: Path) -> None:
        self._file, self._library = folder / "clock", folder / "stepped_clock.so"
        self._file.write_bytes(struct.pack("<q", 0))
        subprocess.run(
            ["cc", "-O2", "-shared", "-fPIC", "-o", self._library, SOURCE, "-ldl"],
            check=True,
            timeout=COMPILE_TIMEOUT_S,
        )
        for file in (self._file, self._library):
            file.chmod(0o755)  # the servers run as other users

    def set(self, off_s: int) -> None:
        """Set the clock this far from the true one, at once."""
        with self._file.open("r+b") as file:  # in place: the processes map this file
            file.write(struct.pack("<q", off_s))

    @property
    def prefix(self) -> list[str]:
        """Return the command that runs another with this clock."""
        return ["env", f"LD_PRELOAD={self._library}", f"STEPPED_CLOCK={self._file}"]


@contextlib.contextmanager
def stepped_clock(env: FaultEnvironment) -> Iterator[SteppedClock]:
    """Run the parts with a clock that can be set. They restart at both ends."""
    clock = SteppedClock(env.folder)
    try:
        env.restart_with_prefix(dict.fromkeys(STEPPED, clock.prefix))
        yield clock
    finally:
        env.restart_with_prefix({})


def clock_stepped(env: FaultEnvironment) -> Outcome:
    """Set the clock an hour ahead, right again, an hour back, and right again."""
    env.stack.add_drivers([CLOCK_DRIVER])
    seen: list[str] = []
    ok, slowest_s = True, 0.0
    with stepped_clock(env) as clock:
        assert _answers(env)[0] == 200
        for step_s in STEPS_S:
            pid, refused, replaced = env.pid("driver_events"), _refused(env), _replaced(env)
            began = time.monotonic()
            clock.set(step_s)
            stopped = poll_until(lambda: env.readyz("driver_events") == 503, STOPPED_WITHIN_S)
            stopped &= poll_until(lambda: env.readyz("driver_api") == 503, STOPPED_WITHIN_S)
            stopped_s = time.monotonic() - began
            time.sleep(STEPPED_S)
            answers = _answers(env)
            replaced = _replaced(env) - replaced
            clock.set(0)
            recovery_s = env.wait_healthy()
            replaced += _replaced(env)  # by the process that has replaced it
            refused = _refused(env) - refused
            slowest_s = max(slowest_s, recovery_s)
            ok = ok and stopped and answers == (503, 503, 200) and not refused
            ok = ok and env.pid("driver_events") != pid
            seen.append(
                f"{step_s:+} s: {'not ready' if stopped else 'READY'} after {stopped_s:.1f} s, "
                f"PATCH {answers[0]}, POST /orders {answers[1]}, reads {answers[2]}; right again: "
                f"healthy after {recovery_s:.1f} s, {refused} fixes refused, {replaced:.0f} with "
                "a corrected time of arrival"
            )
    return Outcome("; ".join(seen), slowest_s, ok)


def _refused(env: FaultEnvironment) -> int:
    """Return how many of the load's fixes are rejected in the database."""
    with env.database() as conn:
        row = conn.execute(REJECTED, [PROBE + "%"]).fetchone()
    assert row is not None
    return int(row[0])


def _replaced(env: FaultEnvironment) -> float:
    """Return how many records this process of driver_events gave another time of arrival."""
    return env.metric("driver_events", "doorstep_driver_events_wrong_timestamps_total")


def _answers(env: FaultEnvironment) -> tuple[int, int, int]:
    """Return the statuses of a PATCH, of a command of staff, and of a read."""
    token = driver_token(env.stack.paths.fleet_key(), CLOCK_DRIVER)
    patch = env.driver_api.patch(
        f"/drivers/{CLOCK_DRIVER}/location",
        json={"fix_at": instant_ms(datetime.now(UTC)), "lat_deg": 43.7731, "lon_deg": 11.256},
        headers={"Authorization": f"Bearer {token}"},
    )
    order = env.tracking.post(
        "/orders",
        json={
            "restaurant_id": RESTAURANT_ID,
            "destination": {"lon_deg": 11.2486, "lat_deg": 43.7711},
        },
        headers={"Idempotency-Key": secrets.token_hex(8)},
    )
    read = env.tracking.get(f"/drivers/{CLOCK_DRIVER}")
    return patch.status_code, order.status_code, read.status_code


FAULTS = (
    Fault(
        33,
        "the server's clock stepped by +1 h and -1 h",
        "not ready and 503 while it is off, no good fix refused, T <= 60 s",
        60,
        quick=False,
        run=clock_stepped,
        not_here="" if shutil.which("cc") else "a C compiler (cc) is not installed",
    ),
)
