"""What fixes prove: the rules, and that the order of arrival never matters."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from uuid import UUID

import pytest

from doorstep.store.records import IncomingRow
from tests.factories import AWAY, CUSTOMER, RESTAURANT, Place, make_fix, make_walk, now, numbered
from tests.sql.fleet import Fleet

WHOLE_WAY = ((AWAY, 20), (RESTAURANT, 60), (AWAY, 60), (CUSTOMER, 60))


def start(fleet: Fleet, driver_id: str = "d1", minutes: float = 10) -> tuple[UUID, datetime]:
    """Assign an order as if some minutes ago."""
    start_at = now() - timedelta(minutes=minutes)
    order_id = fleet.assigned_order(driver_id)
    fleet.backdate_assignment(order_id, start_at)
    return order_id, start_at


def pair(
    start_at: datetime, apart_s: float, first: Place, second: Place, **values: object
) -> list[IncomingRow]:
    rows = [
        make_fix(seq=1, place=first, fix_at=start_at + timedelta(seconds=5), **values),  # type: ignore[arg-type]
        make_fix(seq=2, place=second, fix_at=start_at + timedelta(seconds=5 + apart_s), **values),  # type: ignore[arg-type]
    ]
    return numbered(rows)


@pytest.mark.parametrize(
    ("apart_s", "first_m", "second_m", "is_proved"),
    [
        (30, 0, 0, True),
        (120, 0, 0, True),
        (29.9, 0, 0, False),  # too short a stay
        (120.1, 0, 0, False),  # two visits
        (60, 59.5, 59.5, True),
        (60, 60.5, 60.5, False),  # outside the enter radius
        (60, 59.5, 60.5, False),  # one of them outside
        (60, 0, 24.9, True),
        (60, 0, 25.1, False),  # moved on
        (60, -12, 12.9, True),
    ],
)
def test_at_restaurant__two_fixes__prove_it_inside_the_limits_only(
    fleet: Fleet, apart_s: float, first_m: float, second_m: float, is_proved: bool
) -> None:
    order_id, start_at = start(fleet)
    first, second = RESTAURANT.north(first_m), RESTAURANT.north(second_m)
    fleet.record(pair(start_at, apart_s, first, second))
    found = fleet.evidence(order_id)
    if is_proved:
        assert found == {(1, "at_restaurant"): start_at + timedelta(seconds=5)}
        assert fleet.state(order_id) == "at_restaurant"
    else:
        assert found == {}
        assert fleet.state(order_id) == "assigned"


def test_at_restaurant__driving_past_at_20_km_h__proves_nothing(fleet: Fleet) -> None:
    order_id, start_at = start(fleet)
    rows = [
        make_fix(
            seq=k + 1,
            place=RESTAURANT.north(-500 + 20 / 3.6 * k),
            fix_at=start_at + timedelta(seconds=k),
        )
        for k in range(180)
    ]
    fleet.record(numbered(rows))
    assert fleet.evidence(order_id) == {}


@pytest.mark.parametrize(
    ("first_mps", "second_mps", "is_proved"),
    [
        (None, None, True),  # a phone that knows no speed
        (3.0, 3.0, True),
        (None, 3.0, True),
        (0.0, 3.1, False),
        (3.1, 0.0, False),
        (6.0, 6.0, False),  # round the block, and past the same door again
    ],
)
def test_at_restaurant__passed_twice_at_speed__proves_nothing(
    fleet: Fleet, first_mps: float | None, second_mps: float | None, is_proved: bool
) -> None:
    order_id, start_at = start(fleet)
    for seq, (after_s, speed_mps) in enumerate(((5, first_mps), (45, second_mps)), start=1):
        fix_at = start_at + timedelta(seconds=after_s)
        fleet.record([make_fix(seq=seq, place=RESTAURANT, fix_at=fix_at, speed_mps=speed_mps)])
    assert bool(fleet.evidence(order_id)) == is_proved


def test_at_restaurant__one_stray_fix__proves_nothing(fleet: Fleet) -> None:
    order_id, start_at = start(fleet)
    fleet.record(make_walk(start_at, (AWAY, 60), (RESTAURANT, 4), (AWAY, 60)))
    assert fleet.evidence(order_id) == {}


@pytest.mark.parametrize(
    "values",
    [
        {"accuracy_m": 201.0},
        {"lon_deg": 0.0, "lat_deg": 0.0},
        {"lon_deg": RESTAURANT.lat_deg, "lat_deg": RESTAURANT.lon_deg},
    ],
)
def test_at_restaurant__quarantined_fixes__prove_nothing(
    fleet: Fleet, values: dict[str, object]
) -> None:
    order_id, start_at = start(fleet)
    assert len(fleet.record(pair(start_at, 60, RESTAURANT, RESTAURANT, **values))) == 2
    assert fleet.evidence(order_id) == {}


def test_at_restaurant__a_policy_of_its_own__decides(fleet: Fleet) -> None:
    made = fleet.run(
        "SELECT create_policy_v1(%s::jsonb) AS policy_id",
        '{"name": "ten times", "dwell_min_s": 3, "dwell_max_s": 12, "leave_min_s": 3,'
        ' "leave_max_s": 12, "arriving_min_s": 0.8, "worst_accuracy_m": 50}',
    )
    order_id = fleet.assigned_order(policy_id=made[0]["policy_id"])
    start_at = now() - timedelta(minutes=1)
    fleet.backdate_assignment(order_id, start_at)
    fleet.record(pair(start_at, 4, RESTAURANT, RESTAURANT, accuracy_m=60.0))
    assert fleet.evidence(order_id) == {}
    fleet.record(make_walk(start_at, (RESTAURANT, 5), boot="b2", every_s=4))
    assert fleet.evidence(order_id) == {}
    fleet.record(make_walk(start_at, (RESTAURANT, 5), boot="b3", every_s=1))
    assert fleet.state(order_id) == "at_restaurant"


def test_picked_up__leaving_without_having_been_there__proves_nothing(fleet: Fleet) -> None:
    order_id, start_at = start(fleet)
    fleet.record(make_walk(start_at, (AWAY, 300)))
    assert fleet.evidence(order_id) == {}


@pytest.mark.parametrize(("metres", "is_proved"), [(251, True), (249, False)])
def test_picked_up__away_from_the_restaurant__is_proved_beyond_the_leave_radius(
    fleet: Fleet, metres: float, is_proved: bool
) -> None:
    order_id, start_at = start(fleet)
    fleet.record(make_walk(start_at, (RESTAURANT, 40), (RESTAURANT.north(-metres), 40)))
    assert ((1, "picked_up") in fleet.evidence(order_id)) == is_proved


def test_arriving__needs_the_pick_up__then_counts_from_it(fleet: Fleet) -> None:
    order_id, start_at = start(fleet, minutes=5)
    near = CUSTOMER.north(-400)
    fleet.record(make_walk(start_at, (near, 60)))
    assert fleet.evidence(order_id) == {}
    fleet.command_order(order_id, "pick_up")
    assert fleet.evidence(order_id) == {}  # all before the command
    fleet.backdate_pick_up(order_id, now() - timedelta(seconds=30))
    at = now() - timedelta(seconds=29)
    fleet.record([make_fix(seq=100, place=near, fix_at=at)])
    fleet.record([make_fix(seq=101, place=near, fix_at=at + timedelta(seconds=7))])
    assert fleet.evidence(order_id) == {}
    fleet.record([make_fix(seq=102, place=near, fix_at=at + timedelta(seconds=8))])
    assert fleet.evidence(order_id) == {(1, "arriving"): at}
    assert fleet.state(order_id) == "arriving"
    assert fleet.driver()["state"] == "to_customer"


def test_assign__fixes_already_there__prove_at_once(fleet: Fleet) -> None:
    order_id: UUID = fleet.create_order()["order_id"]
    fleet.command_order(order_id, "confirm")
    ahead = now() + timedelta(seconds=5)  # dated a little ahead, arrived before the command
    fleet.record(pair(ahead, 40, RESTAURANT, RESTAURANT))
    assert fleet.command_order(order_id, "assign", driver_id="d1")["state"] == "at_restaurant"
    assert (1, "at_restaurant") in fleet.evidence(order_id)


def test_evidence__fixes_before_the_assignment_or_after_its_end__do_not_count(
    fleet: Fleet,
) -> None:
    order_id = fleet.assigned_order()
    assigned_at = now() - timedelta(minutes=2)
    fleet.backdate_assignment(order_id, assigned_at)
    fleet.record(pair(assigned_at - timedelta(seconds=45), 60, RESTAURANT, RESTAURANT))
    assert fleet.evidence(order_id) == {}
    fleet.command_order(order_id, "decline", actor="driver", actor_id="d1")
    fleet.record(make_walk(now(), (RESTAURANT, 60), first_seq=10))
    assert fleet.evidence(order_id) == {}


def test_evidence__another_drivers_fixes__do_not_count(fleet: Fleet) -> None:
    order_id, start_at = start(fleet)
    fleet.record(make_walk(start_at, (RESTAURANT, 60), driver_id="d2"))
    assert fleet.evidence(order_id) == {}


def test_closing__fixes_dated_past_the_end__count_in_neither_order_of_arrival(
    fleet: Fleet,
) -> None:
    found = []
    for driver_id, is_early in (("d1", True), ("d2", False)):
        order_id = fleet.assigned_order(driver_id)
        start_at = now() - timedelta(seconds=20)
        fleet.backdate_assignment(order_id, start_at)
        rows = make_walk(start_at, (RESTAURANT, 60), driver_id=driver_id)
        if is_early:
            fleet.record(rows)
            assert fleet.state(order_id) == "at_restaurant"
        fleet.command_order(order_id, "cancel")
        if not is_early:
            fleet.record(rows)
        assert fleet.state(order_id) == "cancelled"
        found.append(fleet.evidence(order_id))
    assert found == [{}, {}]


def test_late_fix__after_the_delivery__adds_evidence_and_changes_no_state(fleet: Fleet) -> None:
    order_id, start_at = start(fleet)
    fleet.command_order(order_id, "pick_up")
    fleet.command_order(order_id, "deliver")
    events = fleet.events(order_id)
    fleet.record(make_walk(start_at, *WHOLE_WAY))
    assert set(fleet.evidence(order_id)) == {
        (1, "at_restaurant"),
        (1, "picked_up"),
        (1, "arriving"),
        (1, "at_customer"),
    }
    assert fleet.state(order_id) == "delivered"
    assert fleet.events(order_id) == events


def test_late_fix__an_earlier_pair__moves_occurred_at_earlier_without_an_event(
    fleet: Fleet,
) -> None:
    order_id, start_at = start(fleet)
    fleet.record(make_walk(start_at + timedelta(seconds=60), (RESTAURANT, 60), first_seq=100))
    events = fleet.events(order_id)
    fleet.record([make_fix(seq=1, place=RESTAURANT, fix_at=start_at + timedelta(seconds=10))])
    assert fleet.evidence(order_id) == {(1, "at_restaurant"): start_at + timedelta(seconds=10)}
    assert fleet.events(order_id) == events


def test_late_fix__at_restaurant_after_the_pick_up_command__never_rewinds(fleet: Fleet) -> None:
    order_id, start_at = start(fleet)
    fleet.command_order(order_id, "pick_up", actor="driver", actor_id="d1")
    fleet.record(make_walk(start_at, (RESTAURANT, 60)))
    assert (1, "at_restaurant") in fleet.evidence(order_id)
    assert fleet.state(order_id) == "picked_up"
    assert [event[2] for event in fleet.events(order_id)][-1] == "picked_up"


def noisy_walk(seed: int, start_at: datetime, driver_id: str) -> list[IncomingRow]:
    """Make a whole delivery with noise, strays, gaps and repeated visits."""
    rng = random.Random(seed)
    legs = [(AWAY, 20), (RESTAURANT, rng.uniform(20, 90)), (AWAY, rng.uniform(0, 60))]
    legs += [(RESTAURANT, rng.uniform(0, 60)), (AWAY, 50), (CUSTOMER, rng.uniform(10, 80))]
    rows: list[IncomingRow] = []
    for row in make_walk(start_at, *legs, driver_id=driver_id):
        if rng.random() < 0.15:
            continue  # never taken: a gap
        metres = rng.gauss(0, 8) if rng.random() < 0.95 else rng.uniform(-400, 400)
        moved = Place(row[6] or 0.0, row[7] or 0.0).north(metres)
        rows.append((*row[:6], *moved, rng.choice([5.0, 30.0, 250.0]), *row[9:]))
    return numbered(rows)


def everything(
    fleet: Fleet, order_id: UUID, driver_id: str, start_at: datetime
) -> dict[str, object]:
    """Collect what the promise is about, with instants relative to the start."""
    history = [
        (row[0] - start_at, *row[1:])
        for row in fleet.history("fix_at", "boot", "seq", "lon_deg", "lat_deg", "quarantine",
                                 "driver_id")
        if row[6] == driver_id
    ]  # fmt: skip
    driver = fleet.driver(driver_id)
    return {
        "history": [row[:6] for row in history],
        "evidence": {key: at - start_at for key, at in fleet.evidence(order_id).items()},
        "state": fleet.state(order_id),
        "driver": (driver["state"], driver["boot"], driver["seq"], driver["lat_deg"]),
        "ranges": fleet.run(
            "SELECT boot, stored::text, rejected::text FROM driver_boot WHERE driver_id = %s",
            driver_id,
        ),
        "events": fleet.events(order_id),
    }


def occurrences(fleet: Fleet, order_id: UUID, start_at: datetime) -> list[object]:
    rows = fleet.run(
        "SELECT state, occurred_at FROM order_event WHERE order_id = %s AND source = 'gps'"
        " ORDER BY order_seq",
        order_id,
    )
    return [(row["state"], row["occurred_at"] - start_at) for row in rows]


@pytest.mark.parametrize("seed", range(8))
def test_record_fixes__a_batch_of_n__equals_n_batches_of_one(fleet: Fleet, seed: int) -> None:
    start_at = now() - timedelta(minutes=10)
    results = []
    for driver_id in ("d1", "d2"):
        order_id = fleet.assigned_order(driver_id)
        fleet.backdate_assignment(order_id, start_at)
        walk = noisy_walk(seed, start_at, driver_id)
        if driver_id == "d1":
            fleet.record(walk)
        else:
            for row in walk:
                fleet.record([row])
        found = everything(fleet, order_id, driver_id, start_at)
        results.append((found, occurrences(fleet, order_id, start_at)))
    assert results[0] == results[1]
    if seed == 0:  # the noise must not make it empty
        assert results[0][0]["evidence"]


@pytest.mark.parametrize("seed", range(12))
def test_record_fixes__shuffled_and_duplicated__ends_the_same(fleet: Fleet, seed: int) -> None:
    start_at = now() - timedelta(minutes=10)
    rng = random.Random(seed + 1000)
    results = []
    for driver_id in ("d1", "d2"):
        order_id = fleet.assigned_order(driver_id)
        fleet.backdate_assignment(order_id, start_at)
        walk = noisy_walk(seed, start_at, driver_id)
        if driver_id == "d1":
            fleet.record(walk)
        else:
            walk = walk * 3
            rng.shuffle(walk)
            while walk:
                size = rng.randint(1, 25)
                fleet.record(numbered(walk[:size]))
                walk = walk[size:]
        found = everything(fleet, order_id, driver_id, start_at)
        del found["events"]  # what was seen depends on when; what is true does not
        results.append(found)
    assert results[0] == results[1]


def test_ground_distance__beside_postgis_sphere__is_within_a_thousandth(fleet: Fleet) -> None:
    worst = fleet.run(
        "SELECT max(abs(ground_distance_m(x, y, px, py) / d - 1)) AS off FROM ("
        "  SELECT px + dx AS x, py + dy AS y, px, py, ST_DistanceSphere("
        "    ST_MakePoint(px + dx, py + dy), ST_MakePoint(px, py)) AS d"
        "  FROM (VALUES (11.25, 43.77), (-0.1, 51.5), (103.8, 1.3), (24.9, 60.2)) p (px, py),"
        "    generate_series(-0.005, 0.005, 0.001) dx, generate_series(-0.005, 0.005, 0.001) dy"
        "  WHERE abs(dx) + abs(dy) > 0.0001) t"
    )[0]["off"]
    assert worst < 0.001
