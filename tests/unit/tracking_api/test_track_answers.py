"""Kept answers of GET /track beside answers that are built anew, by road in Florence."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from data import BUNDLED_CITY
from data.cities import bundled_city
from eta.estimate import Estimator
from eta.features import City
from eta.model import EtaModel
from eta.streets import load_streets
from eta.travel_time_cache import TravelTimeCache
from tracking_api.track import track_answers
from tracking_api.track.presenters import encode_json, track_etag, track_members
from tracking_api.track.road_eta import RoadEta
from tracking_api.track.track_answers import KEPT_BYTES, EncodedTrack, TrackAnswers
from tracking_api.track.visibility import (
    NO_NOTICES,
    Event,
    Notice,
    Notices,
    OtherDelivery,
    Position,
    TrackedOrder,
)

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
PLACES = [(11.2500, 43.7720), (11.2558, 43.7696), (11.2610, 43.7780), (11.2480, 43.7790)]
ORDERS = [UUID(int=n) for n in range(1, 4)]
STATES = ["assigned", "at_restaurant", "picked_up", "arriving", "at_customer", "delivered"]


@pytest.fixture(scope="module")
def city() -> City:
    return City(load_streets(bundled_city()))


@pytest.fixture
def arrivals(city: City) -> RoadEta:
    times = TravelTimeCache(city, EtaModel(), max_runs_per_s=1_000_000)
    return RoadEta({BUNDLED_CITY: Estimator(times)})


@pytest.fixture
def answers(arrivals: RoadEta) -> TrackAnswers:
    return TrackAnswers(arrivals, arrivals.arrival)


def make_order(**members: object) -> TrackedOrder:
    order = TrackedOrder(
        now=START,
        order_id=ORDERS[0],
        state="picked_up",
        assignment_no=1,
        order_seq=5,
        restaurant_name="Da Mario",
        restaurant=PLACES[1],
        destination=PLACES[2],
        dwell_min_s=30.0,
        position=Position(START, START, *PLACES[0], 5.0, 4.2, 90.0),
        assigned_at=START - timedelta(minutes=10),
        driver_id="anna",
        city=BUNDLED_CITY,
        events=[Event(5, "picked_up", "gps", START - timedelta(minutes=1), 1)],
        pin="1234",
    )
    return replace(order, **members)  # type: ignore[arg-type]


def built(order: TrackedOrder, arrivals: RoadEta) -> EncodedTrack:
    members = track_members(order, arrivals)
    return EncodedTrack(encode_json(members), track_etag(members))


def readings(rng: random.Random) -> Iterator[TrackedOrder]:
    """Read three orders in turn while they move, change, are late, and are shared or not."""
    orders = [make_order(order_id=order_id) for order_id in ORDERS]
    now = START
    while True:
        k = rng.randrange(len(orders))
        now += timedelta(seconds=rng.choice([0.001, 0.4, 1.3, 7, 46, 241, 800]) * rng.random())
        order = replace(orders[k], now=now, is_shared=rng.random() < 0.3)
        if rng.random() < 0.4:
            order = replace(order, **change(rng, order))
        orders[k] = order
        yield order


def change(rng: random.Random, order: TrackedOrder) -> dict[str, object]:
    """Change one thing of an order."""
    at = order.now - timedelta(seconds=rng.choice([-0.3, 0.2, 3, 14, 61, 299]))
    position = Position(at, at, *rng.choice(PLACES), rng.choice([None, 5.0]), 4.2, 90.0)
    event = Event(order.order_seq + 1, rng.choice(STATES), "gps", at, 1)
    late = Notices([Notice(9, "late", at), Notice(10, "nearby", at)], at)
    changes: list[dict[str, object]] = [
        {"position": position},
        {"position": position},
        {"position": None},
        {"state": event.state, "order_seq": event.order_seq, "events": [*order.events, event]},
        {"restaurant_name": rng.choice(["Da Mario", 'Da "Luigi"\0'])},
        {"restaurant": rng.choice(PLACES)},
        {"notices": rng.choice([late, NO_NOTICES, NO_NOTICES])},
        {"pin": rng.choice([None, "1234", "9999"])},
        {"city": rng.choice([None, BUNDLED_CITY, BUNDLED_CITY])},
        {"other_delivery": rng.choice([OtherDelivery(at, at), None])},
        {"pace": rng.choice([1.0, 60.0])},
    ]
    return rng.choice(changes)


@pytest.mark.parametrize("seed", range(20))
def test_answer__random_orders_and_clocks__is_as_built_anew(
    arrivals: RoadEta, answers: TrackAnswers, seed: int
) -> None:
    reading = readings(random.Random(seed))
    for _ in range(200):
        order = next(reading)
        answer = answers.encode(order)
        assert answer == built(order, arrivals)


def test_answer__while_the_clock_alone_changes__is_built_once(
    arrivals: RoadEta, answers: TrackAnswers, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = answers.encode(make_order())
    later = make_order(now=START + timedelta(seconds=9.5))
    expected = built(later, arrivals)
    monkeypatch.setattr(track_answers, "track_members", None)
    answer = answers.encode(later)
    assert answer == expected
    assert (answer.etag, answer.body == first.body) == (first.etag, False)


def test_answer__a_shared_link__never_gets_what_its_customer_gets(answers: TrackAnswers) -> None:
    own = answers.encode(make_order())
    shared = answers.encode(make_order(is_shared=True))
    assert own == answers.encode(make_order())
    assert shared == answers.encode(make_order(is_shared=True))
    for secret in (b"1234", b"Da Mario", b"LineString"):
        assert secret in own.body
        assert secret not in shared.body


def test_answer__position_hidden_since__is_not_shown_again(answers: TrackAnswers) -> None:
    assert b'"coordinates":[11.25,43.772]' in answers.encode(make_order()).body
    assert b"11.25," not in answers.encode(make_order(position=None)).body


def test_answer__another_model__is_built_anew(
    arrivals: RoadEta, answers: TrackAnswers, city: City
) -> None:
    before = answers.encode(make_order())
    faster = Estimator(TravelTimeCache(city, EtaModel(arrival_s=0.0, learned_at=START, rides=7)))
    arrivals._estimators[BUNDLED_CITY] = faster
    arrivals._estimates.clear()
    assert b"learned from 7 rides" in answers.encode(make_order()).body
    assert b"learned from 7 rides" not in before.body


def test_answers__more_than_fit__are_bounded_by_their_bytes(arrivals: RoadEta) -> None:
    one = TrackAnswers(arrivals, arrivals.arrival)
    one.encode(make_order())
    size = one._bytes
    assert size > KEPT_BYTES
    few = TrackAnswers(arrivals, arrivals.arrival, max_bytes=3 * size + 10)
    for n in range(20):
        few.encode(make_order(order_id=UUID(int=n)))
    assert [key.int for key, _ in few._kept] == [17, 18, 19]
    assert few._bytes == 3 * size
