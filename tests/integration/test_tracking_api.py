"""tracking_api on a real database, and as a real process: orders, links, and the fleet."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from uuid import uuid4

import httpx
import pytest

from ops.servers.postgres import running_cluster
from ops.stack.addresses import any_free_port
from tests.database import TEMPLATE, Database, create_template
from tests.integration.http_services import (
    RESTAURANT,
    STAFF,
    Relay,
    answers,
    as_customer,
    as_driver,
    command,
    create_order,
    north_of,
    on_duty_at,
    populate,
    problem_of,
    running,
    stop,
    track,
)
from tracking_api.fleet.queries import COMMITTED_WITHIN
from tracking_api.stores import open_stores

# Orders


async def test_create_order__same_idempotency_key__is_one_order_with_one_good_link(
    tracking_api, database
):
    new = {"restaurant_id": 1, "destination": {"lon_deg": 11.26, "lat_deg": 43.78}}
    headers = STAFF | {"Idempotency-Key": "basket-7"}
    first, second = [
        (await tracking_api.post("/orders", json=new, headers=headers)).json() for _ in range(2)
    ]
    assert first["order_id"] == second["order_id"]
    assert database.value("SELECT count(*) FROM orders") == 1
    assert (second["customer_token"], second["customer_link"]) == (None, None)
    assert (await track(tracking_api, first))["state"] == "created"
    assert database.value("SELECT count(*) FROM access_token WHERE role = 'customer'") == 1
    path = f"/orders/{first['order_id']}/link"
    link = (await tracking_api.post(path, headers=STAFF)).json()  # the first answer was lost
    assert (await track(tracking_api, first | link))["state"] == "created"
    other = new | {"customer_name": "Ada"}
    answer = await tracking_api.post("/orders", json=other, headers=headers)
    problem_of(answer, 422, "idempotency-conflict")


async def test_create_order__unknown_restaurant_or_policy__is_404(tracking_api):
    new = {"restaurant_id": 99, "destination": {"lon_deg": 11.26, "lat_deg": 43.78}}
    answer = await tracking_api.post("/orders", json=new, headers=STAFF)
    problem_of(answer, 404, "unknown-restaurant")
    answer = await tracking_api.post(
        "/orders", json=new | {"restaurant_id": 1, "policy_id": 99}, headers=STAFF
    )
    problem_of(answer, 404, "unknown-policy")


async def test_create_order__injection_strings__are_stored_as_text(tracking_api, database):
    name = "Robert'); DROP TABLE orders;-- \\ \" %s {} $1"
    order = await create_order(tracking_api, customer_name=name)
    assert order["customer_name"] == name
    assert database.value("SELECT customer_name FROM orders") == name


async def test_create_policy__values_that_contradict_each_other__is_422(tracking_api):
    body = {"name": "odd", "dwell_min_s": 100, "dwell_max_s": 50}
    answer = await tracking_api.post("/policies", json=body, headers=STAFF)
    assert problem_of(answer, 422, "unusable-request")["reason"] == "out_of_range"


async def test_create_policy__scaled__is_pinned_by_an_order(tracking_api):
    body = {
        "name": "x10",
        "dwell_min_s": 3,
        "dwell_max_s": 12,
        "leave_min_s": 3,
        "leave_max_s": 12,
        "arriving_min_s": 0.8,
    }
    answer = await tracking_api.post("/policies", json=body, headers=STAFF)
    assert answer.status_code == 201, answer.text
    order = await create_order(tracking_api, policy_id=answer.json()["policy_id"])
    assert order["policy_id"] == answer.json()["policy_id"]
    policies = (await tracking_api.get("/policies", headers=STAFF)).json()["policies"]
    assert [policy["dwell_min_s"] for policy in policies] == [30, 3]


async def test_assign__nearest__takes_free_drivers_first_until_none_has_room(
    driver_api, tracking_api
):
    for n, metres in (("d1", 900), ("d2", 100), ("d3", 500)):
        await on_duty_at(driver_api, n, north_of(RESTAURANT, metres))
    chosen = [
        (await create_order(tracking_api, "confirm", "assign"))["driver_id"] for _ in range(9)
    ]
    assert chosen[:3] == ["d2", "d3", "d1"]
    assert Counter(chosen) == {"d1": 3, "d2": 3, "d3": 3}  # max_open_orders
    order = await create_order(tracking_api, "confirm")
    problem_of(await command(tracking_api, order, "assign"), 409, "no-driver-available")


async def test_assign__concurrent__gives_no_driver_more_than_the_limit(
    driver_api, tracking_api, database
):
    for n in ("d1", "d2"):
        await on_duty_at(driver_api, n, RESTAURANT)
    orders = [await create_order(tracking_api, "confirm") for _ in range(10)]
    found = await asyncio.gather(*(command(tracking_api, order, "assign") for order in orders))
    taken = [answer.json()["driver_id"] for answer in found if answer.status_code == 200]
    assert {"d1", "d2"} == set(taken)
    assert max(Counter(taken).values()) <= 3  # max_open_orders
    assert {answer.status_code for answer in found} <= {200, 409}
    assert database.value("SELECT count(*) FROM assignment") == len(taken)


async def test_assign__named_driver_off_duty_busy_or_unknown__is_refused(driver_api, tracking_api):
    await on_duty_at(driver_api, "d1", RESTAURANT)
    order = await create_order(tracking_api, "confirm")
    off_duty = await command(tracking_api, order, "assign", driver_id="d2")
    problem_of(off_duty, 409, "driver-unavailable")
    unknown = await command(tracking_api, order, "assign", driver_id="unknown-driver")
    problem_of(unknown, 404, "unknown-driver")
    answer = await command(tracking_api, order, "assign", driver_id="d1")
    assert (answer.status_code, answer.json()["driver_id"]) == (200, "d1")


async def test_confirm__twice__is_409_with_what_is_allowed(tracking_api):
    order = await create_order(tracking_api, "confirm")
    document = problem_of(await command(tracking_api, order, "confirm"), 409, "illegal-transition")
    assert document["current_state"] == "confirmed"
    assert document["allowed"] == ["assign", "cancel"]


async def test_list_orders__by_state__pages_hold_each_order_once(tracking_api):
    made = [(await create_order(tracking_api))["order_id"] for _ in range(5)]
    confirmed = (await create_order(tracking_api, "confirm"))["order_id"]
    seen: list[str] = []
    address = "/orders?state=created&limit=2"
    while address:
        answer = await tracking_api.get(address, headers=STAFF)
        seen += [order["order_id"] for order in answer.json()["orders"]]
        address = answer.links.get("next", {}).get("url", "")
    assert seen == made[::-1]
    answer = await tracking_api.get("/orders?state=confirmed&state=assigned", headers=STAFF)
    assert [order["order_id"] for order in answer.json()["orders"]] == [confirmed]


async def test_cancel__by_the_customer__succeeds_only_before_pick_up(driver_api, tracking_api):
    await on_duty_at(driver_api, "d1", RESTAURANT)
    order = await create_order(tracking_api, "confirm", "assign")
    other = await create_order(tracking_api)
    address = f"/orders/{order['order_id']}/cancel"
    not_theirs = await tracking_api.post(address, headers=as_customer(other))
    problem_of(not_theirs, 404, "bad-link")
    answer = await tracking_api.post(address, headers=as_customer(order))
    assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")

    order = await create_order(tracking_api, "confirm", "assign")
    await driver_api.post(
        f"/drivers/d1/orders/{order['order_id']}/picked-up", headers=as_driver("d1")
    )
    address = f"/orders/{order['order_id']}/cancel"
    answer = await tracking_api.post(address, headers=as_customer(order))
    assert problem_of(answer, 409, "illegal-transition")["allowed"] == []


# Links


async def test_links__every_bad_one__is_the_same_404(driver_api, tracking_api, database):
    order = await create_order(tracking_api)
    other = await create_order(tracking_api)
    ended = await create_order(tracking_api, "cancel")
    database.rows(
        "UPDATE orders SET ended_at = now() - interval '25 hours' WHERE order_id = %s",
        ended["order_id"],
    )
    revoked = await create_order(tracking_api)
    await tracking_api.delete(f"/orders/{revoked['order_id']}/link", headers=STAFF)
    bad = {
        "unknown order": (uuid4(), as_customer(order)),
        "forged": (order["order_id"], {"Authorization": "Bearer cst_forged"}),
        "another order's": (order["order_id"], as_customer(other)),
        "expired": (ended["order_id"], as_customer(ended)),
        "revoked": (revoked["order_id"], as_customer(revoked)),
        "a driver's": (order["order_id"], as_driver("d1")),
        "none": (order["order_id"], {}),
        "no uuid": ("x' OR 1=1", as_customer(order)),
    }
    found = {
        name: await tracking_api.get(f"/track/{order_id}", headers=headers)
        for name, (order_id, headers) in bad.items()
    }
    for answer in found.values():
        problem_of(answer, 404, "bad-link")
    assert len({answer.content for answer in found.values()}) == 1
    assert len({tuple(answer.headers.items()) for answer in found.values()}) == 1
    assert min(answer.elapsed.total_seconds() for answer in found.values()) >= 0.1


async def test_links__within_24_h_of_the_end__are_valid(tracking_api, database):
    order = await create_order(tracking_api, "cancel")
    database.rows("UPDATE orders SET ended_at = now() - interval '23 hours'")
    assert (await track(tracking_api, order))["state"] == "cancelled"


async def test_links__the_pages_cookie__works_for_its_order_only(tracking_api):
    order, other = [await create_order(tracking_api) for _ in range(2)]
    answer = await tracking_api.post(
        f"/track/{order['order_id']}/session", json={"token": order["customer_token"]}
    )
    assert answer.status_code == 204
    assert (await tracking_api.get(f"/track/{order['order_id']}")).status_code == 200
    assert (await tracking_api.get(f"/track/{other['order_id']}")).status_code == 404


# The fleet


async def test_drivers__positions_nearest_and_one__agree(driver_api, tracking_api):
    await on_duty_at(driver_api, "d1", north_of(RESTAURANT, 1000))
    await on_duty_at(driver_api, "d2", north_of(RESTAURANT, 250))
    body = (await tracking_api.get("/drivers/positions", headers=STAFF)).json()
    rows = [dict(zip(body["columns"], row, strict=True)) for row in body["drivers"]]
    assert {row["driver_id"]: row["state"] for row in rows} == {
        "d1": "available",
        "d2": "available",
    }
    # What arrived just before may have been committed just after, so it comes again.
    overlap_ms = COMMITTED_WITHIN // timedelta(milliseconds=1)
    again = await tracking_api.get(
        "/drivers/positions", params={"since": body["at_ms"]}, headers=STAFF
    )
    assert len(again.json()["drivers"]) == 2
    since = {"since": body["at_ms"] + overlap_ms}
    later = (await tracking_api.get("/drivers/positions", params=since, headers=STAFF)).json()
    assert later["drivers"] == []
    here = {"lon_deg": RESTAURANT[0], "lat_deg": RESTAURANT[1], "limit": 2}
    near = (await tracking_api.get("/drivers/nearest", params=here, headers=STAFF)).json()
    assert [one["driver_id"] for one in near["drivers"]] == ["d2", "d1"]
    assert near["drivers"][0]["distance_m"] == pytest.approx(250, abs=1)
    one = (await tracking_api.get("/drivers/d2", headers=STAFF)).json()
    assert (one["name"], one["duty"], one["order_id"]) == ("Driver 2", "on_duty", None)
    problem_of(
        await tracking_api.get("/drivers/unknown-driver", headers=STAFF), 404, "unknown-driver"
    )


async def test_fleet__read_in_pages_and_by_id__equals_positions(driver_api, tracking_api, database):
    for driver_id in ("d1", "d2"):
        await on_duty_at(driver_api, driver_id, RESTAURANT)
    body = (await tracking_api.get("/drivers/positions", headers=STAFF)).json()
    first, second = sorted(body["drivers"])
    async with open_stores(database.url("tracking_api"), database.url("customer"), 2) as stores:
        at_ms, rows = await stores.fleet.read_fleet_page("", 1)
        assert (rows, abs(at_ms - body["at_ms"]) < 60_000) == ([first], True)
        assert (await stores.fleet.read_fleet_page("d1", 5))[1] == [second]
        assert (await stores.fleet.read_fleet_page("d2", 5))[1] == []
        assert (await stores.fleet.read_fleet_drivers(["d2", "unknown"]))[1] == [second]


async def test_process__database_half_open__answers_503_and_recovers_by_itself(
    postgres_cluster, database
):
    populate(database)
    port = any_free_port()
    async with (
        Relay(postgres_cluster.port) as relay,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
    ):
        direct, relayed = f":{postgres_cluster.port}/", f":{relay.port}/"
        settings = {
            "DATABASE_URL": database.url("tracking_api").replace(direct, relayed),
            "CUSTOMER_DATABASE_URL": database.url("customer").replace(direct, relayed),
            "TRACKING_API_BIND": f"127.0.0.1:{port}",
            "TRACKING_API_INTERNAL_BIND": "127.0.0.1:0",
            "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        }
        with running("tracking_api", **settings) as process:
            assert await answers(client, "/readyz", 200)
            order = await create_order(client)
            await track(client, order)
            relay.swallow()
            for path in ("/orders", f"/track/{order['order_id']}", "/restaurants"):
                answer = await client.get(path, headers=STAFF)
                problem_of(answer, 503, "store-unavailable")
            relay.let_through()
            assert await answers(client, "/readyz", 200)
            assert (await track(client, order))["state"] == "created"
            status, _ = await asyncio.to_thread(stop, process)
    assert status == 0


@pytest.fixture
def own_database() -> Iterator[Database]:
    """A database in a cluster of its own, which is stopped under its clients."""
    with running_cluster() as cluster:
        create_template(cluster)
        database = Database(cluster, TEMPLATE)
        populate(database)
        yield database


async def test_process__database_stopped_and_started__is_503_and_recovers(own_database):
    port = any_free_port()
    settings = {
        "DATABASE_URL": own_database.url("tracking_api"),
        "CUSTOMER_DATABASE_URL": own_database.url("customer"),
        "TRACKING_API_BIND": f"127.0.0.1:{port}",
        "TRACKING_API_INTERNAL_BIND": "127.0.0.1:0",
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
    }
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        with running("tracking_api", **settings) as process:
            assert await answers(client, "/readyz", 200)
            order = await create_order(client)
            await asyncio.to_thread(own_database.cluster.stop)
            for path in ("/orders", f"/track/{order['order_id']}"):
                answer = await client.get(path, headers=STAFF)
                problem_of(answer, 503, "store-unavailable")
                assert "retry-after" in answer.headers
            assert await answers(client, "/readyz", 503)
            assert await answers(client, "/healthz", 200)
            await asyncio.to_thread(own_database.cluster.start)
            assert await answers(client, "/readyz", 200)
            assert (await track(client, order))["state"] == "created"
            status, log = await asyncio.to_thread(stop, process)
    assert status == 0
    assert '"waiting_for_database"' in log
