"""What customers see of an order, and what is kept of it, on a real database."""

from __future__ import annotations

import asyncio
import base64
import json
from uuid import uuid4

import pytest

from tests.integration.http_services import (
    CUSTOMER,
    RESTAURANT,
    SHOWN_AFTER_S,
    STAFF,
    as_customer,
    as_driver,
    command,
    create_order,
    north_of,
    on_duty_at,
    report,
    track,
)


async def test_track__before_the_assignment__shows_no_position(driver_api, tracking_api):
    await on_duty_at(driver_api, "d1", RESTAURANT)
    order = await create_order(tracking_api, "confirm")
    seen = await track(tracking_api, order)
    assert (seen["state"], seen["position"], seen["eta"]) == ("confirmed", None, None)
    assert [event["state"] for event in seen["events"]] == ["created", "confirmed"]


async def test_track__the_fix_before_the_assignment__stays_hidden_until_a_new_one(
    driver_api, tracking_api
):
    await on_duty_at(driver_api, "d1", north_of(RESTAURANT, 300))
    order = await create_order(tracking_api, "confirm", "assign")
    assert (await track(tracking_api, order))["position"] is None
    await asyncio.sleep(SHOWN_AFTER_S)
    await report(driver_api, "d1", north_of(RESTAURANT, 200), accuracy_m=6)
    seen = await track(tracking_api, order)
    assert seen["position"]["geometry"]["coordinates"] == list(north_of(RESTAURANT, 200))
    assert seen["position"]["properties"]["freshness"] == "live"
    assert 0 <= seen["position"]["properties"]["age_s"] < 15
    assert seen["eta"]["seconds"] > 0
    assert "assumed" in seen["eta"]["basis"]
    assert seen["restaurant"] == {
        "name": "Da Mario",
        "lon_deg": RESTAURANT[0],
        "lat_deg": RESTAURANT[1],
    }
    assert seen["destination"] == {"lon_deg": CUSTOMER[0], "lat_deg": CUSTOMER[1]}


async def test_track__after_delivery__shows_no_position_and_no_history(driver_api, tracking_api):
    await on_duty_at(driver_api, "d1", RESTAURANT)
    order = await create_order(tracking_api, "confirm", "assign")
    await asyncio.sleep(SHOWN_AFTER_S)
    await report(driver_api, "d1", RESTAURANT)
    address = f"/track/{order['order_id']}/history"
    history = (await tracking_api.get(address, headers=as_customer(order))).json()
    assert len(history["features"]) == 1
    for name in ("picked-up", "delivered"):
        await driver_api.post(
            f"/drivers/d1/orders/{order['order_id']}/{name}", headers=as_driver("d1")
        )
    await report(driver_api, "d1", CUSTOMER)
    seen = await track(tracking_api, order)
    assert (seen["state"], seen["position"], seen["eta"]) == ("delivered", None, None)
    history = (await tracking_api.get(address, headers=as_customer(order))).json()
    assert history["features"] == []
    # staff sees the way of the assignment, and nothing after it
    history = (await tracking_api.get(address, headers=STAFF)).json()
    assert [feature["geometry"]["coordinates"] for feature in history["features"]] == [
        list(RESTAURANT)
    ]


async def test_track__reassigned__shows_the_new_driver_instead_of_the_previous_one(
    driver_api, tracking_api
):
    await on_duty_at(driver_api, "d1", RESTAURANT)
    await on_duty_at(driver_api, "d2", north_of(RESTAURANT, 700))
    order = await create_order(tracking_api, "confirm", "assign")
    await asyncio.sleep(SHOWN_AFTER_S)
    await report(driver_api, "d1", north_of(RESTAURANT, 50))
    assert (await track(tracking_api, order))["position"] is not None
    answer = await command(tracking_api, order, "reassign", driver_id="d2")
    assert (answer.json()["driver_id"], answer.json()["assignment_no"]) == ("d2", 2)
    await report(driver_api, "d1", north_of(RESTAURANT, 60))
    assert (await track(tracking_api, order))["position"] is None
    await asyncio.sleep(SHOWN_AFTER_S)
    await report(driver_api, "d2", north_of(RESTAURANT, 650))
    seen = await track(tracking_api, order)
    assert seen["position"]["geometry"]["coordinates"] == list(north_of(RESTAURANT, 650))
    address = f"/track/{order['order_id']}/history"
    history = (await tracking_api.get(address, headers=as_customer(order))).json()
    assert len(history["features"]) == 1


async def test_track__next_order_of_the_driver__shows_nothing_of_the_previous_one(
    driver_api, tracking_api
):
    await on_duty_at(driver_api, "d1", RESTAURANT)
    first = await create_order(tracking_api, "confirm", "assign")
    await report(driver_api, "d1", RESTAURANT)
    for name in ("picked-up", "delivered"):
        await driver_api.post(
            f"/drivers/d1/orders/{first['order_id']}/{name}", headers=as_driver("d1")
        )
    await report(driver_api, "d1", CUSTOMER)
    second = await create_order(tracking_api, "confirm", "assign")
    assert (await track(tracking_api, second))["position"] is None
    await asyncio.sleep(SHOWN_AFTER_S)
    await report(driver_api, "d1", north_of(CUSTOMER, 10))
    assert (await track(tracking_api, second))["position"] is not None
    assert (await track(tracking_api, first))["position"] is None


async def test_history__a_jump__is_flagged_and_left_out_of_the_line(
    driver_api, tracking_api, database
):
    await on_duty_at(driver_api, "d1", RESTAURANT, ago_s=60)
    order = await create_order(tracking_api, "confirm", "assign")
    database.rows("UPDATE assignment SET assigned_at = assigned_at - interval '50 seconds'")
    for ago_s, metres in ((40, 0), (36, 20), (32, 9000), (28, 40)):
        await report(driver_api, "d1", north_of(RESTAURANT, metres), ago_s)
    address = f"/track/{order['order_id']}/history"
    line, *points = (await tracking_api.get(address, headers=as_customer(order))).json()["features"]
    assert len(line["geometry"]["coordinates"]) == 3
    assert [point["properties"]["jump"] for point in points] == [False, False, True, False]
    part = {"from": points[1]["properties"]["fix_at"], "to": points[3]["properties"]["fix_at"]}
    answer = await tracking_api.get(address, params=part, headers=as_customer(order))
    times = [
        feature["properties"]["fix_at"]
        for feature in answer.json()["features"]
        if feature["geometry"]["type"] == "Point"
    ]
    assert len(times) in (2, 3)  # milliseconds in the answer, microseconds in the database
    assert all(part["from"] <= time < part["to"] for time in times)


@pytest.mark.parametrize(
    "instant",
    [
        "0002-01-01T00:00:00Z",
        "0002-01-01T14:00:00+14:00",
        "9998-12-30T12:00:00-12:00",
        "1970-01-01T00:00:00Z",
    ],
)
async def test_history__greatest_range__is_answered(driver_api, tracking_api, instant):
    await on_duty_at(driver_api, "d1", RESTAURANT)
    order = await create_order(tracking_api, "confirm", "assign")
    for name in ("from", "to"):
        answer = await tracking_api.get(
            f"/track/{order['order_id']}/history", params={name: instant}, headers=STAFF
        )
        assert answer.status_code == 200, answer.text
    cursor = base64.urlsafe_b64encode(json.dumps([instant, str(uuid4())]).encode()).decode()
    answer = await tracking_api.get("/orders", params={"cursor": cursor}, headers=STAFF)
    assert answer.status_code in (200, 422)


@pytest.mark.parametrize(("since_ms", "status"), [(0, 200), (253402300799999, 200), (2**53, 422)])
async def test_positions__least_and_greatest_since__are_answered(tracking_api, since_ms, status):
    answer = await tracking_api.get(f"/drivers/positions?since={since_ms}", headers=STAFF)
    assert answer.status_code == status
