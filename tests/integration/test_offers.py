"""Offers over real servers: declined, expired, accepted, delivered."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from device.settings import DeviceSettings, FleetSecrets
from driver_events.offers import OfferWorker
from driver_events.recorder import Connection
from ops.stack.stack import Stack
from tests.integration.http_services import (
    CUSTOMER,
    RESTAURANT,
    STAFF,
    as_customer,
    as_driver,
    create_order,
    on_duty_at,
    problem_of,
)

SOON_S = 60
NEXT_DOOR = (RESTAURANT[0] + 0.002, RESTAURANT[1])
DETAILS = {
    "external_id": "shop-1042",
    "customer_name": "Carla Rossi",
    "customer_phone": "+39 055 123456",
    "contact_rule": "call",
    "address": "Via dei Servi 12",
    "door_note": "Second floor.",
    "promised_to": "2026-11-29T19:45:00Z",
}


@pytest.fixture
async def driver_api(driver_api: httpx.AsyncClient) -> httpx.AsyncClient:
    await on_duty_at(driver_api, "d1", RESTAURANT)
    await on_duty_at(driver_api, "d2", NEXT_DOOR)
    return driver_api


async def add_policy(tracking_api: httpx.AsyncClient, headers: Any, **values: Any) -> int:
    answer = await tracking_api.post("/policies", json={"name": "x", **values}, headers=headers)
    assert answer.status_code == 201, answer.text
    policy_id: int = answer.json()["policy_id"]
    return policy_id


async def own(driver_api: httpx.AsyncClient, driver_id: str) -> dict[str, Any]:
    answer = await driver_api.get(f"/drivers/{driver_id}", headers=as_driver(driver_id))
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


async def test_order__declined_then_accepted_by_the_next__is_delivered(
    driver_api, tracking_api, database
):
    policy_id = await add_policy(tracking_api, STAFF, auto_offer=True)
    order = await create_order(tracking_api, "confirm", policy_id=policy_id, **DETAILS)
    order_id = order["order_id"]
    connection = Connection(database.url("driver_events"), "test")
    assert OfferWorker(connection).advance() is False
    connection.discard()

    [offer] = (await own(driver_api, "d1"))["offers"]
    assert set(offer["restaurant"]) == {"name", "lon_deg", "lat_deg"}
    assert (offer["order_id"], offer["pickup_distance_m"]) == (order_id, 0)
    track = (await tracking_api.get(f"/track/{order_id}", headers=as_customer(order))).json()
    assert (track["state"], track["position"]) == ("confirmed", None)

    path = "/drivers/{0}/offers/" + order_id
    answer = await driver_api.post(path.format("d2") + "/accept", headers=as_driver("d2"))
    problem_of(answer, 404, "unknown-order")
    answer = await driver_api.post(path.format("d1") + "/decline", headers=as_driver("d1"))
    assert (answer.status_code, answer.json()["outcome"]) == (200, "declined")
    answer = await driver_api.post(path.format("d1") + "/accept", headers=as_driver("d1"))
    assert problem_of(answer, 409, "offer-closed")["detail"] == "you have declined this offer"

    headers = as_driver("d2") | {"Idempotency-Key": "k"}
    for _ in range(2):
        answer = await driver_api.post(path.format("d2") + "/accept", headers=headers)
        assert (answer.status_code, answer.json()["state"]) == (200, "assigned")
    mine = await own(driver_api, "d2")
    assert mine["offers"] == []
    assert mine["order"]["customer"] == {
        "name": "Carla Rossi",
        "phone": "+39 055 123456",
        "contact_rule": "call",
        "address": "Via dei Servi 12",
        "note": "Second floor.",
    }
    assert mine["order"]["promised_to"] == "2026-11-29T19:45:00.000Z"
    for command in ("picked-up", "delivered"):
        address = f"/drivers/d2/orders/{order_id}/{command}"
        assert (await driver_api.post(address, headers=as_driver("d2"))).status_code == 200
    assert (await own(driver_api, "d2"))["order"] is None

    found = (await tracking_api.get(f"/orders/{order_id}/offers", headers=STAFF)).json()["offers"]
    assert [(one["driver_id"], one["outcome"]) for one in found] == [
        ("d1", "declined"),
        ("d2", "accepted"),
    ]
    ended = (await tracking_api.get(f"/orders/{order_id}", headers=STAFF)).json()
    assert ended["driver_id"] is None
    [attempt] = ended["assignments"]
    assert (attempt["driver_id"], attempt["ended_by"]) == ("d2", "deliver")
    assert attempt["ended_at"] == ended["ended_at"]
    found = (await tracking_api.get("/orders?q=rossi servi", headers=STAFF)).json()["orders"]
    assert [(one["order_id"], one["external_id"]) for one in found] == [(order_id, "shop-1042")]


async def test_offer__by_staff_twice__is_409_and_declined_by_all_is_unassigned(
    driver_api, tracking_api
):
    order = await create_order(tracking_api, "confirm")
    path = f"/orders/{order['order_id']}/offers"
    answer = await tracking_api.post(path, json={"driver_id": "d2"}, headers=STAFF)
    assert (answer.status_code, answer.json()["driver_id"]) == (201, "d2")
    again = problem_of(await tracking_api.post(path, headers=STAFF), 409, "offer-open")
    assert again["detail"].startswith("this order is offered to d2, until 20")
    await driver_api.post(
        f"/drivers/d2/offers/{order['order_id']}/decline", headers=as_driver("d2")
    )
    [waiting] = (await tracking_api.get("/orders/unassigned", headers=STAFF)).json()["orders"]
    assert (waiting["order_id"], waiting["offered_count"]) == (order["order_id"], 1)
    answer = await tracking_api.post(path, headers=STAFF)
    assert answer.json()["driver_id"] == "d1"


async def test_pickup__at_any_place__and_a_failure_with_its_reason__are_in_the_order(
    driver_api, tracking_api
):
    place = {"name": "Bookshop", "lon_deg": RESTAURANT[0], "lat_deg": RESTAURANT[1]}
    order = await create_order(
        tracking_api, "confirm", "assign", restaurant_id=None, pickup=place, pin="1234"
    )
    address = f"/drivers/d1/orders/{order['order_id']}"
    await driver_api.post(f"{address}/picked-up", headers=as_driver("d1"))
    failure = {"reason": "customer_absent", "note": "Rang twice."}
    answer = await driver_api.post(f"{address}/failed", json=failure, headers=as_driver("d1"))
    assert (answer.status_code, answer.json()["state"]) == (200, "failed")
    found = (await tracking_api.get(f"/orders/{order['order_id']}", headers=STAFF)).json()
    assert found["failure"] == failure
    assert found["pickup"] == {**place, "address": None, "phone": None}
    assert (found["has_pin"], "pin" in found) == (True, False)
    listed = (await tracking_api.get("/restaurants", headers=STAFF)).json()
    assert "Bookshop" not in str(listed)


async def test_offer__that_expires__goes_to_the_next_by_the_running_service(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.add_drivers(["near", "farther"])
    for name, value in stack.client_environment().items():
        monkeypatch.setenv(name, value)
    settings = DeviceSettings.load()
    secrets = FleetSecrets(settings)
    staff = {"Authorization": f"Bearer {secrets.staff_token()}"}
    here = {"lat_deg": 44.5, "lon_deg": 9.0}  # far from the couriers of other tests
    async with (
        httpx.AsyncClient(base_url=settings.tracking_api_url, headers=staff) as tracking_api,
        httpx.AsyncClient(base_url=settings.driver_api_url) as driver_api,
    ):
        bearer = {
            driver_id: {"Authorization": f"Bearer {secrets.driver_token(driver_id)}"}
            for driver_id in ("near", "farther")
        }
        for n, driver_id in enumerate(bearer):
            path = f"/drivers/{driver_id}"
            await driver_api.post(f"{path}/on-duty", headers=bearer[driver_id])
            fix = {
                **here,
                "lat_deg": here["lat_deg"] + n * 0.001,
                "fix_at": datetime.now(UTC).isoformat(),
            }
            answer = await driver_api.patch(f"{path}/location", json=fix, headers=bearer[driver_id])
            assert answer.json()["outcome"] == "committed"
        policy_id = await add_policy(tracking_api, staff, auto_offer=True, offer_s=5)
        new = {
            "pickup": {"name": "Here", **here},
            "destination": {"lon_deg": CUSTOMER[0], "lat_deg": CUSTOMER[1]},
            "policy_id": policy_id,
        }
        order_id = (await tracking_api.post("/orders", json=new)).json()["order_id"]
        await tracking_api.post(f"/orders/{order_id}/confirm")

        async def outcomes() -> list[tuple[str, str | None]]:
            found = (await tracking_api.get(f"/orders/{order_id}/offers")).json()["offers"]
            return [(one["driver_id"], one["outcome"]) for one in found]

        async def is_unassigned() -> bool:
            found = (await tracking_api.get("/orders/unassigned")).json()["orders"]
            return order_id in [one["order_id"] for one in found]

        for _ in range(SOON_S):
            if await is_unassigned():
                break
            await asyncio.sleep(1)
        assert await outcomes() == [("near", "expired"), ("farther", "expired")]
        answer = await tracking_api.post(f"/orders/{order_id}/offers", json={"driver_id": "near"})
        assert answer.status_code == 201
        answer = await driver_api.post(
            f"/drivers/near/offers/{order_id}/accept", headers=bearer["near"]
        )
        assert (answer.status_code, answer.json()["state"]) == (200, "assigned")
        assert (await outcomes())[-1] == ("near", "accepted")
        assert not await is_unassigned()
        await tracking_api.post(f"/orders/{order_id}/cancel")
        for driver_id in bearer:
            await driver_api.post(f"/drivers/{driver_id}/off-duty", headers=bearer[driver_id])


async def test_offer__key_with_another_body__is_422(tracking_api, driver_api):
    order = await create_order(tracking_api, "confirm")
    path, headers = f"/orders/{order['order_id']}/offers", {**STAFF, "Idempotency-Key": "k"}

    async def offer(**body: Any) -> httpx.Response:
        return await tracking_api.post(path, json=body, headers=headers)

    first = await offer()
    assert first.status_code == 201, first.text
    assert (await offer()).json() == first.json()
    named = await offer(driver_id=first.json()["driver_id"])
    problem_of(named, 422, "idempotency-conflict")
    problem_of(await offer(stop_no=1), 422, "unusable-request")
