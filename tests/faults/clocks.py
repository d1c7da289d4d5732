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
from typing import NamedTuple

import httpx

from doorstep.credentials import driver_token
from ops.servers.waiting import poll_until
from tests.faults.devices import RESTAURANT_ID, instant_ms
from tests.faults.environment import FaultEnvironment
from tests.faults.fault import Fault, Outcome
from tests.faults.kafka import acked_during
from tests.faults.load_process import PROBE

STEPPED = ("postgres", "kafka", "bridge", "driver_events", "driver_api", "tracking_api")
STEPS_S = (3600, -3600)
SOURCE = Path(__file__).with_name("stepped_clock.c")
COMPILE_TIMEOUT_S = 60
STOPPED_WITHIN_S = 10.0
STEPPED_S = 20.0
CLOCK_DRIVER = "clock-step"
COVERS_S = 300.0  # a step, by far
REJECTED = """
    SELECT coalesce(sum(upper(r) - lower(r)), 0)
    FROM driver_boot CROSS JOIN unnest(rejected) AS r WHERE driver_id LIKE %s
"""
WINDOWS = """
    SELECT count(*) FROM assignment CROSS JOIN unnest(visible) AS r
    WHERE lower(r) BETWEEN to_timestamp(%s) AND to_timestamp(%s)
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


class Statuses(NamedTuple):
    """The statuses of a PATCH, of two commands of staff, and of a read."""

    patch: int
    order: int
    assign: int
    read: int


def clock_stepped(env: FaultEnvironment) -> Outcome:
    """Set the clock an hour ahead, right again, an hour back, and right again."""
    env.stack.add_drivers([CLOCK_DRIVER])
    _set_duty(env, "on-duty")
    orders: list[str] = []
    seen: list[str] = []
    ok, slowest_s = True, 0.0
    with stepped_clock(env) as clock:
        for step_s in STEPS_S:
            order_id = _confirmed_order(env)
            orders.append(order_id)
            pid, refused, replaced = env.pid("driver_events"), _refused(env), _replaced(env)
            at_s = time.time() + step_s
            windows = _windows_opened(env, at_s)
            began = time.monotonic()
            clock.set(step_s)
            stopped = poll_until(lambda: env.readyz("driver_events") == 503, STOPPED_WITHIN_S)
            stopped &= poll_until(lambda: env.readyz("driver_api") == 503, STOPPED_WITHIN_S)
            stopped_s = time.monotonic() - began
            acked, published = acked_during(env, STEPPED_S)
            answers = _answers(env, order_id)
            replaced = _replaced(env) - replaced
            clock.set(0)
            recovery_s = env.wait_healthy()
            right_again = _answers(env, order_id)
            windows = _windows_opened(env, at_s) - windows
            replaced += _replaced(env)  # by the process that has replaced it
            refused = _refused(env) - refused
            slowest_s = max(slowest_s, recovery_s)
            ok = ok and stopped and answers == (503, 503, 503, 200) and not refused
            ok = ok and not acked and not windows and right_again == (200, 201, 200, 200)
            ok = ok and env.pid("driver_events") != pid
            seen.append(
                f"{step_s:+} s: {'not ready' if stopped else 'READY'} after {stopped_s:.1f} s, "
                f"{_said(answers)}, {acked} of {published:,} fixes acked, {windows} visibility "
                f"windows opened; right again: healthy after {recovery_s:.1f} s, "
                f"{_said(right_again)}, {refused} fixes refused, {replaced:.0f} with a corrected "
                "time of arrival"
            )
    for order_id in orders:
        env.tracking.post(f"/orders/{order_id}/cancel").raise_for_status()
    _set_duty(env, "off-duty")
    return Outcome("; ".join(seen), slowest_s, ok)


def _said(answers: Statuses) -> str:
    return (
        f"PATCH {answers.patch}, POST /orders {answers.order}, assign {answers.assign}, "
        f"reads {answers.read}"
    )


def _windows_opened(env: FaultEnvironment, since_s: float) -> int:
    """Count the windows that began in the COVERS_S from then on, by the database's clock."""
    with env.database() as conn:
        row = conn.execute(WINDOWS, [since_s - 1, since_s + COVERS_S]).fetchone()
    assert row is not None
    return int(row[0])


def _refused(env: FaultEnvironment) -> int:
    """Return how many of the load's fixes are rejected in the database."""
    with env.database() as conn:
        row = conn.execute(REJECTED, [PROBE + "%"]).fetchone()
    assert row is not None
    return int(row[0])


def _replaced(env: FaultEnvironment) -> float:
    """Return how many records this process of driver_events gave another time of arrival."""
    return env.metric("driver_events", "doorstep_driver_events_wrong_timestamps_total")


def _set_duty(env: FaultEnvironment, duty: str) -> None:
    path = f"/drivers/{CLOCK_DRIVER}/{duty}"
    env.driver_api.post(path, headers=_token(env)).raise_for_status()


def _token(env: FaultEnvironment) -> dict[str, str]:
    token = driver_token(env.stack.paths.fleet_key(), CLOCK_DRIVER)
    return {"Authorization": f"Bearer {token}"}


def _new_order(env: FaultEnvironment) -> httpx.Response:
    destination = {"lon_deg": 11.2486, "lat_deg": 43.7711}
    return env.tracking.post(
        "/orders",
        json={"restaurant_id": RESTAURANT_ID, "destination": destination},
        headers={"Idempotency-Key": secrets.token_hex(8)},
    )


def _confirmed_order(env: FaultEnvironment) -> str:
    """Return the id of a new order that can be assigned."""
    order_id = str(_new_order(env).raise_for_status().json()["order_id"])
    env.tracking.post(f"/orders/{order_id}/confirm").raise_for_status()
    return order_id


def _answers(env: FaultEnvironment, order_id: str) -> Statuses:
    """Send each request once."""
    patch = env.driver_api.patch(
        f"/drivers/{CLOCK_DRIVER}/location",
        json={"fix_at": instant_ms(datetime.now(UTC)), "lat_deg": 43.7731, "lon_deg": 11.256},
        headers=_token(env),
    )
    assign = env.tracking.post(f"/orders/{order_id}/assign", json={"driver_id": CLOCK_DRIVER})
    read = env.tracking.get(f"/drivers/{CLOCK_DRIVER}")
    return Statuses(
        patch.status_code, _new_order(env).status_code, assign.status_code, read.status_code
    )


FAULTS = (
    Fault(
        33,
        "the server's clock stepped by +1 h and -1 h",
        "while it is off 503, no ack, no window opened; no good fix refused, T <= 60 s",
        60,
        quick=False,
        run=clock_stepped,
        not_here="" if shutil.which("cc") else "a C compiler (cc) is not installed",
    ),
)
