"""What staff sees of a phone that reports without a new position, on a real database."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.database import Database
from tests.integration.http_services import (
    RESTAURANT,
    STAFF,
    on_duty_at,
)
from tests.vector_tile import read_tile

TOKEN = "phn_d1"


@pytest.fixture
async def driver_api(driver_api: httpx.AsyncClient) -> httpx.AsyncClient:
    await on_duty_at(driver_api, "d1", RESTAURANT)
    return driver_api


@pytest.fixture
async def staff(tracking_api: httpx.AsyncClient) -> httpx.AsyncClient:
    tracking_api.headers.update(STAFF)
    return tracking_api


def give_phone(database: Database) -> None:
    with database.connect() as conn:
        conn.execute("SET search_path = doorstep, public")
        conn.execute(
            "SELECT FROM issue_phone_v2('d1', true, 'test', 'hash', sha256(%s))", (TOKEN.encode(),)
        )
        conn.execute("UPDATE driver_state SET received_at = received_at - interval '2 minutes'")
        conn.commit()


async def read(staff: httpx.AsyncClient) -> dict[str, Any]:
    found: dict[str, Any] = (await staff.get("/drivers/d1")).json()
    return found


def drawn(database: Database) -> str:
    tile = database.value("SELECT fleet_tile_v1(0, 0, 0, NULL, NULL, NULL, 60, 300, 0.5, 1000)")
    [(_, properties)] = read_tile(bytes(tile))["drivers"]
    return str(properties["presence"])


@pytest.mark.parametrize(
    "message", [{"_type": "status"}, {"_type": "lwt"}, {"_type": "transition", "event": "enter"}]
)
async def test_message_without_a_position__of_a_parked_phone__counts_as_heard_of(
    driver_api: httpx.AsyncClient,
    staff: httpx.AsyncClient,
    database: Database,
    message: dict[str, str],
) -> None:
    give_phone(database)
    before = await read(staff)
    assert (before["presence"], before["phone_app"]["state"]) == ("silent", "invited")
    assert drawn(database) == "silent"
    answer = await driver_api.post("/owntracks", json=message, auth=("d1", TOKEN))
    assert (answer.status_code, answer.json()) == (200, [])
    after = await read(staff)
    assert after["presence"] in ("online", "stationary")
    assert after["position"]["properties"]["fix_at"] == before["position"]["properties"]["fix_at"]
    assert after["phone_app"]["state"] == "heard"
    assert after["phone_app"]["app"].startswith("OwnTracks over HTTP (python-httpx/")
    assert drawn(database) == after["presence"]


async def test_heartbeat_of_traccar__without_a_place__counts_as_heard_of(
    driver_api: httpx.AsyncClient, staff: httpx.AsyncClient, database: Database
) -> None:
    give_phone(database)
    assert (await driver_api.get("/osmand", params={"id": TOKEN})).status_code == 200
    found = await read(staff)
    assert found["presence"] in ("online", "stationary")
    assert found["phone_app"]["app"].startswith("Traccar Client (")


async def test_driver__without_a_phone__has_none(
    driver_api: httpx.AsyncClient, staff: httpx.AsyncClient
) -> None:
    assert (await read(staff))["phone_app"] is None
    answer = await staff.post("/drivers/nina/invitations")
    assert answer.status_code == 404
    assert (await staff.post("/drivers/d1/invitations")).status_code == 201
    phone = (await read(staff))["phone_app"]
    assert (phone["state"], phone["heard_at"]) == ("invited", None)
    assert phone["invited_until"] is not None
