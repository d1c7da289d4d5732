"""Roles of staff at the routes, names in commands, and the audit, over a store in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.unit.tracking_api.memory_store import NEW_ORDER, ORDER_ID, MemoryStore
from tracking_api.app import build_app
from tracking_api.stores import Stores

ORDER = f"/orders/{ORDER_ID}"
READS = ["/orders", ORDER, "/drivers/d1/reporting", "/policies", "/drivers/positions"]
COMMANDS = [
    ("POST", "/orders", NEW_ORDER),
    ("POST", f"{ORDER}/confirm", None),
    ("POST", f"{ORDER}/assign", None),
    ("POST", f"{ORDER}/cancel", None),
    ("POST", f"{ORDER}/link", None),
    ("DELETE", f"{ORDER}/link", None),
    ("PUT", "/drivers/d1/reporting", {"mode": "all"}),
]
ADMINISTRATION = [
    ("GET", "/staff", None),
    ("POST", "/staff", {"name": "nino", "role": "viewer"}),
    ("DELETE", "/staff/nino", None),
    ("POST", "/drivers/d1/rotate", None),
    ("POST", "/drivers/d1/revoke", None),
    ("POST", "/policies", {"name": "fast"}),
]


def as_staff(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer tok-{name}"}


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
async def http(store: MemoryStore) -> AsyncIterator[httpx.AsyncClient]:
    app = build_app(Stores.backed_by(store), "https://track.test")
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client,
    ):
        yield client


@pytest.mark.parametrize("path", READS)
@pytest.mark.parametrize("name", ["viewer", "dispatcher", "staff"])
async def test_read__by_any_staff__is_allowed(
    http: httpx.AsyncClient, path: str, name: str
) -> None:
    assert (await http.get(path, headers=as_staff(name))).status_code == 200


@pytest.mark.parametrize(("method", "path", "body"), COMMANDS)
async def test_command__by_a_viewer__is_forbidden_and_a_dispatcher_may(
    http: httpx.AsyncClient, store: MemoryStore, method: str, path: str, body: object
) -> None:
    refused = await http.request(method, path, json=body, headers=as_staff("viewer"))
    assert refused.status_code == 403
    assert (store.commands, store.created, store.audit) == ([], [], [])
    allowed = await http.request(method, path, json=body, headers=as_staff("dispatcher"))
    assert allowed.is_success


@pytest.mark.parametrize(("method", "path", "body"), ADMINISTRATION)
async def test_administration__by_a_dispatcher__is_forbidden_and_an_admin_may(
    http: httpx.AsyncClient, store: MemoryStore, method: str, path: str, body: object
) -> None:
    for name in ("viewer", "dispatcher"):
        refused = await http.request(method, path, json=body, headers=as_staff(name))
        assert refused.status_code == 403
    assert store.people_changes == []
    assert (await http.request(method, path, json=body, headers=as_staff("staff"))).is_success


@pytest.mark.parametrize("path", [*READS, f"/track/{ORDER_ID}/history"])
async def test_read__role_without_routes__is_refused(http: httpx.AsyncClient, path: str) -> None:
    answer = await http.get(path, headers=as_staff("integration"))
    assert answer.status_code in (403, 404)


async def test_order_command__carries_the_name_of_its_staff(
    http: httpx.AsyncClient, store: MemoryStore
) -> None:
    await http.post(f"{ORDER}/confirm", headers=as_staff("dispatcher"))
    await http.post(f"{ORDER}/cancel", headers=as_staff("staff"))
    assert store.actor_ids == ["dario", "anna"]


async def test_other_command__is_in_the_audit_with_its_subject(
    http: httpx.AsyncClient, store: MemoryStore
) -> None:
    await http.post(f"{ORDER}/link", headers=as_staff("dispatcher"))
    assert store.audit == [("dario", "POST /orders/{order_id}/link", str(ORDER_ID), None)]


async def test_reads__of_one_person__are_one_entry_of_the_audit(store: MemoryStore) -> None:
    app = build_app(Stores.backed_by(store), "https://track.test")
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client,
    ):
        for _ in range(3):
            await client.get("/drivers/d1/reporting", headers=as_staff("viewer"))
        await client.get(f"/track/{ORDER_ID}/history", headers=as_staff("viewer"))
        await client.get(f"/track/{ORDER_ID}/history", headers=as_staff("customer"))
        assert store.audit == []
    [(who, action, subject, detail)] = store.audit
    assert (who, action, subject) == ("vera", "read", None)
    assert detail["reads"] == {
        "GET /drivers/{driver_id}/reporting": 3,
        "GET /track/{order_id}/history": 1,
    }
    assert detail["subjects"] == sorted(["d1", str(ORDER_ID)])


async def test_add_staff__answers_with_the_token_once(
    http: httpx.AsyncClient, store: MemoryStore
) -> None:
    body = {"name": "nino", "role": "viewer", "days": 7}
    created = await http.post("/staff", json=body, headers=as_staff("staff"))
    assert created.status_code == 201
    assert created.json()["token"].startswith("stf_")
    assert "token" not in (await http.get("/staff", headers=as_staff("staff"))).json()["staff"][0]
    assert store.people_changes == [("nino", "add", "anna")]
