"""The estimate before a courier can be seen, and what a shared link shows of an order."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from data import BUNDLED_CITY
from tests.unit.tracking_api.test_road_eta import arrivals, city
from tracking_api.live.order_channel import OrderChannel
from tracking_api.track.presenters import encode_track, track_etag, track_members
from tracking_api.track.road_eta import RoadEta
from tracking_api.track.visibility import (
    Event,
    OrderPlan,
    Position,
    TrackedOrder,
    TrackLink,
)

__all__ = ["arrivals", "city"]  # fixtures

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
CREATED = NOW - timedelta(minutes=2)


def make_order(state: str = "created", **members: object) -> TrackedOrder:
    order = TrackedOrder(
        now=NOW,
        order_id=uuid4(),
        state=state,
        assignment_no=0,
        order_seq=1,
        restaurant_name="Da Mario",
        restaurant=(11.2558, 43.7696),
        destination=(11.2610, 43.7780),
        dwell_min_s=30.0,
        position=None,
        events=[Event(1, state, "staff", CREATED)],
        city=BUNDLED_CITY,
        plan=OrderPlan(CREATED, preparation_s=1200),
    )
    return replace(order, **members)  # type: ignore[arg-type]


def under_way(**members: object) -> TrackedOrder:
    position = Position(NOW, NOW, 11.2500, 43.7720)
    return replace(make_order("picked_up", position=position, assigned_at=CREATED), **members)  # type: ignore[arg-type]


def test_early_eta__just_ordered__is_preparation_then_the_ride(arrivals: RoadEta):
    eta = arrivals(make_order())
    assert eta is not None
    assert (eta.route, eta.way, eta.as_of) == ("road", None, CREATED)
    assert eta.arrives_at > CREATED + timedelta(seconds=1200)
    assert NOW < eta.p10_at < eta.arrives_at < eta.p90_at


def test_early_eta__later_with_nothing_new__is_the_same(arrivals: RoadEta):
    order = make_order()
    first = arrivals(order)
    again = arrivals(replace(order, now=NOW + timedelta(seconds=20)))
    assert first is not None
    assert again is not None
    assert (again.arrives_at, again.p90_at) == (first.arrives_at, first.p90_at)
    etags = {track_etag(track_members(one, arrivals)) for one in (order, order)}
    assert len(etags) == 1


def test_early_eta__a_courier_who_does_not_come__moves_it_on(arrivals: RoadEta):
    first = arrivals(make_order())
    late = arrivals(make_order(now=NOW + timedelta(hours=1)))
    assert first is not None
    assert late is not None
    assert late.arrives_at > NOW + timedelta(hours=1)


@pytest.mark.parametrize("member", ["ready_at", "scheduled_for"])
def test_early_eta__a_time_that_was_agreed__is_not_undercut(arrivals: RoadEta, member: str):
    at = NOW + timedelta(hours=2)
    eta = arrivals(make_order(plan=OrderPlan(CREATED, **{member: at})))
    assert eta is not None
    assert eta.arrives_at >= at


def test_early_eta__without_streets__is_along_the_straight_line(arrivals: RoadEta):
    eta = arrivals(make_order(city=None))
    assert eta is not None
    assert eta.route == "straight_line"


@pytest.mark.parametrize("state", ["picked_up", "arriving", "at_customer", "delivered"])
def test_early_eta__position_hidden_after_pick_up__is_none(arrivals: RoadEta, state: str):
    assert arrivals(make_order(state)) is None


def test_early_eta__for_staff__is_none_as_before(arrivals: RoadEta):
    assert arrivals(make_order(plan=None)) is None


def test_route__under_way__is_the_same_bytes_while_it_holds(arrivals: RoadEta):
    order = under_way()
    first, second = arrivals(order), arrivals(order)
    assert first is not None
    assert second is not None
    assert first.way is second.way is not None
    route = json.loads(encode_track(order, arrivals))["route"]
    assert route["type"] == "LineString"
    assert route["coordinates"][0] == pytest.approx([11.2500, 43.7720], abs=0.001)


def test_route__position_hidden__is_null(arrivals: RoadEta):
    order = under_way(position=None)
    assert track_members(order, arrivals)["route"] is None


def test_shared__under_way__shows_no_place_and_no_way(arrivals: RoadEta):
    order = under_way(is_shared=True)
    members = json.loads(encode_track(order, arrivals))
    assert members["position"] is not None
    assert members["eta"] is not None
    assert members["is_shared"] is True
    hidden = ("route", "restaurant", "destination")
    assert [members[name] for name in hidden] == [None, None, None]
    assert "11.261" not in json.dumps(members)


def test_stream__new_estimate__brings_the_way_and_the_next_position_does_not(arrivals: RoadEta):
    def channel(order: TrackedOrder) -> OrderChannel:
        found = OrderChannel(TrackLink(order.order_id, b"x"), arrivals)
        found.tracked = order
        return found

    def frame(of: OrderChannel, after_s: float) -> dict[str, object]:
        at = NOW + timedelta(seconds=after_s)
        sent = of.update_position(Position(at, at, 11.2501 + after_s / 1e5, 43.7720), at)
        assert sent is not None
        line = next(one for one in sent.sse.split(b"\n") if one.startswith(b"data: "))
        found: dict[str, object] = json.loads(line[6:])
        return found

    own, shared = channel(under_way()), channel(under_way(is_shared=True))
    assert frame(own, 1)["route"] is not None
    assert "route" not in frame(own, 2)
    assert frame(own, 20)["route"] is not None
    assert [frame(shared, n).get("route") for n in (1, 2, 20)] == [None, None, None]
