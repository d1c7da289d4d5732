"""What simulated customers order and are promised: the API accepts it. Replaces nothing."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

from doorstep.http.failure_body import NewFailure
from doorstep.http.photo_body import MAX_PHOTO_BYTES
from doorstep.photos import PNG, strip_metadata
from simulators.couriers.details import cancellation, failure, order_details, pin_of, wrong_pin
from simulators.couriers.photo import photo_of_door
from tracking_api.orders.detail_schemas import NewOrder
from tracking_api.orders.schemas import Cancellation

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
DESTINATION = {"lon_deg": 11.25, "lat_deg": 43.77}


def test_order_details__at_any_speed__are_accepted_and_promise_a_time_after_the_kitchen() -> None:
    for seed, pace in enumerate((1.0, 1.0, 10.0, 20.0)):
        details = order_details(random.Random(seed), NOON, 600, pace)
        order = NewOrder(restaurant_id=1, destination=DESTINATION, **details)
        assert order.items
        assert order.ready_at == NOON + timedelta(seconds=600 / pace)
        assert order.promised_from is not None
        assert order.promised_to is not None
        assert order.ready_at < order.promised_from < order.promised_to


def test_reasons__drawn__are_accepted_with_every_next_step() -> None:
    rng = random.Random(1)
    failures = [NewFailure(**failure(rng)) for _ in range(100)]
    assert len({one.reason for one in failures}) > 2
    assert {one.next_step for one in failures} == {"retry", "return", None}
    assert all(one.next_step != "retry" for one in failures if one.reason == "refused")
    assert Cancellation(**cancellation(rng)).reason


def test_photo__of_a_door__is_an_image_within_the_limit_and_each_is_another() -> None:
    photos = [photo_of_door(random.Random(seed)) for seed in range(5)]
    for one in photos:
        assert strip_metadata(one) == (PNG, one)
        assert len(one) < MAX_PHOTO_BYTES
    assert len(set(photos)) > 1


def test_pin__of_a_door__is_the_same_again_and_only_some_have_one() -> None:
    pins = {n: pin_of(11.25 + n / 1000, 43.77) for n in range(400)}
    known = [pin for pin in pins.values() if pin is not None]
    assert 50 < len(known) < 150
    assert pins == {n: pin_of(11.25 + n / 1000, 43.77) for n in range(400)}
    for pin in known:
        wrong = wrong_pin(pin)
        for one in (pin, wrong):
            assert NewOrder(restaurant_id=1, destination=DESTINATION, pin=one).pin == one
        assert wrong != pin
