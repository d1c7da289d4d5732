"""Phone apps' queues through outages, refused positions and restarts, on the running stack.

The seam is the apps: models of their queues (`phone_apps`). Each must end empty, with everything
that it was told is stored in the database, and every refused position as a dead letter.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from doorstep.provision import owner_connection
from ops.servers.waiting import wait_until
from ops.stack.phones import give_phone
from ops.stack.stack import Stack
from tests.integration.devices import letter_ends, letters_after, outbox_has_no_letters
from tests.integration.phone_apps import APPS, LON_DEG, App, Entry, Network, Overland

LASTS_S = 25.0  # the apps record positions during that time
EVERY_S = 0.1
RETRY_S = 0.2  # of the apps: 1 s and more
# Of 20 entries: pings that repeat the last position, other messages, and refused ones.
KINDS = {
    3: "ignored",
    7: "too_old",
    11: "in_the_future",
    13: "latitude_out_of_range",
    17: "not_json",
}
PINGS = (5, 15)
REASONS = {"not_json": {"not_json", "bad_instant"}}


def entry_of(number: int) -> Entry:
    kind = KINDS.get(number % 20, "good")
    ahead = {"too_old": timedelta(hours=-30), "in_the_future": timedelta(minutes=10)}
    return Entry(number, kind, datetime.now(UTC) + ahead.get(kind, timedelta()))


def live(app: App, stopping: threading.Event) -> None:
    """Record positions until `stopping`, and send them until the queue is empty."""
    number, next_at, last_good = 0, time.monotonic(), None
    while app.queue or not stopping.is_set():
        while not stopping.is_set() and time.monotonic() >= next_at:
            number, next_at = number + 1, next_at + EVERY_S
            entry = entry_of(number)
            if number % 20 in PINGS and last_good is not None:
                entry = last_good
            app.queue.append(entry)
            last_good = entry if entry.kind == "good" else last_good
        if number % 50 == 49:
            app.restart()
        if not app.queue or not app.send_next():
            time.sleep(RETRY_S)
    app.close()


@dataclass
class Run:
    """The apps after the run, and what the platform has made of it."""

    apps: dict[str, App]
    letters: dict[str, Counter[str]]
    stored: dict[str, Counter[float]]


def stored_of(stack: Stack, driver_ids: list[str]) -> dict[str, Counter[float]]:
    found: dict[str, Counter[float]] = {name: Counter() for name in driver_ids}
    with owner_connection(stack.database_admin_url) as conn:
        for driver_id, lat_deg in conn.execute(
            "SELECT driver_id, lat_deg FROM doorstep.fix_history WHERE driver_id = ANY (%s)"
            " AND lon_deg = %s",
            (driver_ids, LON_DEG),
        ):
            found[driver_id][lat_deg] += 1
    return found


def break_things(stack: Stack, driver_ids: list[str], seconds: float) -> None:
    """Kill driver_api twice, take it and the database away, and lock all drivers' rows."""
    pause_s = seconds / 12
    time.sleep(pause_s)
    os.kill(stack.pid_of("driver_api"), signal.SIGKILL)
    stack.wait_ready()
    time.sleep(pause_s)
    stack.stop_process("postgres")
    time.sleep(pause_s)
    stack.start_process("postgres")
    stack.wait_ready()
    time.sleep(pause_s)
    with owner_connection(stack.database_admin_url) as conn:
        conn.execute(
            "SELECT FROM doorstep.driver_state WHERE driver_id = ANY (%s) FOR UPDATE", (driver_ids,)
        )
        time.sleep(pause_s)
        conn.rollback()
    stack.stop_process("driver_api")
    time.sleep(pause_s)
    stack.start_process("driver_api")
    stack.wait_ready()
    time.sleep(pause_s)
    os.kill(stack.pid_of("postgres"), signal.SIGKILL)
    stack.wait_ready()
    os.kill(stack.pid_of("driver_api"), signal.SIGKILL)
    stack.wait_ready()


@pytest.fixture(scope="module")
def run(stack: Stack) -> Run:
    names = [f"queue-{n}" for n in range(len(APPS))]
    stack.add_drivers(names)
    url = stack.addresses.driver_api_url
    apps: dict[str, App] = {}
    for seed, (driver_id, app) in enumerate(zip(names, APPS, strict=True)):
        token = give_phone(stack, driver_id).token
        apps[driver_id] = app(driver_id, token, Network(url, seed))
    ends, stopping = letter_ends(stack), threading.Event()
    threads = [threading.Thread(target=live, args=(app, stopping)) for app in apps.values()]
    for thread in threads:
        thread.start()
    try:
        break_things(stack, names, LASTS_S)
    finally:
        stopping.set()
    for thread in threads:
        thread.join()
    wait_until(lambda: outbox_has_no_letters(stack))
    letters = letters_after(stack, ends)
    return Run(
        apps,
        {name: Counter(one.reason for one in letters.get(name, [])) for name in names},
        stored_of(stack, names),
    )


EACH = pytest.mark.parametrize(
    "driver_id",
    [pytest.param(f"queue-{n}", id=app.name) for n, app in enumerate(APPS)],  # type: ignore[attr-defined]
)


@EACH
def test_queue__outages_refusals_and_restarts__ends_empty_and_loses_nothing(
    run: Run, driver_id: str
) -> None:
    app = run.apps[driver_id]
    assert len(app.safe) > 100
    assert not app.queue
    assert app.lost == []
    assert 503 in app.statuses
    assert set(app.statuses) <= {200, 500, 503}


@EACH
def test_queue__what_the_app_was_told_is_safe__is_stored_once(run: Run, driver_id: str) -> None:
    told = {entry.lat_deg for entry in run.apps[driver_id].safe if entry.kind == "good"}
    assert run.stored[driver_id] == dict.fromkeys(told, 1)


@EACH
def test_queue__refused_positions__each_have_a_dead_letter_and_nothing_else_has(
    run: Run, driver_id: str
) -> None:
    refused = Counter(
        entry.kind for entry in run.apps[driver_id].safe if entry.kind not in ("good", "ignored")
    )
    letters = run.letters[driver_id]
    assert set(letters) <= {one for kind in refused for one in REASONS.get(kind, {kind})}
    for kind, times in refused.items():
        assert sum(letters[one] for one in REASONS.get(kind, {kind})) >= times


def test_queue__faster_than_the_quota__is_slowed_down_and_ends_empty(stack: Stack) -> None:
    driver_id, many = "queue-fast", 2_060  # the quota is 2,000 at once
    stack.add_drivers([driver_id])
    network = Network(stack.addresses.driver_api_url, 7, lost=0.0)
    app = Overland(driver_id, give_phone(stack, driver_id).token, network)
    app.at_once = 150
    now = datetime.now(UTC)
    app.queue.extend(Entry(n, "good", now - timedelta(seconds=many - n)) for n in range(many))
    while app.queue:
        if not app.send_next():
            time.sleep(RETRY_S)
    network.client.close()
    assert set(app.statuses) == {200, 503}
    assert stored_of(stack, [driver_id])[driver_id] == {entry.lat_deg: 1 for entry in app.safe}
    assert len(app.safe) == many
