"""PostgreSQL: sessions and server killed, unreachable, connection pools exhausted, a row locked."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg

from ops.stack.postgres import DATABASE
from ops.stack.processes import postgres_cluster
from tests.faults.apis import CALLERS, Callers, Response, statuses
from tests.faults.environment import FaultEnvironment
from tests.faults.fault import Fault, Outcome

SERVICES = ("driver_api", "tracking_api", "driver_events")
KILLS = 6  # of each service's sessions
CATCH_WITHIN_S = 1.0  # to find a session in a transaction
AWAY_S = 12.0  # longer than any time-out
FAIL_WITHIN_S = 5.0
FULL_FOR_S = 6.0
FULL_WITHIN_S = 2.0
REFUSED = re.compile("connection became free|too many connections")  # in the answer's detail
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
def superuser(env: FaultEnvironment) -> Iterator[psycopg.Connection[Any]]:
    """Connect as the superuser, who can end sessions."""
    paths = env.stack.paths
    cluster = postgres_cluster(paths, env.addresses, paths.postgres / "data")
    options = "-c search_path=doorstep,public"
    url = cluster.superuser_url(DATABASE)
    with psycopg.connect(url, autocommit=True, options=options) as conn:
        yield conn


def sessions_ended(env: FaultEnvironment) -> Outcome:
    """End sessions of each service under load, one at a time, within a transaction."""
    busy = idle = 0
    with Callers(env.stack) as callers, superuser(env) as conn:
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
        recovery_s = env.wait_healthy(since=time.monotonic())
        callers.wait_steady()
        responses, lost = callers.since(began), callers.lost()
    failed = [one for one in responses if one.failed]
    twice = [one for one in failed if one.retry_status != 200]
    return Outcome(
        f"{busy} busy and {idle} idle sessions ended under {len(responses)} requests: "
        f"{_summary(responses)}, {len(twice)} failed after one retry; {lost} acked PATCHes lost",
        recovery_s,
        busy >= KILLS and not twice and not lost,
    )


def _end_session(conn: psycopg.Connection[Any], role: str, *, busy: bool) -> int:
    row = conn.execute(END_SESSION, {"role": role, "busy": busy}).fetchone()
    return int(row[0]) if row else 0


def postmaster_killed(env: FaultEnvironment) -> Outcome:
    """Kill -9 the postmaster."""
    with Callers(env.stack) as callers:
        callers.wait_steady()
        killed_at = env.kill("postgres")
        recovery_s = env.wait_healthy(since=killed_at)
        callers.wait_steady()
        responses, lost = callers.since(killed_at), callers.lost()
    return Outcome(
        f"{_summary(responses)}; {lost} acked PATCHes lost",
        recovery_s,
        _only_unavailable(responses) and not lost,
    )


def half_open(env: FaultEnvironment) -> Outcome:
    """Drop every packet between services and PostgreSQL; then half-open the old connections."""
    with (
        env.proxied(SERVICES, "postgres") as network,
        Callers(env.stack) as callers,
        superuser(env) as conn,
    ):
        callers.wait_steady()
        old = {row[0] for row in conn.execute(SESSIONS, [list(SERVICES)])}
        cut_off_at = time.monotonic()
        network.black_hole()
        time.sleep(AWAY_S)
        healed_at = time.monotonic()
        network.heal()
        recovery_s = env.wait_healthy(since=healed_at)
        callers.wait_steady()
        responses = callers.since(cut_off_at)
        slowest_s = max(one.took_s for one in responses)
        replaced = old.isdisjoint(row[0] for row in conn.execute(SESSIONS, [list(SERVICES)]))
        # then a network that has lost the old connections and accepts new ones
        half_open_at = time.monotonic()
        network.half_open()
        half_open_recovery_s = env.wait_healthy(since=half_open_at)
        callers.wait_steady()
        later = callers.since(half_open_at)
        slowest_later_s = max(one.took_s for one in later)
        lost = callers.lost()
    return Outcome(
        f"{_summary(responses)}, the slowest after {slowest_s:.1f} s; every session "
        f"{'new' if replaced else 'NOT new'}; with half-open old connections: "
        f"{_summary(later)}, the slowest after {slowest_later_s:.1f} s, "
        f"healthy after {half_open_recovery_s:.1f} s; {lost} acked PATCHes lost",
        recovery_s,
        max(slowest_s, slowest_later_s) <= FAIL_WITHIN_S
        and replaced
        and _only_unavailable([*responses, *later])
        and not lost,
    )


def pool_exhausted(env: FaultEnvironment) -> Outcome:
    """Lock a table, so that both pools run out of connections."""
    with Callers(env.stack) as callers, superuser(env) as conn:
        callers.wait_steady()
        with conn.transaction():
            conn.execute(TAKE_ALL)
            began = time.monotonic()
            conn.execute("SELECT pg_sleep(%s)", [FULL_FOR_S])
        freed_at = time.monotonic()
        recovery_s = env.wait_healthy(since=freed_at)
        callers.wait_steady()
        responses = callers.since(began, freed_at - FULL_WITHIN_S)
        everything, lost = callers.since(began), callers.lost()
    failed = [one for one in responses if one.failed]
    refused_s = [one.took_s for one in failed if REFUSED.search(one.detail)]
    slowest_s = max(one.took_s for one in failed)
    return Outcome(
        f"{_summary(responses)}: {len(refused_s)} refused for want of a connection, after "
        f"{max(refused_s):.2f} s; the others had one and waited for the lock, {slowest_s:.2f} s at "
        f"most; {lost} acked PATCHes lost",
        recovery_s,
        len(refused_s) > len(failed) / 2
        and max(refused_s) <= FULL_WITHIN_S
        and slowest_s <= FAIL_WITHIN_S
        and _only_unavailable(everything)
        and not lost,
    )


def row_locked(env: FaultEnvironment) -> Outcome:
    """Lock one driver's row for 30 s."""
    locked = CALLERS[0]
    with Callers(env.stack) as callers, superuser(env) as conn:
        callers.wait_steady()
        oldest_fix_age_s: list[float] = []
        with conn.transaction():
            conn.execute(LOCK_DRIVER, [locked])
            began = time.monotonic()
            while time.monotonic() - began < LOCKED_S:
                conn.execute("SELECT 1")  # the server ends idle transactions
                oldest_fix_age_s.append(env.oldest_fix_age_s() or float("inf"))
                time.sleep(0.5)
        freed_at = time.monotonic()
        recovery_s = env.wait_healthy(since=freed_at)
        callers.wait_steady()
        responses, lost = callers.since(began, freed_at), callers.lost()
    others = [one for one in responses if one.driver_id != locked]
    its_own = [one for one in responses if one.driver_id == locked]
    slowest_s = max(one.took_s for one in others)
    return Outcome(
        f"others: {_summary(others)}, the slowest after {slowest_s:.2f} s, the load's oldest fix "
        f"{max(oldest_fix_age_s):.1f} s old; the locked driver: {_summary(its_own)}; "
        f"{lost} acked PATCHes lost",
        recovery_s,
        not any(one.failed for one in others)
        and slowest_s <= NORMAL_S
        and max(oldest_fix_age_s) <= NORMAL_S
        and _only_unavailable(its_own)
        and not lost,
    )


def _only_unavailable(responses: Sequence[Response]) -> bool:
    """Say whether every failure was a 503 with Retry-After."""
    return all(one.status == 503 and one.retry_after for one in responses if one.failed)


def _summary(responses: Sequence[Response]) -> str:
    found = ", ".join(
        f"{count} x {status or 'none'}" for status, count in statuses(responses).items()
    )
    silent = sum(one.status == 503 and not one.retry_after for one in responses)
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
