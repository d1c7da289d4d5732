"""The pure middle of tracking_api: what is shown, how old it is, when it arrives."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorstep.geo import M_PER_DEG, distance_m
from doorstep.http.problems import UnusableRequest
from tracking_api.history.features import Jumps, feature_collection, flag_jumps
from tracking_api.orders.cursors import decode_cursor, encode_cursor
from tracking_api.track.presenters import track_members
from tracking_api.track.straight_eta import (
    ASSUMED_SPEED_MPS,
    DETOUR_FACTOR,
    estimate_arrival,
    observed_speed_mps,
)
from tracking_api.track.visibility import Position, TrackedOrder, age_s, freshness_of

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
RESTAURANT = (11.25, 43.77)
CUSTOMER = (11.26, 43.78)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def make_spot(seconds: float = 0, north_m: float = 0, **members: float) -> Position:
    return Position(at(seconds), at(seconds + 1), 11.25, 43.77 + north_m / M_PER_DEG, **members)


def make_order(state: str = "picked_up", **members: object) -> TrackedOrder:
    values: dict[str, object] = {
        "now": NOON,
        "order_id": uuid4(),
        "state": state,
        "assignment_no": 1,
        "order_seq": 5,
        "restaurant_name": "Da Mario",
        "restaurant": RESTAURANT,
        "destination": CUSTOMER,
        "dwell_min_s": 30.0,
        "position": make_spot(),
        "assigned_at": at(-600),
    }
    return TrackedOrder(**(values | members))  # type: ignore[arg-type]


# The position


def test_track__a_position_that_may_be_shown__is_in_the_answer():
    assert track_members(make_order())["position"]["properties"]["freshness"] == "live"


def test_track__none_that_may_be_shown__has_neither_position_nor_eta():
    members = track_members(make_order(position=None))
    assert (members["position"], members["eta"]) == (None, None)


# Age and freshness


@pytest.mark.parametrize(
    ("age", "word"),
    [(0, "live"), (15, "live"), (15.1, "recent"), (60, "recent"), (61, "stale"), (301, "lost")],
)
def test_freshness__by_age(age, word):
    assert freshness_of(age) == word


def test_age__phone_clock_ahead__is_zero():
    assert age_s(at(30), NOON) == 0


# The ETA


def test_eta__nothing_observed__assumes_a_speed_and_its_basis_states_it():
    eta = estimate_arrival(make_order())
    assert eta is not None
    way_m = distance_m((11.25, 43.77), CUSTOMER) * DETOUR_FACTOR
    assert eta.distance_m == round(way_m)
    assert eta.seconds == pytest.approx(way_m / ASSUMED_SPEED_MPS, abs=1)
    assert "assumed" in eta.basis
    assert "no routing" in eta.basis


def test_eta__a_moving_courier__uses_the_speed_observed():
    trail = [make_spot(-60 + n * 4, north_m=n * 32) for n in range(15)]  # 8 m/s
    eta = estimate_arrival(make_order(trail=trail, position=make_spot(0, north_m=480)))
    assert eta is not None
    assert eta.speed_mps == pytest.approx(8, rel=0.02)
    assert "observed" in eta.basis


def test_eta__before_pick_up__includes_the_restaurant_and_its_handover():
    before, after = estimate_arrival(make_order("assigned")), estimate_arrival(make_order())
    assert before is not None
    assert after is not None
    assert before.seconds == pytest.approx(after.seconds + 240, abs=2)
    assert "240 s at the restaurant" in before.basis


def test_eta__old_position__counts_from_its_fix():
    fresh = estimate_arrival(make_order())
    old = estimate_arrival(make_order(position=make_spot(-100)))
    assert fresh is not None
    assert old is not None
    assert old.seconds == pytest.approx(fresh.seconds - 100, abs=1)


def test_eta__position_lost__is_none():
    assert estimate_arrival(make_order(position=make_spot(-301))) is None


def test_eta__overdue__is_now_and_never_past():
    newest = Position(at(-200), at(-199), CUSTOMER[0], CUSTOMER[1])
    eta = estimate_arrival(make_order(position=newest))
    assert eta is not None
    assert (eta.seconds, eta.arrives_at) == (0, NOON)


@pytest.mark.parametrize("state", ["confirmed", "at_customer", "delivered", "cancelled"])
def test_eta__no_driver_under_way__is_none(state):
    assert estimate_arrival(make_order(state)) is None


def test_observed_speed__noise_at_rest__is_no_movement():
    jitter = [make_spot(n * 4, north_m=(-1) ** n * 8) for n in range(60)]
    assert observed_speed_mps(jitter, at(240)) is None


def test_observed_speed__a_stop_on_the_way__does_not_slow_the_movement():
    out = [make_spot(n * 4, north_m=n * 20) for n in range(20)]
    stop = [make_spot(80 + n * 4, north_m=380) for n in range(25)]
    on = [make_spot(180 + n * 4, north_m=380 + n * 20) for n in range(20)]
    assert observed_speed_mps([*out, *stop, *on], at(260)) == pytest.approx(5, rel=0.1)


def test_observed_speed__a_jump__is_not_speed():
    there_and_back = [make_spot(0), make_spot(4, north_m=5000), make_spot(8)]
    assert observed_speed_mps(there_and_back, at(8)) is None


# History


def test_flag_jumps__one_stray_fix__is_flagged_alone():
    trail = [make_spot(0), make_spot(4, 30), make_spot(8, 9000), make_spot(12, 60)]
    assert flag_jumps(trail) == [False, False, True, False]


def test_flag_jumps__two_jumps_that_agree__continue_the_line():
    trail = [make_spot(0), make_spot(4, 9000), make_spot(8, 9030), make_spot(12, 9060)]
    assert flag_jumps(trail) == [False, True, False, False]


def test_flag_jumps__one_stray_fix_stored_twice__is_flagged_twice():
    trail = [make_spot(0), make_spot(4, 9000), make_spot(4, 9000), make_spot(8, 30)]
    assert flag_jumps(trail) == [False, True, True, False]


def test_flag_jumps__exactly_70_mps__is_no_jump():
    assert flag_jumps([make_spot(0), make_spot(10, 699.9)]) == [False, False]


@given(
    st.lists(
        st.tuples(st.integers(0, 30), st.sampled_from([0, 5, 300, 2000, 2005, 9000])), max_size=25
    )
)
def test_flag_jumps__any_trail__equals_jumps_one_by_one(steps):
    seconds, trail = 0, []
    for after_s, north_m in steps:
        seconds += after_s
        trail.append(make_spot(seconds, north_m))
    jumps = Jumps()
    assert flag_jumps(trail) == [jumps.is_jump(one) for one in trail]


def test_feature_collection__a_jump__is_a_point_outside_the_line():
    trail = [make_spot(0), make_spot(4, 30), make_spot(8, 9000), make_spot(12, 60)]
    line, *points = feature_collection(trail)["features"]
    assert line["geometry"]["type"] == "LineString"
    assert len(line["geometry"]["coordinates"]) == 3
    assert [point["properties"]["jump"] for point in points] == [False, False, True, False]
    assert points[0]["geometry"] == {"type": "Point", "coordinates": (11.25, 43.77)}
    assert points[0]["properties"]["fix_at"] == "2026-01-01T12:00:00.000Z"


@pytest.mark.parametrize("count", [0, 1])
def test_feature_collection__too_few_for_a_line__has_none(count):
    features = feature_collection([make_spot()] * count)["features"]
    assert [feature["geometry"]["type"] for feature in features] == ["Point"] * count


def test_distance__known_pair__agrees_with_postgis():
    # SELECT ST_DistanceSphere('POINT(11.25 43.77)', 'POINT(11.26 43.78)') -> 1371.5243
    assert distance_m((11.25, 43.77), (11.26, 43.78)) == pytest.approx(1371.5243, abs=0.001)


# Cursors


@given(st.datetimes(timezones=st.just(UTC)), st.uuids())
def test_cursor__round_trip__is_exact_to_the_microsecond(created_at, order_id):
    assert decode_cursor(encode_cursor(created_at, order_id)) == (created_at, order_id)


@given(st.text(max_size=200))
def test_cursor__any_text__is_decoded_or_refused(text):
    with suppress(UnusableRequest):
        created_at, order_id = decode_cursor(text)
        assert created_at.tzinfo is not None
        assert isinstance(order_id, UUID)


@pytest.mark.parametrize("text", ["", "x", "bnVsbA", "W10", "WzEsMl0", "é", "W1siYSJdLCAiYiJd"])
def test_cursor__foreign_text__is_refused(text):
    with pytest.raises(UnusableRequest) as refused:
        decode_cursor(text)
    assert refused.value.reason == "bad_cursor"
