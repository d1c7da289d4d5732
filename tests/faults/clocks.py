"""The server's clock: set by an hour while fixes arrive, and set right again.

libfaketime (Debian's) shifts the clock of PostgreSQL, Kafka and the services that judge. The load
runs with the true one, as phones do. The clock of the uptime stays.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from doorstep.credentials import driver_token
from ops.stack.private_file import replace_file
from tests.faults.devices import RESTAURANT_ID, instant_ms
from tests.faults.environment import FaultEnvironment
from tests.faults.fault import Fault, Outcome

STEPPED = ("postgres", "kafka", "driver_events", "driver_api", "tracking_api")
STEPS = ("+3600", "-3600")
NO_STEP = "+0"
STOPPED_WITHIN_S = 10.0
STEPPED_S = 20.0
CLOCK_DRIVER = "clock-step"
REFUSED = "doorstep_driver_events_refused_total"
REPLACED = "doorstep_driver_events_wrong_timestamps_total"
LIBRARIES = "*/faketime/libfaketimeMT.so.1"


def find_library() -> Path | None:
    """Return libfaketime, or None if it is not installed."""
    return next(iter(sorted(Path("/usr/lib").glob(LIBRARIES))), None)


class SteppedClock:
    """The clock of the parts in STEPPED."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.set(NO_STEP)

    def set(self, step: str) -> None:
        """Set the clock this far from the true one, within a second."""
        replace_file(self._file, step + "\n")
        self._file.chmod(0o644)  # the servers run as other users

    @property
    def prefix(self) -> list[str]:
        """Return the command that runs another with this clock."""
        return [
            "env",
            f"LD_PRELOAD={find_library()}",
            f"FAKETIME_TIMESTAMP_FILE={self._file}",
            "FAKETIME_CACHE_DURATION=1",
            "FAKETIME_DONT_FAKE_MONOTONIC=1",
            "NO_FAKE_STAT=1",
        ]


@contextlib.contextmanager
def stepped_clock(env: FaultEnvironment) -> Iterator[SteppedClock]:
    """Run the parts with a clock that can be set. They restart at both ends."""
    clock = SteppedClock(env.folder / "clock")
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
        refused = env.metric("driver_events", REFUSED)
        assert _answers(env)[0] == 200
        for step in STEPS:
            began = time.monotonic()
            clock.set(step)
            stopped = _poll(lambda: env.readyz("driver_events") == 503, STOPPED_WITHIN_S)
            stopped &= _poll(lambda: env.readyz("driver_api") == 503, STOPPED_WITHIN_S)
            stopped_s = time.monotonic() - began
            time.sleep(STEPPED_S)
            answers = _answers(env)
            clock.set(NO_STEP)
            recovery_s = env.wait_healthy()
            slowest_s = max(slowest_s, recovery_s)
            ok = ok and stopped and answers == (503, 503, 200)
            seen.append(
                f"{step} s: {'not ready' if stopped else 'READY'} after {stopped_s:.1f} s, PATCH "
                f"{answers[0]}, POST /orders {answers[1]}, reads {answers[2]}"
            )
        refused = env.metric("driver_events", REFUSED) - refused
        replaced = env.metric("driver_events", REPLACED)
    return Outcome(
        f"{'; '.join(seen)}; {refused:.0f} fixes refused, {replaced:.0f} with a corrected time of "
        "arrival",
        slowest_s,
        ok and refused == 0,
    )


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


def _poll(holds: Callable[[], bool], within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


FAULTS = (
    (
        Fault(
            33,
            "the server's clock stepped by +1 h and -1 h",
            "not ready and 503 while it is off, no good fix refused, T <= 60 s",
            60,
            quick=False,
            run=clock_stepped,
        ),
    )
    if find_library() is not None
    else ()
)
