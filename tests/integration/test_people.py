"""Named staff and revocation, on both APIs with a real database."""

from __future__ import annotations

import math
from typing import Any

import httpx
import pytest

from doorstep.credentials import token_sha256
from doorstep.store.people import change_device, read_audit
from tests.database import Database
from tests.integration.http_services import (
    RESTAURANT,
    STAFF,
    as_driver,
    create_order,
    make_fix,
    on_duty_at,
)

pytestmark = pytest.mark.usefixtures("uncached_tokens")


async def add_staff(tracking_api: httpx.AsyncClient, name: str, role: str) -> dict[str, str]:
    """Add a member of staff; return the headers of their requests."""
    body = {"name": name, "role": role}
    created = await tracking_api.post("/staff", json=body, headers=STAFF)
    assert created.status_code == 201, created.text
    return {"Authorization": f"Bearer {created.json()['token']}"}


def entries(database: Database) -> list[tuple[str, str, str | None]]:
    with database.connect() as conn:
        return [(one.who, one.action, one.subject) for one in read_audit(conn)]


async def test_dispatcher__commands_an_order__is_named_in_the_audit(
    tracking_api: httpx.AsyncClient, driver_api: httpx.AsyncClient, database: Database
) -> None:
    anna = await add_staff(tracking_api, "anna", "dispatcher")
    await on_duty_at(driver_api, "d1", RESTAURANT)
    order: dict[str, Any] = await create_order(tracking_api)
    order_id = order["order_id"]
    for path, body in (("confirm", None), ("assign", {"driver_id": "d1"})):
        answer = await tracking_api.post(f"/orders/{order_id}/{path}", json=body, headers=anna)
        assert answer.status_code == 200, answer.text
    assert entries(database) == [
        ("stack", "staff.add", "anna"),
        ("stack", "order.create", order_id),
        ("anna", "order.confirm", order_id),
        ("anna", "order.assign", order_id),
    ]
    assert database.value(
        "SELECT array_agg(DISTINCT actor_id) FROM doorstep.order_command WHERE order_id = %s",
        order_id,
    ) == ["anna"]


async def test_viewer__any_write__is_forbidden_at_both_apis(
    tracking_api: httpx.AsyncClient, driver_api: httpx.AsyncClient
) -> None:
    vera = await add_staff(tracking_api, "vera", "viewer")
    assert (await tracking_api.get("/orders", headers=vera)).status_code == 200
    order = await create_order(tracking_api)
    refused = await tracking_api.post(f"/orders/{order['order_id']}/confirm", headers=vera)
    assert refused.status_code == 403
    patched = await driver_api.patch(
        "/drivers/d1/location", json=make_fix(RESTAURANT), headers=vera
    )
    assert patched.status_code == 403


async def test_staff__revoked__is_refused_by_both_apis(
    tracking_api: httpx.AsyncClient, driver_api: httpx.AsyncClient
) -> None:
    anna = await add_staff(tracking_api, "anna", "dispatcher")
    order = await create_order(tracking_api)
    assert (await tracking_api.delete("/staff/anna", headers=STAFF)).status_code == 204

    assert (await tracking_api.get("/orders", headers=anna)).status_code == 401
    track = await tracking_api.get(f"/track/{order['order_id']}", headers=anna)
    assert track.status_code == 404
    fix = make_fix(RESTAURANT)
    patched = await driver_api.patch("/drivers/d1/location", json=fix, headers=anna)
    assert patched.status_code == 401


CHANGES = [("POST", "/revoke", "revoked"), ("POST", "/rotate", "active"), ("DELETE", "", "removed")]


@pytest.mark.parametrize(("method", "path", "state"), CHANGES)
async def test_driver__changed_over_the_api__old_token_is_refused(
    tracking_api: httpx.AsyncClient,
    driver_api: httpx.AsyncClient,
    method: str,
    path: str,
    state: str,
) -> None:
    assert (await driver_api.get("/drivers/d1", headers=as_driver("d1"))).status_code == 200
    answer = await tracking_api.request(method, f"/credentials/drivers/d1{path}", headers=STAFF)
    assert answer.status_code == 200, answer.text
    assert answer.json()["state"] == state
    if state == "active":
        new = {"Authorization": f"Bearer {answer.json()['token']}"}
        assert (await driver_api.get("/drivers/d1", headers=new)).status_code == 200
    assert (await driver_api.get("/drivers/d1", headers=as_driver("d1"))).status_code == 401
    assert (await driver_api.get("/drivers/d2", headers=as_driver("d2"))).status_code == 200


async def test_driver__removed__is_off_the_list_and_not_available(
    tracking_api: httpx.AsyncClient, driver_api: httpx.AsyncClient, database: Database
) -> None:
    for driver_id in ("d1", "d2"):
        await on_duty_at(driver_api, driver_id, RESTAURANT)
    with database.connect() as conn:
        change_device(conn, "driver", "d1", "remove", "test")
    positions = (await tracking_api.get("/drivers/positions", headers=STAFF)).json()["drivers"]
    assert [row[0] for row in positions] == ["d2"]
    found = await tracking_api.get("/fleet/search?q=d", headers=STAFF)
    assert [one["driver_id"] for one in found.json()["drivers"]] == ["d2", "d3"]
    near = await tracking_api.get("/drivers/nearest?lon_deg=11.25&lat_deg=43.77", headers=STAFF)
    assert [one["driver_id"] for one in near.json()["drivers"]] == ["d2"]


async def test_driver_and_source__added_over_the_api__are_credentials_that_the_audit_names(
    tracking_api: httpx.AsyncClient, driver_api: httpx.AsyncClient, database: Database
) -> None:
    for kind, name in (("driver", "nora"), ("source", "weather")):
        path = f"/credentials/{kind}s"
        added = await tracking_api.post(path, json={"id": name}, headers=STAFF)
        assert added.status_code == 201, added.text
        again = await tracking_api.post(path, json={"id": name}, headers=STAFF)
        assert again.status_code == 409
        if kind == "driver":
            token = {"Authorization": f"Bearer {added.json()['token']}"}
            assert (await driver_api.get("/drivers/nora", headers=token)).status_code == 200
        listed = (await tracking_api.get(path, headers=STAFF)).json()["credentials"]
        assert {"id": name, "state": "active", "generation": 0} in listed
    assert entries(database) == [
        ("stack", "driver.add", "nora"),
        ("stack", "source.add", "weather"),
    ]


async def test_staff__rotated_over_the_api__old_token_and_session_are_refused(
    tracking_api: httpx.AsyncClient, database: Database
) -> None:
    anna = await add_staff(tracking_api, "anna", "viewer")
    token = anna["Authorization"].removeprefix("Bearer ")
    opened = await tracking_api.post(
        "/session", json={"token": token}, headers={"Origin": str(tracking_api.base_url)}
    )
    cookie = {"Cookie": f"doorstep_staff={opened.cookies['doorstep_staff']}"}
    tracking_api.cookies.clear()
    assert (await tracking_api.get("/session", headers=cookie)).json()["role"] == "viewer"

    body = {"role": "dispatcher"}
    rotated = await tracking_api.post("/staff/anna/rotate", json=body, headers=STAFF)
    assert (rotated.status_code, rotated.json()["role"]) == (200, "dispatcher")

    for old in (anna, cookie):
        assert (await tracking_api.get("/orders", headers=old)).status_code == 401
    new = {"Authorization": f"Bearer {rotated.json()['token']}"}
    assert (await tracking_api.get("/orders", headers=new)).status_code == 200
    assert [action for _, action, _ in entries(database)] == [
        "staff.add",
        "staff.sign_in",
        "staff.rotate",
    ]


@pytest.mark.parametrize("zoom", [0, 14])
async def test_driver__removed__is_in_no_tile(
    tracking_api: httpx.AsyncClient,
    driver_api: httpx.AsyncClient,
    database: Database,
    zoom: int,
) -> None:
    await on_duty_at(driver_api, "d1", RESTAURANT)
    tile = "SELECT doorstep.fleet_tile_v1(%s, %s, %s, NULL, NULL, NULL, 60, 600, 1, 100)"
    lon_deg, lat_deg = RESTAURANT
    x = int((lon_deg + 180) / 360 * 2**zoom)
    y = int((1 - math.asinh(math.tan(math.radians(lat_deg))) / math.pi) / 2 * 2**zoom)
    assert b"d1" in bytes(database.value(tile, zoom, x, y))
    with database.connect() as conn:
        change_device(conn, "driver", "d1", "remove", "test")
    assert bytes(database.value(tile, zoom, x, y)) == b""


async def test_token__of_an_unknown_name__is_in_no_table_in_clear(
    tracking_api: httpx.AsyncClient, database: Database
) -> None:
    anna = await add_staff(tracking_api, "anna", "admin")
    token = anna["Authorization"].removeprefix("Bearer ")
    stored = database.rows("SELECT token_sha256 FROM doorstep.access_token WHERE name = 'anna'")
    assert [bytes(row["token_sha256"]) for row in stored] == [token_sha256(token)]
