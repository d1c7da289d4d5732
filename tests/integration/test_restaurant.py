"""A restaurant's staff at both APIs: their own orders, and nothing on any other route."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from fastapi import APIRouter
from fastapi.routing import APIRoute, APIWebSocketRoute

from data import BUNDLED_CITY
from doorstep.http import token_guessing
from driver_api import drive_routes, join_routes
from driver_api.phone_routes import router as phone_router
from driver_api.routes import router as driver_router
from tests.database import Database
from tests.integration.http_services import (
    CUSTOMER,
    SHOWN_AFTER_S,
    STAFF,
    as_driver,
    create_order,
    make_fix,
    on_duty_at,
)
from tracking_api.app import ROUTES

pytestmark = pytest.mark.usefixtures("uncached_tokens")

OWN = "/restaurant"
DRIVER_API = [
    driver_router,
    drive_routes.router,
    drive_routes.page_router,
    join_routes.router,
    phone_router,
]
COOKIE = "doorstep_staff"
ORIGIN = {"Origin": "http://tracking.test"}


@pytest.fixture(autouse=True)
def many_guesses(monkeypatch: pytest.MonkeyPatch) -> None:
    """One address may guess as often as there are routes."""
    monkeypatch.setattr(token_guessing, "BURST_BAD_TOKENS", 10_000)
    monkeypatch.setattr("tracking_api.app.BURST_BAD_LINKS", 10_000)


async def add_member(tracking_api: httpx.AsyncClient, restaurant_id: int = 1) -> str:
    """Add a member of a restaurant's staff, and return the token."""
    body = {"name": f"mario{restaurant_id}", "role": "restaurant", "restaurant_id": restaurant_id}
    created = await tracking_api.post("/staff", json=body, headers=STAFF)
    assert created.status_code == 201, created.text
    assert created.json()["restaurant_id"] == restaurant_id
    return str(created.json()["token"])


async def open_session(tracking_api: httpx.AsyncClient, token: str) -> str:
    """Sign in; return the cookie's value."""
    opened = await tracking_api.post("/session", json={"token": token}, headers=ORIGIN)
    assert (opened.status_code, opened.json()["role"]) == (200, "restaurant")
    session = opened.cookies[COOKIE]
    tracking_api.cookies.clear()
    return session


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def order_with_courier(
    tracking_api: httpx.AsyncClient, driver_api: httpx.AsyncClient
) -> dict[str, Any]:
    """An order that d1 has, and rides to the restaurant for."""
    await on_duty_at(driver_api, "d1", CUSTOMER)
    order = await create_order(tracking_api)
    for path, body in (("confirm", None), ("assign", {"driver_id": "d1"})):
        address = f"/orders/{order['order_id']}/{path}"
        answer = await tracking_api.post(address, json=body, headers=STAFF)
        assert answer.status_code == 200, answer.text
    return order


def routes_of(routers: list[APIRouter]) -> list[tuple[str, str]]:
    """Every (method, path) of routers, WebSockets as the method WS."""
    found: list[tuple[str, str]] = []
    for router in routers:
        for route in router.routes:
            if isinstance(route, APIWebSocketRoute):
                found.append(("WS", route.path))
            elif isinstance(route, APIRoute):
                found += [(method, route.path) for method in route.methods]
    return found


def address_of(path: str, order_id: str) -> str:
    """Fill a path in with what exists."""
    values = {
        "order_id": order_id,
        "driver_id": "d1",
        "restaurant_id": "1",
        "policy_id": "1",
        "kind": "csv",
        "date": datetime.now(UTC).date().isoformat(),
        "z": "14",
        "x": "8704",
        "y": "5980",
        "city": BUNDLED_CITY,
    }
    filled = re.sub(r"{(\w+)(:\w+)?}", lambda one: values.get(one[1], "x"), path)
    ago = (datetime.now(UTC) - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    area = f"city={BUNDLED_CITY}&bbox=11,43,12,44&lon=11.25&lat=43.77"
    query = f"from={ago}&to=2100-01-01T00:00:00Z&{area}"
    return f"{filled}?{query}"


async def outcome(
    client: httpx.AsyncClient, method: str, address: str, headers: dict[str, str]
) -> tuple[Any, ...]:
    """The status and body of an answer, without what differs between two anonymous ones."""
    if method == "WS":
        return await handshake(client, address, headers)
    body: dict[str, Any] = {} if method in ("GET", "HEAD", "DELETE") else {"json": {}}
    async with asyncio.timeout(20):
        answer = await client.request(method, address, headers=headers, **body)
    return answer.status_code, answer.headers.get("location"), answer.text


async def handshake(
    client: httpx.AsyncClient, address: str, headers: dict[str, str]
) -> tuple[Any, ...]:
    """What a WebSocket's handshake is answered."""
    path, _, query = address.partition("?")
    scope = {
        "type": "websocket",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), text.encode()) for name, text in headers.items()],
        "subprotocols": [],
        "client": ("127.0.0.1", 1),
        "server": ("doorstep.test", 80),
        "scheme": "ws",
        "extensions": {"websocket.http.response": {}},
        "state": {},
    }
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    events = iter([{"type": "websocket.connect"}])

    async def receive() -> dict[str, Any]:
        return next(events, {"type": "websocket.disconnect", "code": 1001})

    transport: Any = client._transport
    await transport.app(scope, receive, send)
    first = sent[0]
    assert first["type"] != "websocket.accept", (address, sent)
    return first["type"], first.get("status"), first.get("code")


@pytest.mark.parametrize("carrier", ["bearer", "cookie"])
async def test_role__on_every_route_but_its_own__is_as_good_as_no_token(
    tracking_api: httpx.AsyncClient,
    driver_api: httpx.AsyncClient,
    carrier: str,
) -> None:
    order = await order_with_courier(tracking_api, driver_api)
    token = await add_member(tracking_api)
    session = await open_session(tracking_api, token)
    headers = bearer(token) if carrier == "bearer" else {"Cookie": f"{COOKIE}={session}"}
    sides = (
        (tracking_api, routes_of([router for router, _ in ROUTES])),
        (driver_api, routes_of(DRIVER_API)),
    )
    readable, differing = 0, []  # by an admin, so that the addresses lead to something
    for client, routes in sides:
        for method, path in routes:
            if path.startswith(OWN) or (method, path) in (
                ("GET", "/session"),
                ("DELETE", "/session"),
            ):
                continue
            address = address_of(path, order["order_id"])
            if method == "GET" and "stream" not in path:
                readable += (await client.get(address, headers=STAFF)).status_code == 200
            anonymous = await outcome(client, method, address, ORIGIN)
            if await outcome(client, method, address, ORIGIN | headers) != anonymous:
                differing.append((method, path))
    assert differing == []
    assert [len(routes) > 9 for _, routes in sides] == [True, True]
    assert readable > 30


async def test_page__of_a_restaurant__shows_the_courier_between_assignment_and_pick_up(
    tracking_api: httpx.AsyncClient, driver_api: httpx.AsyncClient
) -> None:
    member = bearer(await add_member(tracking_api))
    await on_duty_at(driver_api, "d1", CUSTOMER)
    order = await create_order(tracking_api)

    async def courier() -> Any:
        answer = await tracking_api.get("/restaurant/orders", headers=member)
        assert answer.status_code == 200, answer.text
        assert "lon_deg" not in answer.text
        assert "d1" not in answer.text
        [shown] = answer.json()["orders"]
        assert shown["order_id"] == order["order_id"]
        return shown["courier"]

    path = f"/restaurant/orders/{order['order_id']}"
    ready_at = (datetime.now(UTC) + timedelta(minutes=15)).isoformat()
    confirmed = await tracking_api.post(
        f"{path}/confirm", json={"ready_at": ready_at}, headers=member
    )
    assert (confirmed.status_code, confirmed.json()["state"]) == (200, "confirmed")
    assert datetime.fromisoformat(confirmed.json()["ready_at"]) > datetime.now(UTC)
    assert await courier() is None
    assign = f"/orders/{order['order_id']}/assign"
    assigned = await tracking_api.post(assign, json={"driver_id": "d1"}, headers=STAFF)
    assert assigned.status_code == 200
    assert await courier() == {"name": "Driver 1", "is_here": False, "arrives_at": None}
    await asyncio.sleep(SHOWN_AFTER_S)
    fix = make_fix(CUSTOMER)
    patched = await driver_api.patch("/drivers/d1/location", json=fix, headers=as_driver("d1"))
    assert patched.status_code == 200
    arrives_at = datetime.fromisoformat((await courier())["arrives_at"])
    assert arrives_at > datetime.now(UTC)
    assert (arrives_at.second, arrives_at.microsecond) == (0, 0)
    late = await tracking_api.put(f"{path}/ready-at", json={"ready_at": ready_at}, headers=member)
    assert late.status_code == 200
    picked_up = f"/drivers/d1/orders/{order['order_id']}/picked-up"
    assert (await driver_api.post(picked_up, headers=as_driver("d1"))).status_code == 200
    assert await courier() is None
    refused = await tracking_api.put(
        f"{path}/ready-at", json={"ready_at": ready_at}, headers=member
    )
    assert (refused.status_code, refused.json()["current_state"]) == (409, "picked_up")


async def test_order__of_another_restaurant__is_the_same_404_as_none(
    tracking_api: httpx.AsyncClient, driver_api: httpx.AsyncClient, database: Database
) -> None:
    database.rows(
        "INSERT INTO doorstep.restaurant (restaurant_id, name, lon_deg, lat_deg)"
        " VALUES (2, 'Trattoria', 11.25, 43.77)"
    )
    other = bearer(await add_member(tracking_api, 2))
    order = await create_order(tracking_api)
    answers = []
    for order_id in (order["order_id"], "00000000-0000-4000-8000-000000000000"):
        path = f"/restaurant/orders/{order_id}/confirm"
        answer = await tracking_api.post(path, headers=other)
        answers.append((answer.status_code, answer.text.replace(order_id, "")))
    assert answers[0] == answers[1]
    assert answers[0][0] == 404
    assert (await tracking_api.get("/restaurant/orders", headers=other)).json()["orders"] == []


@pytest.mark.parametrize("ready_at", ["2020-01-01T00:00:00Z", "2099-01-01T00:00:00Z", "soon", None])
async def test_ready_at__far_or_malformed__is_refused(
    tracking_api: httpx.AsyncClient, ready_at: str | None
) -> None:
    member = bearer(await add_member(tracking_api))
    order = await create_order(tracking_api)
    path = f"/restaurant/orders/{order['order_id']}/ready-at"
    answer = await tracking_api.put(path, json={"ready_at": ready_at}, headers=member)
    assert answer.status_code == 422


@pytest.mark.parametrize("headers", [{}, STAFF, bearer("stf_unknown")])
async def test_own_routes__of_any_other_role__are_refused(
    tracking_api: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    order = await create_order(tracking_api)
    path = f"/restaurant/orders/{order['order_id']}"
    for answer in (
        await tracking_api.get("/restaurant/orders", headers=headers),
        await tracking_api.post(f"{path}/confirm", headers=headers),
        await tracking_api.put(f"{path}/ready-at", json={}, headers=headers),
    ):
        assert answer.status_code == 401
    page = await tracking_api.get("/restaurant", headers=headers)
    assert (page.status_code, page.headers["location"]) == (303, "/sign-in?next=/restaurant")


async def test_session__of_a_member__names_the_role_and_ends_with_the_sign_out(
    tracking_api: httpx.AsyncClient,
) -> None:
    session = await open_session(tracking_api, await add_member(tracking_api))
    cookie = {"Cookie": f"{COOKIE}={session}"}
    whose = await tracking_api.get("/session", headers=cookie)
    assert whose.json() == {"name": "mario1", "role": "restaurant"}
    signed_out = await tracking_api.delete("/session", headers=cookie | ORIGIN)
    assert signed_out.status_code == 204
    assert (await tracking_api.get("/restaurant/orders", headers=cookie)).status_code == 401


@pytest.mark.parametrize(
    "body",
    [
        {"name": "x", "role": "restaurant"},
        {"name": "x", "role": "viewer", "restaurant_id": 1},
        {"name": "x", "role": "restaurant", "restaurant_id": 99},
    ],
)
async def test_member__without_a_fitting_restaurant__is_not_added(
    tracking_api: httpx.AsyncClient, body: dict[str, Any]
) -> None:
    answer = await tracking_api.post("/staff", json=body, headers=STAFF)
    assert answer.status_code == (404 if body.get("restaurant_id") == 99 else 422)
    names = [
        one["name"] for one in (await tracking_api.get("/staff", headers=STAFF)).json()["staff"]
    ]
    assert "x" not in names
