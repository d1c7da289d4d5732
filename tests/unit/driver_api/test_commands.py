"""What a driver commands and reads. The seam is `driver_api.queries.Store`."""

from __future__ import annotations

from tests.unit.driver_api.memory_store import ORDER_ID, problem_of


async def test_service_token__commands__are_403(http, store):
    headers = {"Authorization": "Bearer tok-service"}
    problem_of(await http.post("/drivers/d1/on-duty", headers=headers), 403, "forbidden")


async def test_commands__each_route__names_its_command(http, store):
    answer = await http.post("/drivers/d1/on-duty", headers={"Idempotency-Key": "k1"})
    assert (answer.status_code, answer.json()["duty"]) == (200, "on_duty")
    for path in ("decline", "picked-up", "delivered", "failed"):
        answer = await http.post(f"/drivers/d1/orders/{ORDER_ID}/{path}")
        assert answer.status_code == 200
        assert "customer_name" not in answer.json()
    assert store.commands == [
        ("d1", "on_duty", "k1"),
        ("d1", "decline", None),
        ("d1", "pick_up", None),
        ("d1", "deliver", None),
        ("d1", "fail", None),
    ]


async def test_on_break__with_an_order__is_409_with_what_is_allowed(http):
    document = problem_of(await http.post("/drivers/d1/on-break"), 409, "illegal-transition")
    assert (document["current_state"], document["allowed"]) == ("to_customer", ["off_duty"])


async def test_commands__staff_token__is_403(http, store):
    headers = {"Authorization": "Bearer tok-staff"}
    problem_of(await http.post("/drivers/d1/on-duty", headers=headers), 403, "forbidden")
    problem_of(await http.get("/drivers/d1", headers=headers), 403, "forbidden")
    assert store.commands == []


async def test_get_driver__own_token__has_the_restaurant_and_the_destination(http):
    body = (await http.get("/drivers/d1")).json()
    assert (body["duty"], body["state"]) == ("on_duty", "to_restaurant")
    assert body["order"]["restaurant"] == {"lon_deg": 11.25, "lat_deg": 43.77, "name": "Da Mario"}
