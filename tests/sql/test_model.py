"""Evidence against a brute-force model in Python, over random walks, commands and arrivals."""

from __future__ import annotations

import math
import random
from datetime import datetime, timedelta
from uuid import UUID

import pytest

from doorstep.store.records import IncomingRow
from tests.factories import AWAY, CUSTOMER, RESTAURANT, Place, make_fix, now, numbered
from tests.sql.fleet import Fleet

SPHERE_M = 6_371_008.7714


def metres(a: Place, b: Place) -> float:
    """Great-circle distance (haversine), on purpose not the formula that SQL uses."""
    lat_a, lat_b = math.radians(a.lat_deg), math.radians(b.lat_deg)
    half = math.sin((lat_b - lat_a) / 2) ** 2
    half += (
        math.cos(lat_a) * math.cos(lat_b) * math.sin(math.radians(b.lon_deg - a.lon_deg) / 2) ** 2
    )
    return 2 * SPHERE_M * math.asin(math.sqrt(half))


Fix = tuple[datetime, Place]


def first_pair(
    fixes: list[Fix],
    since: datetime | None,
    apart_s: tuple[float, float],
    spread_m: float = math.inf,
) -> datetime | None:
    """Find the earliest a of all pairs, by looking at all of them."""
    if since is None:
        return None
    return min(
        (
            a_at
            for a_at, a in fixes
            for b_at, b in fixes
            if a_at >= since
            and apart_s[0] <= (b_at - a_at).total_seconds() <= apart_s[1]
            and metres(a, b) <= spread_m
        ),
        default=None,
    )


def facts_of(
    fixes: list[Fix], window: tuple[datetime, datetime], picked_up_at: datetime | None
) -> dict[str, datetime]:
    """Say what fixes prove of one assignment, by policy 1."""
    inside = [(at, place) for at, place in fixes if window[0] <= at < window[1]]
    near = [fix for fix in inside if metres(fix[1], RESTAURANT) <= 60]
    far = [fix for fix in inside if metres(fix[1], RESTAURANT) > 250]
    arriving = [fix for fix in inside if metres(fix[1], CUSTOMER) <= 500]
    there = [fix for fix in inside if metres(fix[1], CUSTOMER) <= 60]
    found: dict[str, datetime | None] = {}
    found["at_restaurant"] = first_pair(near, window[0], (30, 120), 25)
    found["picked_up"] = first_pair(far, found["at_restaurant"], (30, 120))
    starts = [at for at in (picked_up_at, found["picked_up"]) if at is not None]
    since = min(starts, default=None)
    found["arriving"] = first_pair(arriving, since, (8, math.inf))
    found["at_customer"] = first_pair(there, since, (30, 120), 25)
    return {state: at for state, at in found.items() if at is not None}


def random_fixes(rng: random.Random, start_at: datetime, seconds: int) -> list[IncomingRow]:
    """Make a driver who wanders between the places, with gaps, jitter and bad fixes."""
    rows: list[IncomingRow] = []
    place, until_s, at_s = AWAY, 0.0, 0.0
    while at_s < seconds:
        if at_s >= until_s:
            place = rng.choice([AWAY, RESTAURANT, RESTAURANT, CUSTOMER, CUSTOMER])
            until_s = at_s + rng.uniform(5, 120)
        jitter_m = rng.gauss(0, 7) if rng.random() < 0.9 else rng.uniform(-300, 300)
        rows.append(
            make_fix(
                seq=len(rows) + 1,
                place=place.north(jitter_m),
                fix_at=start_at + timedelta(seconds=round(at_s, 3)),
                accuracy_m=250.0 if rng.random() < 0.1 else 5.0,
            )
        )
        at_s += rng.choice([1.0, 4.0, 4.0, 4.0, 9.5, 33.0])
    return rows


@pytest.mark.parametrize("seed", range(15))
def test_evidence__random_walks_commands_and_arrivals__equals_the_model(
    fleet: Fleet, seed: int
) -> None:
    rng = random.Random(seed)
    start_at = now() - timedelta(minutes=12)
    rows = random_fixes(rng, start_at, 700)
    good = [
        (row[4], Place(row[6], row[7]))
        for row in rows
        if row[4] is not None and row[6] is not None and row[7] is not None and row[8] == 5.0
    ]
    rng.shuffle(rows)
    cut = rng.randint(0, len(rows))
    order_id: UUID = fleet.assigned_order("d1")
    assigned_at = start_at + timedelta(seconds=rng.uniform(0, 200))
    fleet.backdate_assignment(order_id, assigned_at)

    for row in rows[:cut]:
        fleet.record([row])
    picked_up_at = None
    if rng.random() < 0.7:
        fleet.command_order(order_id, "pick_up")
        # the command's instant is turned back like the assignment's
        picked_up_at = assigned_at + timedelta(seconds=rng.uniform(0, 300))
        fleet.run(
            "UPDATE order_command SET commanded_at = %s WHERE command = 'pick_up'", picked_up_at
        )
        fleet.run("SELECT evidence__derive(ARRAY[%s]::uuid[], ARRAY[1], false)", order_id)
        fleet.run("SELECT orders__apply_evidence(ARRAY[%s]::uuid[])", order_id)
    for row in rows[cut:]:
        fleet.record(numbered([row, rng.choice(rows[:cut] or rows)]))

    ended_at = now() + timedelta(hours=1)
    facts = facts_of(good, (assigned_at, ended_at), picked_up_at)
    expected = {(1, state): at for state, at in facts.items()}
    assert fleet.evidence(order_id) == expected
    ranks = ["assigned", "at_restaurant", "picked_up", "arriving", "at_customer"]
    states = {*facts, "assigned"} | ({"picked_up"} if picked_up_at else set())
    assert fleet.state(order_id) == max(states, key=ranks.index)

    fleet.command_order(order_id, "cancel")
    closed_at = start_at + timedelta(seconds=rng.uniform(200, 700))
    if closed_at > assigned_at:
        fleet.run("UPDATE assignment SET ended_at = %s", closed_at)
        fleet.run("SELECT evidence__derive(ARRAY[%s]::uuid[], ARRAY[1], true)", order_id)
        facts = facts_of(good, (assigned_at, closed_at), picked_up_at)
        assert fleet.evidence(order_id) == {(1, state): at for state, at in facts.items()}
