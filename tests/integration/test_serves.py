"""tracking_api as two processes on one database: one for customers, one for staff."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass
from subprocess import Popen
from typing import Any
from uuid import uuid4

import httpx
import pytest

from doorstep.http.assets import NOT_BUILT
from ops.stack.addresses import any_free_port
from tests.database import Database
from tests.integration.http_services import (
    RESTAURANT,
    STAFF,
    answers,
    as_customer,
    create_order,
    on_duty_at,
    open_driver_api,
    populate,
    problem_of,
    running,
    stop,
)

URLS = {"staff": "DATABASE_URL", "customers": "CUSTOMER_DATABASE_URL"}
ROLES = {"staff": "tracking_api", "customers": "customer"}
NEW_ORDER = {"restaurant_id": 1, "destination": {"lon_deg": 11.26, "lat_deg": 43.78}}
PATIENCE_S = 30


def settings(database: Database, side: str, port: int) -> dict[str, str]:
    """The environment of a process of one side, without the other's URL."""
    return {
        "TRACKING_API_SERVES": side,
        URLS[side]: database.url(ROLES[side]),
        "TRACKING_API_BIND": f"127.0.0.1:{port}",
        "TRACKING_API_INTERNAL_BIND": "127.0.0.1:0",
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
    }


@dataclass(frozen=True)
class Sides:
    database: Database
    customers: httpx.AsyncClient
    staff: httpx.AsyncClient
    processes: dict[str, Popen[bytes]]


@pytest.fixture
async def sides(database: Database) -> AsyncIterator[Sides]:
    populate(database)
    ports = {side: any_free_port() for side in URLS}
    with ExitStack() as stack:
        processes = {
            side: stack.enter_context(running("tracking_api", **settings(database, side, port)))
            for side, port in ports.items()
        }
        async with (
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{ports['customers']}") as customers,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{ports['staff']}") as staff,
        ):
            for client in (customers, staff):
                client.timeout = PATIENCE_S
                assert await answers(client, "/readyz", 200)
            yield Sides(database, customers, staff, processes)


def roles_in_use(database: Database) -> set[tuple[str, str]]:
    rows = database.rows(
        "SELECT DISTINCT usename, application_name FROM pg_stat_activity"
        " WHERE datname = current_database() AND usename IN ('tracking_api', 'customer')"
    )
    return {(row["usename"], row["application_name"]) for row in rows}


async def first_frames(client: httpx.AsyncClient, order: dict[str, Any], token: Any) -> str:
    """The stream of an order up to its end."""
    async with client.stream("GET", f"/track/{order['order_id']}/stream", headers=token) as answer:
        assert answer.status_code == 200
        return "".join([line async for line in answer.aiter_lines()])


async def test_customers_process__customers_and_staff__answers_its_own_side_only(
    sides: Sides,
) -> None:
    order, other = await create_order(sides.staff, "confirm"), await create_order(sides.staff)
    path = f"/track/{order['order_id']}"
    for ours in (path, f"{path}/history"):
        answer = await sides.customers.get(ours, headers=as_customer(order))
        assert answer.status_code == 200, answer.text
        for theirs in (STAFF, as_customer(other), {}):
            problem_of(await sides.customers.get(ours, headers=theirs), 404, "bad-link")
    traded = await sides.customers.post(f"{path}/session", json={"token": order["customer_token"]})
    assert traded.status_code == 204
    for method, staffs in (
        ("GET", "/orders"),
        ("POST", "/orders"),
        ("GET", f"/orders/{order['order_id']}"),
        ("POST", f"/orders/{order['order_id']}/confirm"),
        ("POST", f"/orders/{order['order_id']}/link"),
        ("GET", "/drivers/d1"),
        ("GET", "/drivers/positions"),
        ("GET", "/fleet/orders"),
        ("GET", "/fleet/stream"),
        ("GET", "/series"),
        ("GET", "/streams/streams"),
        ("GET", "/staff"),
        ("GET", "/policies"),
    ):
        answer = await sides.customers.request(method, staffs, headers=STAFF, json=NEW_ORDER)
        assert answer.status_code in (404, 405), (method, staffs)
        answer = await sides.staff.request(method, staffs, json=NEW_ORDER)
        assert answer.status_code == 401, (method, staffs)
    cancel = f"/orders/{order['order_id']}/cancel"
    for theirs in (STAFF, as_customer(other)):
        problem_of(await sides.customers.post(cancel, headers=theirs), 404, "bad-link")
    answer = await sides.customers.post(cancel, headers=as_customer(order))
    assert answer.json() == {"order_id": order["order_id"], "state": "cancelled", "order_seq": 3}


async def test_staff_process__customers_and_staff__answers_its_own_side_only(sides: Sides) -> None:
    order = await create_order(sides.staff, "confirm")
    path = f"/track/{order['order_id']}"
    for shared in (path, f"{path}/history"):
        assert (await sides.staff.get(shared, headers=STAFF)).status_code == 200
        for theirs in (as_customer(order), {}):
            problem_of(await sides.staff.get(shared, headers=theirs), 404, "bad-link")
    answer = await sides.staff.post(f"{path}/session", json={"token": order["customer_token"]})
    assert answer.status_code in (404, 405)
    cancel = f"/orders/{order['order_id']}/cancel"
    problem_of(await sides.staff.post(cancel, headers=as_customer(order)), 404, "bad-link")
    answer = await sides.staff.post(cancel, headers=STAFF)
    assert answer.json()["state"] == "cancelled"


async def test_pages__of_the_two_processes__are_their_own(sides: Sides) -> None:
    customers_page, staffs_page = f"/t/{uuid4()}", "/sign-in"
    for client, own, others in (
        (sides.customers, customers_page, staffs_page),
        (sides.staff, staffs_page, customers_page),
    ):
        page = await client.get(own)
        assert page.status_code == 200 or page.json()["detail"] == NOT_BUILT
        assert problem_of(await client.get(others), 404, "not-found")["detail"] != NOT_BUILT


async def test_pools__of_the_two_processes__have_one_role_each(sides: Sides) -> None:
    both = {("tracking_api", "tracking_api"), ("customer", "tracking_api customers")}
    assert roles_in_use(sides.database) == both
    status, _ = await asyncio.to_thread(stop, sides.processes["staff"])
    assert status == 0
    assert roles_in_use(sides.database) == {("customer", "tracking_api customers")}


async def test_streams__of_the_two_processes__follow_and_end_at_their_own(sides: Sides) -> None:
    async with open_driver_api(sides.database) as driver_api:
        await on_duty_at(driver_api, "d1", RESTAURANT)
    order = await create_order(sides.staff, "confirm", "assign")
    for client, theirs in ((sides.customers, STAFF), (sides.staff, as_customer(order))):
        answer = await client.get(f"/track/{order['order_id']}/stream", headers=theirs)
        problem_of(answer, 404, "bad-link")
    following = [
        asyncio.create_task(first_frames(client, order, token))
        for client, token in ((sides.customers, as_customer(order)), (sides.staff, STAFF))
    ]
    await asyncio.sleep(1)
    answer = await sides.staff.post(f"/orders/{order['order_id']}/cancel", headers=STAFF)
    assert answer.status_code == 200
    for told in await asyncio.wait_for(asyncio.gather(*following), PATIENCE_S):
        assert "snapshot" in told
        assert "cancelled" in told
        assert "driver_id" not in told


async def test_stream__of_a_revoked_link_at_the_customers_process__ends(sides: Sides) -> None:
    order = await create_order(sides.staff)
    following = asyncio.create_task(first_frames(sides.customers, order, as_customer(order)))
    await asyncio.sleep(1)
    answer = await sides.staff.delete(f"/orders/{order['order_id']}/link", headers=STAFF)
    assert answer.status_code == 204
    told = await asyncio.wait_for(following, PATIENCE_S)
    assert json.dumps("link_ended") in told


@pytest.mark.parametrize("side", sorted(URLS))
def test_process__without_the_url_of_its_side__names_it_and_stops(
    database: Database, side: str
) -> None:
    environment = settings(database, side, 0) | {URLS[side]: ""}
    with running("tracking_api", **environment) as process:
        _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 78
    assert said.decode() == (
        f"tracking_api: set {URLS[side]}: required by TRACKING_API_SERVES={side}\n"
    )
