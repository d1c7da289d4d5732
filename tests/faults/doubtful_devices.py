"""Devices whose fixes mislead: two phones on one driver, one instant, one position repeated."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from ops.servers.waiting import wait_until
from tests.faults.devices import (
    RESTAURANT_ID,
    STORED_WITHIN_S,
    assigned_order,
    command,
    final_state_of,
    instant_ms,
    make_walk,
    processed,
    publish,
)
from tests.faults.environment import FaultEnvironment
from tests.faults.fault import Fault, Outcome

FAR_DEG = 2.7  # of latitude: 300 km
PERIOD = timedelta(seconds=5)
PAIRS = 24  # 2 minutes
COUNT_AT_ONCE = 10
REPEATS = 24  # 2 minutes
BESIDE_DEG = 0.0009  # of latitude: 100 m


def two_phones(env: FaultEnvironment) -> Outcome:
    """Send fixes of two phones of one driver, one at the restaurant and one 300 km away."""
    driver_id = f"double-{time.monotonic_ns()}"
    env.stack.add_drivers([driver_id])
    lon_deg, lat_deg = _restaurant(env)
    began_at = datetime.now(UTC) - PERIOD * 2 * PAIRS
    order_id = assigned_order(env, driver_id, lon_deg + 0.012, lat_deg, assigned_at=began_at)
    fixes = [
        {
            "boot": boot,
            "seq": seq,
            "fix_at": instant_ms(began_at + PERIOD * (2 * seq + late)),
            "lon_deg": lon_deg,
            "lat_deg": lat_deg + away_deg,
        }
        for seq in range(1, PAIRS)
        for boot, late, away_deg in (("near", 0, 0.0), ("far", 1, FAR_DEG))
    ]
    publish(env, driver_id, fixes)
    everything = set(range(1, PAIRS))
    wait_until(
        lambda: all(processed(env, driver_id, boot) == everything for boot in ("near", "far")),
        STORED_WITHIN_S,
        "all are processed",
    )
    recovery_s = env.wait_healthy()
    with env.database() as conn:
        stored = conn.execute(
            "SELECT count(*) FROM fix_history WHERE driver_id = %s AND quarantine IS NULL",
            [driver_id],
        ).fetchone()
        proved = conn.execute(
            "SELECT array_agg(state::text ORDER BY state) FROM evidence"
            " WHERE order_id = %s AND source = 'gps'",
            [order_id],
        ).fetchone()
    until_at = began_at + PERIOD * 2 * (PAIRS + 1)
    asked = {"from": began_at.isoformat(), "to": until_at.isoformat()}
    history = env.tracking.get(f"/drivers/{driver_id}/history", params=asked).raise_for_status()
    jumps = [one[-1] for one in history.json()["fixes"]]
    command(env.tracking, f"/orders/{order_id}/cancel")
    states = proved[0] if proved and proved[0] else []
    return Outcome(
        f"{stored[0] if stored else '?'} of {len(fixes)} fixes stored, {sum(jumps)} flagged as "
        f"jumps; proved: {', '.join(states)}",
        recovery_s,
        stored == (len(fixes),)
        and sum(jumps) >= len(fixes) // 2 - 1
        and "at_restaurant" in states
        and not {"arriving", "at_customer"} & set(states),
    )


def one_instant(env: FaultEnvironment) -> Outcome:
    """Send ten fixes of one instant and different accuracies to two drivers, shuffled for one."""
    ids = [f"instant-{one}-{time.monotonic_ns()}" for one in ("a", "b")]
    env.stack.add_drivers(ids)
    start = _restaurant(env)
    end = (start[0] + 0.012, start[1] + 0.006)
    began_at = datetime.now(UTC) - timedelta(minutes=20)
    walk = make_walk(start, end, began_at)
    at_once = [
        walk[-1] | {"seq": len(walk) + n, "accuracy_m": 5.0 * n, "lat_deg": end[1] + n * 1e-5}
        for n in range(1, COUNT_AT_ONCE)
    ]
    orders = [assigned_order(env, one, *end, assigned_at=began_at) for one in ids]
    publish(env, ids[0], [*walk, *at_once])
    shuffled: list[dict[str, Any]] = [*walk, *at_once]
    random.Random(43).shuffle(shuffled)
    publish(env, ids[1], shuffled)
    everything = set(range(1, len(shuffled) + 1))
    wait_until(
        lambda: all(processed(env, one, "b") == everything for one in ids),
        STORED_WITHIN_S,
        "all are processed",
    )
    recovery_s = env.wait_healthy()
    with env.database() as conn:
        ends = [final_state_of(conn, one, order) for one, order in zip(ids, orders, strict=True)]
    for order_id in orders:
        command(env.tracking, f"/orders/{order_id}/cancel")
    same = ends[0] == ends[1]
    return Outcome(
        f"{COUNT_AT_ONCE} fixes of one instant, in order and shuffled: "
        f"{'the same' if same else 'A DIFFERENT'} final state, {ends[1]['state']}, and position",
        recovery_s,
        same and ends[0]["state"] == "at_customer",
    )


def repeated_position(env: FaultEnvironment) -> Outcome:
    """Repeat one position with fresh instants for two minutes, as phone apps do that lost GPS.

    At the restaurant and at the door with the old speed; beside both, without a speed, with the
    wide accuracy of a phone that guesses. A repeat inside the radius and without a speed cannot be
    told from a phone that stands.
    """
    start = _restaurant(env)
    end = (start[0] + 0.012, start[1] + 0.006)
    moving, moving_presence = _repeat(env, [start, end], {"speed_mps": 9.0}, end)
    beside = [(lon_deg, lat_deg + BESIDE_DEG) for lon_deg, lat_deg in (start, end)]
    standing, standing_presence = _repeat(env, beside, {"speed_mps": 0.0, "accuracy_m": 150.0}, end)
    recovery_s = env.wait_healthy()
    stays = {"at_restaurant", "at_customer"}
    return Outcome(
        f"{REPEATS} repeats at each of two places; at 9 m/s: proved {_listed(moving)}, presence "
        f"{moving_presence}; standing 100 m beside: proved {_listed(standing)}, presence "
        f"{standing_presence}",
        recovery_s,
        not (moving | standing) & stays
        and moving_presence == "online"
        and standing_presence == "stationary",
    )


def _repeat(
    env: FaultEnvironment,
    places: list[tuple[float, float]],
    fields: dict[str, float],
    door: tuple[float, float],
) -> tuple[set[str], str]:
    """Repeat each place; return the states that GPS proved, and the presence at the end."""
    driver_id = f"repeater-{time.monotonic_ns()}"
    env.stack.add_drivers([driver_id])
    began_at = datetime.now(UTC) - PERIOD * len(places) * REPEATS
    order_id = assigned_order(env, driver_id, *door, assigned_at=began_at)
    fixes = [
        {
            "boot": "b",
            "seq": seq,
            "fix_at": instant_ms(began_at + PERIOD * seq),
            "lon_deg": lon_deg,
            "lat_deg": lat_deg,
            **fields,
        }
        for seq, (lon_deg, lat_deg) in enumerate(
            [place for place in places for _ in range(REPEATS)][:-1], 1
        )
    ]
    publish(env, driver_id, fixes)
    wait_until(
        lambda: len(processed(env, driver_id, "b")) == len(fixes),
        STORED_WITHIN_S,
        "all are processed",
    )
    with env.database() as conn:
        proved = conn.execute(
            "SELECT array_agg(state::text) FROM evidence WHERE order_id = %s AND source = 'gps'",
            [order_id],
        ).fetchone()
    driver = env.tracking.get(f"/drivers/{driver_id}").raise_for_status().json()
    command(env.tracking, f"/orders/{order_id}/cancel")
    return set(proved[0] or []) if proved else set(), driver["presence"]


def _listed(states: set[str]) -> str:
    return ", ".join(sorted(states)) or "nothing"


def _restaurant(env: FaultEnvironment) -> tuple[float, float]:
    with env.database() as conn:
        row = conn.execute(
            "SELECT lon_deg, lat_deg FROM restaurant WHERE restaurant_id = %s", [RESTAURANT_ID]
        ).fetchone()
    assert row is not None
    return row[0], row[1]


FAULTS = (
    Fault(
        41,
        "two phones of one driver, 300 km apart",
        "every fix stored and flagged as a jump, no arrival at the customer",
        None,
        quick=True,
        run=two_phones,
    ),
    Fault(
        42,
        "the last position repeated with fresh instants",
        "no stay is proved; stationary only if the phone says so",
        None,
        quick=True,
        run=repeated_position,
    ),
    Fault(
        43,
        "ten fixes of one instant, different accuracies, shuffled",
        "the same final state",
        None,
        quick=True,
        run=one_instant,
    ),
)
