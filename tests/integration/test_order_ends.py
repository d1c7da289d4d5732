"""How orders end, over HTTP on a real database: PIN, photo, note, retry, way back, reasons."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.integration.http_services import (
    RESTAURANT,
    STAFF,
    as_customer,
    as_driver,
    command,
    create_order,
    on_duty_at,
    problem_of,
    track,
)

JPEG = b"\xff\xd8\xff\xda\x00\x04ab pixels\xff\xd9"
JPEG_WITH_PLACE = JPEG[:2] + b"\xff\xe1\x00\x0eExif\x00\x00place!" + JPEG[2:]
CSV = {**STAFF, "Content-Type": "text/csv"}


async def on_board(
    driver_api: httpx.AsyncClient, tracking_api: httpx.AsyncClient, **members: Any
) -> dict[str, Any]:
    """An order that d1 has picked up."""
    await on_duty_at(driver_api, "d1", RESTAURANT)
    order = await create_order(tracking_api, "confirm", **members)
    await command(tracking_api, order, "assign", driver_id="d1")
    answer = await command(tracking_api, order, "pick_up")
    assert answer.json()["state"] == "picked_up"
    return order


async def drive(
    driver_api: httpx.AsyncClient, order: dict[str, Any], path: str, **body: Any
) -> httpx.Response:
    """A command of d1."""
    return await driver_api.post(
        f"/drivers/d1/orders/{order['order_id']}/{path}", json=body or None, headers=as_driver("d1")
    )


async def send_photo(
    driver_api: httpx.AsyncClient, order: dict[str, Any], content: bytes, kind: str = "image/jpeg"
) -> httpx.Response:
    return await driver_api.post(
        f"/drivers/d1/orders/{order['order_id']}/photo",
        content=content,
        headers={**as_driver("d1"), "Content-Type": kind},
    )


async def whole(tracking_api: httpx.AsyncClient, order_id: str) -> dict[str, Any]:
    found: dict[str, Any] = (await tracking_api.get(f"/orders/{order_id}", headers=STAFF)).json()
    return found


async def test_order_with_a_pin__customer_reads_it_and_the_courier_needs_it(
    driver_api, tracking_api
):
    order = await on_board(driver_api, tracking_api, pin="auto")
    pin = (await track(tracking_api, order))["pin"]
    assert (len(pin), pin.isdigit()) == (4, True)
    staffs = (await tracking_api.get(f"/track/{order['order_id']}", headers=STAFF)).json()
    assert staffs["pin"] is None
    mine = (await driver_api.get("/drivers/d1", headers=as_driver("d1"))).json()
    assert mine["order"]["has_pin"] is True
    assert pin not in str(mine)
    refused = problem_of(await drive(driver_api, order, "delivered"), 409, "wrong-pin")
    assert (refused["reason"], refused["tries_left"]) == ("missing", 5)
    wrong = f"{(int(pin) + 1) % 10_000:04}"
    for left in (4, 3, 2, 1, 0):
        answer = await drive(driver_api, order, "delivered", pin=wrong)
        assert problem_of(answer, 409, "wrong-pin")["tries_left"] == left
    answer = await drive(driver_api, order, "delivered", pin=pin)
    problem_of(answer, 429, "pin-locked")
    assert 0 < int(answer.headers["Retry-After"]) <= 600
    answer = await command(tracking_api, order, "deliver", note="The customer phoned.")
    assert answer.json()["state"] == "delivered"
    delivery = (await whole(tracking_api, order["order_id"]))["delivery"]
    assert delivery == {"by": "staff", "note": "The customer phoned.", "pin": False}
    assert (await track(tracking_api, order))["pin"] is None


async def test_photo__without_its_metadata__is_seen_by_staff_and_this_customer_only(
    driver_api, tracking_api
):
    order = await on_board(driver_api, tracking_api, pin="4711")
    other = await create_order(tracking_api)
    path, staffs = f"/track/{order['order_id']}/photo", f"/orders/{order['order_id']}/photo"
    problem_of(await tracking_api.get(path, headers=as_customer(order)), 404, "no-photo")
    answer = await send_photo(driver_api, order, JPEG_WITH_PLACE)
    assert (answer.status_code, answer.json()["bytes"]) == (200, len(JPEG))
    assert (await drive(driver_api, order, "delivered", pin="4711")).status_code == 200
    for address, headers in ((path, as_customer(order)), (path, STAFF), (staffs, STAFF)):
        answer = await tracking_api.get(address, headers=headers)
        assert (answer.status_code, answer.content) == (200, JPEG), address
        assert answer.headers["content-type"] == "image/jpeg"
        assert "no-store" in answer.headers["cache-control"]
    problem_of(await tracking_api.get(path, headers=as_customer(other)), 404, "bad-link")
    problem_of(await tracking_api.get(staffs, headers=as_customer(order)), 403, "forbidden")
    assert (await track(tracking_api, order))["photo"] is True


@pytest.mark.parametrize(
    ("content", "kind", "status", "slug"),
    [
        (b"GIF89a", "image/jpeg", 422, "unusable-photo"),
        (JPEG, "image/svg+xml", 415, "unsupported-body"),
        (JPEG[:-2] + bytes(512 * 1024), "image/jpeg", 413, "body-too-large"),
    ],
)
async def test_photo__no_image_or_too_large__is_refused(
    driver_api, tracking_api, content, kind, status, slug
):
    order = await on_board(driver_api, tracking_api)
    problem_of(await send_photo(driver_api, order, content, kind), status, slug)


async def test_failed__with_retry__is_a_new_order_with_a_link_of_its_own(driver_api, tracking_api):
    order = await on_board(driver_api, tracking_api, pin="4711", customer_name="Carla")
    body = {"reason": "customer_absent", "next_step": "retry"}
    headers = STAFF | {"Idempotency-Key": "k"}
    path = f"/orders/{order['order_id']}/fail"
    first, again = [
        (await tracking_api.post(path, json=body, headers=headers)).json() for _ in range(2)
    ]
    retry = first["retry"]
    assert again["retry"] == {**retry, "customer_token": None, "customer_link": None}
    now = await track(tracking_api, retry)
    assert (now["state"], now["pin"]) == ("confirmed", "4711")
    answer = await tracking_api.get(f"/track/{retry['order_id']}", headers=as_customer(order))
    problem_of(answer, 404, "bad-link")
    found = await whole(tracking_api, retry["order_id"])
    assert (found["retry_of"], found["customer_name"]) == (order["order_id"], "Carla")
    assert (await whole(tracking_api, order["order_id"]))["retry_order_id"] == retry["order_id"]
    assert (await track(tracking_api, order))["ended_reason"] == "customer_absent"
    other = {**body, "next_step": "return"}
    answer = await tracking_api.post(path, json=other, headers=headers)
    problem_of(answer, 422, "idempotency-conflict")


async def test_failed__with_return__is_on_the_way_back_until_the_courier_ends_it(
    driver_api, tracking_api
):
    order = await on_board(driver_api, tracking_api)
    await drive(driver_api, order, "failed", reason="refused", next_step="return")
    mine = (await driver_api.get("/drivers/d1", headers=as_driver("d1"))).json()
    assert mine["order"] is None
    assert [one["order_id"] for one in mine["returns"]] == [order["order_id"]]
    [leg] = (await tracking_api.get("/returns", headers=STAFF)).json()["returns"]
    assert (leg["order_id"], leg["driver_id"]) == (order["order_id"], "d1")
    first, again = [(await drive(driver_api, order, "returned")).json() for _ in range(2)]
    assert first == again
    assert (await tracking_api.get("/returns", headers=STAFF)).json() == {"returns": []}
    found = await whole(tracking_api, order["order_id"])
    assert (found["state"], found["return_leg"]["ended_by"]) == ("failed", "d1")


async def test_cancelled__with_a_reason__the_customer_reads_it(driver_api, tracking_api):
    order = await create_order(tracking_api)
    await command(tracking_api, order, "cancel", reason="The oven is broken.")
    now = await track(tracking_api, order)
    assert (now["state"], now["ended_reason"]) == ("cancelled", "The oven is broken.")
    staffs = (await tracking_api.get(f"/track/{order['order_id']}", headers=STAFF)).json()
    assert staffs["ended_reason"] == "The oven is broken."


async def test_create_order__swapped_coordinates__is_422(tracking_api):
    new = {"restaurant_id": 1, "destination": {"lon_deg": 43.78, "lat_deg": 11.26}}
    answer = await tracking_api.post("/orders", json=new, headers=STAFF)
    document = problem_of(answer, 422, "swapped-coordinates")
    assert document["reason"] == "swapped_coordinates"
    assert "the destination" in document["detail"]
    pickup = {"name": "Kiosk", "lon_deg": 43.77, "lat_deg": 11.25}
    new = {"pickup": pickup, "destination": {"lon_deg": 11.26, "lat_deg": 43.78}}
    answer = await tracking_api.post("/orders", json=new, headers=STAFF)
    assert "the pickup" in problem_of(answer, 422, "swapped-coordinates")["detail"]


async def test_import__twice_and_with_a_bad_line__is_all_or_nothing_and_idempotent(
    tracking_api, database
):
    header = "external_id,restaurant_id,lon_deg,lat_deg,pin\n"
    good = header + "a,1,11.26,43.78,auto\nb,1,11.27,43.78,\n"
    for bad in ("c,99,11.26,43.78,\n", "c,1,43.78,11.26,\n"):
        answer = await tracking_api.post("/orders/import", content=good + bad, headers=CSV)
        [error] = problem_of(answer, 422, "malformed-csv")["errors"]
        assert error["line"] == 4
    assert database.value("SELECT count(*) FROM orders") == 0
    first, again = [
        (await tracking_api.post("/orders/import", content=good, headers=CSV)).json()
        for _ in range(2)
    ]
    assert (first["created"], first["unchanged"]) == (2, 0)
    assert (again["created"], again["unchanged"], again["orders"]) == (0, 2, [])
    [order, _] = first["orders"]
    token = order["customer_link"].partition("#")[2]
    assert len((await track(tracking_api, {**order, "customer_token": token}))["pin"]) == 4
    changed = good.replace("11.27", "11.28")
    answer = await tracking_api.post("/orders/import", content=changed, headers=CSV)
    [error] = problem_of(answer, 422, "malformed-csv")["errors"]
    assert (error["line"], error["reason"]) == (3, "idempotency-conflict")


async def test_drive_session__driver__has_the_name(driver_api):
    answer = await driver_api.get("/drive/session", headers=as_driver("d1"))
    assert answer.json() == {"driver_id": "d1", "name": "Driver 1"}
