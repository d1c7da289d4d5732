"""PostgreSQL: sessions and server killed, unreachable, all connections taken, a row locked."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg

from ops.stack.postgres import DATABASE
from ops.stack.processes import postgres_cluster
from tests.faults.apis import CALLERS, Answer, Callers, statuses
from tests.faults.fault import Fault, Seen
from tests.faults.lab import Lab

SERVICES = ("driver_api", "tracking_api", "driver_events")
KILLS = 6  # of each service's sessions
CATCH_WITHIN_S = 1.0  # a session in the middle of a transaction
AWAY_S = 12.0  # longer than any time-out
FAIL_WITHIN_S = 5.0
FULL_FOR_S = 6.0
FULL_WITHIN_S = 2.0
LOCKED_S = 30.0
NORMAL_S = 3.0  # for a PATCH of another driver, on a busy machine

END_SESSION = """
SELECT count(pg_terminate_backend(pid)) FROM (
    SELECT pid FROM pg_stat_activity
    WHERE usename = %(role)s AND (state <> 'idle' OR NOT %(busy)s) ORDER BY random() LIMIT 1
) AS victim
"""
SESSIONS = "SELECT pid FROM pg_stat_activity WHERE usename = ANY(%s)"
TAKE_ALL = "LOCK TABLE driver_state IN ACCESS EXCLUSIVE MODE"
LOCK_DRIVER = "SELECT driver_id FROM driver_state WHERE driver_id = %s FOR UPDATE"


@contextlib.contextmanager
def superuser(lab: Lab) -> Iterator[psycopg.Connection[Any]]:
    """A session that may end others."""
    paths = lab.stack.paths
    cluster = postgres_cluster(paths, lab.addresses, paths.postgres / "data")
    options = "-c search_path=doorstep,public"
    url = cluster.superuser_url(DATABASE)
    with psycopg.connect(url, autocommit=True, options=options) as conn:
        yield conn


def sessions_ended(lab: Lab) -> Seen:
    """End sessions of each service under load, one at a time, in the middle of a transaction."""
    busy = idle = 0
    with Callers(lab.stack) as callers, superuser(lab) as conn:
        callers.wait_steady()
        began = time.monotonic()
        for number in range(KILLS * len(SERVICES)):
            role = SERVICES[number % len(SERVICES)]
            until = time.monotonic() + CATCH_WITHIN_S
            while not (caught := _end_session(conn, role, busy=True)):
                if time.monotonic() > until:
                    break
            busy += caught
            idle += 0 if caught else _end_session(conn, role, busy=False)
        recovery_s = lab.wait_healthy(since=time.monotonic())
        callers.wait_steady()
        answers, lost = callers.since(began), callers.lost()
    failed = [one for one in answers if one.failed]
    twice = [one for one in failed if one.again != 200]
    return Seen(
        f"{busy} busy and {idle} idle sessions ended under {len(answers)} requests: "
        f"{_in_words(answers)}, {len(twice)} failed after one retry; {lost} acked PATCHes lost",
        recovery_s,
        busy >= KILLS and not twice and not lost,
    )


def _end_session(conn: psycopg.Connection[Any], role: str, *, busy: bool) -> int:
    row = conn.execute(END_SESSION, {"role": role, "busy": busy}).fetchone()
    return int(row[0]) if row else 0


def postmaster_killed(lab: Lab) -> Seen:
    """Kill -9 the postmaster."""
    with Callers(lab.stack) as callers:
        callers.wait_steady()
        killed_at = lab.kill("postgres")
        recovery_s = lab.wait_healthy(since=killed_at)
        callers.wait_steady()
        answers, lost = callers.since(killed_at), callers.lost()
    return Seen(
        f"{_in_words(answers)}; {lost} acked PATCHes lost",
        recovery_s,
        _only_unavailable(answers) and not lost,
    )


def half_open(lab: Lab) -> Seen:
    """Lose every packet between the services and PostgreSQL; then only the old connections."""
    with (
        lab.proxied(SERVICES, "postgres") as network,
        Callers(lab.stack) as callers,
        superuser(lab) as conn,
    ):
        callers.wait_steady()
        old = {row[0] for row in conn.execute(SESSIONS, [list(SERVICES)])}
        dug_at = time.monotonic()
        network.black_hole()
        time.sleep(AWAY_S)
        healed_at = time.monotonic()
        network.heal()
        recovery_s = lab.wait_healthy(since=healed_at)
        callers.wait_steady()
        answers = callers.since(dug_at)
        slowest_s = max(one.took_s for one in answers)
        replaced = old.isdisjoint(row[0] for row in conn.execute(SESSIONS, [list(SERVICES)]))
        # and a network that has forgotten the connections, while new ones come about
        forgot_at = time.monotonic()
        network.half_open()
        forgotten_s = lab.wait_healthy(since=forgot_at)
        callers.wait_steady()
        later = callers.since(forgot_at)
        slowest_later_s = max(one.took_s for one in later)
        lost = callers.lost()
    return Seen(
        f"{_in_words(answers)}, the slowest after {slowest_s:.1f} s; every session "
        f"{'new' if replaced else 'NOT new'}; when only the old connections were gone: "
        f"{_in_words(later)}, the slowest after {slowest_later_s:.1f} s, "
        f"healthy after {forgotten_s:.1f} s; {lost} acked PATCHes lost",
        recovery_s,
        max(slowest_s, slowest_later_s) <= FAIL_WITHIN_S
        and replaced
        and _only_unavailable([*answers, *later])
        and not lost,
    )


def pool_exhausted(lab: Lab) -> Seen:
    """Make every write wait for a lock, so that both pools run out of connections."""
    with Callers(lab.stack) as callers, superuser(lab) as conn:
        callers.wait_steady()
        with conn.transaction():
            conn.execute(TAKE_ALL)
            began = time.monotonic()
            conn.execute("SELECT pg_sleep(%s)", [FULL_FOR_S])
        freed_at = time.monotonic()
        recovery_s = lab.wait_healthy(since=freed_at)
        callers.wait_steady()
        answers = callers.since(began, freed_at - FULL_WITHIN_S)
        everything, lost = callers.since(began), callers.lost()
    failed = [one for one in answers if one.failed]
    refused_s = [one.took_s for one in failed if "connection became free" in one.detail]
    slowest_s = max(one.took_s for one in failed)
    return Seen(
        f"{_in_words(answers)}: {len(refused_s)} without a connection, the slowest after "
        f"{max(refused_s):.2f} s; the others had one and waited for the lock, {slowest_s:.2f} s at "
        f"most; {lost} acked PATCHes lost",
        recovery_s,
        len(refused_s) > len(failed) / 2
        and max(refused_s) <= FULL_WITHIN_S
        and slowest_s <= FAIL_WITHIN_S
        and _only_unavailable(everything)
        and not lost,
    )


def row_locked(lab: Lab) -> Seen:
    """Hold one driver's row for 30 s."""
    locked = CALLERS[0]
    with Callers(lab.stack) as callers, superuser(lab) as conn:
        callers.wait_steady()
        oldest_s: list[float] = []
        with conn.transaction():
            conn.execute(LOCK_DRIVER, [locked])
            began = time.monotonic()
            while time.monotonic() - began < LOCKED_S:
                conn.execute("SELECT 1")  # an idle transaction would be ended
                oldest_s.append(lab.oldest_s() or float("inf"))
                time.sleep(0.5)
        freed_at = time.monotonic()
        recovery_s = lab.wait_healthy(since=freed_at)
        callers.wait_steady()
        answers, lost = callers.since(began, freed_at), callers.lost()
    others = [one for one in answers if one.driver_id != locked]
    its_own = [one for one in answers if one.driver_id == locked]
    slowest_s = max(one.took_s for one in others)
    return Seen(
        f"others: {_in_words(others)}, the slowest after {slowest_s:.2f} s, the load's oldest fix "
        f"{max(oldest_s):.1f} s old; the locked driver: {_in_words(its_own)}; "
        f"{lost} acked PATCHes lost",
        recovery_s,
        not any(one.failed for one in others)
        and slowest_s <= NORMAL_S
        and max(oldest_s) <= NORMAL_S
        and _only_unavailable(its_own)
        and not lost,
    )


def _only_unavailable(answers: Sequence[Answer]) -> bool:
    """Whether every failure was a 503 that says when to come again."""
    return all(one.status == 503 and one.retry_after for one in answers if one.failed)


def _in_words(answers: Sequence[Answer]) -> str:
    found = ", ".join(
        f"{count} x {status or 'none'}" for status, count in statuses(answers).items()
    )
    silent = sum(one.status == 503 and not one.retry_after for one in answers)
    return found + (f" ({silent} of the 503 without Retry-After)" if silent else "")


FAULTS = (
    Fault(
        16,
        "PostgreSQL sessions ended",
        "no error after one retry",
        None,
        quick=False,
        run=sessions_ended,
    ),
    Fault(
        17,
        "kill -9 of the postmaster",
        "APIs answer 503 + Retry-After meanwhile",
        30.0,
        quick=False,
        run=postmaster_killed,
    ),
    Fault(
        18,
        "database half open",
        "fails within 5 s, connections replaced",
        None,
        quick=False,
        run=half_open,
    ),
    Fault(
        19,
        "connection pool exhausted",
        "503 within 2 s",
        None,
        quick=False,
        run=pool_exhausted,
    ),
    Fault(
        20,
        "one driver's row locked for 30 s",
        "other drivers unaffected",
        None,
        quick=False,
        run=row_locked,
    ),
)
