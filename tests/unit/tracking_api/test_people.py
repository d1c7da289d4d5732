"""Roles of staff at the routes, names in commands, and the audit, over a store in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.unit.tracking_api.memory_store import NEW_ORDER, ORDER_ID, MemoryStore
from tracking_api.app import build_app
from tracking_api.people.read_log import ReadLog
from tracking_api.stores import Stores

ORDER = f"/orders/{ORDER_ID}"
READS = [
    "/orders",
    ORDER,
    f"{ORDER}/couriers",
    f"{ORDER}/timeline",
    "/places?q=roma",
    "/drivers/d1/reporting",
    "/policies",
    "/drivers/positions",
]
COMMANDS = [
    ("POST", "/orders", NEW_ORDER),
    ("POST", f"{ORDER}/confirm", None),
    ("POST", f"{ORDER}/assign", None),
    ("POST", f"{ORDER}/pick_up", None),
    ("POST", f"{ORDER}/deliver", None),
    ("POST", f"{ORDER}/cancel", None),
    ("POST", f"{ORDER}/link", None),
    ("DELETE", f"{ORDER}/link", None),
    ("PUT", "/drivers/d1/reporting", {"mode": "all"}),
]
ADMINISTRATION = [
    ("GET", "/staff", None),
    ("POST", "/staff", {"name": "nino", "role": "viewer"}),
    ("DELETE", "/staff/nino", None),
    ("POST", "/staff/nino/rotate", {"role": "admin"}),
    ("GET", "/credentials/drivers", None),
    ("POST", "/credentials/drivers", {"id": "nino"}),
    ("POST", "/credentials/drivers/d1/rotate", None),
    ("POST", "/credentials/drivers/d1/revoke", None),
    ("DELETE", "/credentials/drivers/d1", None),
    ("GET", "/credentials/sources", None),
    ("POST", "/credentials/sources", {"id": "weather"}),
    ("POST", "/credentials/sources/d1/rotate", None),
    ("POST", "/credentials/sources/d1/revoke", None),
    ("DELETE", "/credentials/sources/d1", None),
    ("POST", "/policies", {"name": "fast"}),
    ("PATCH", "/policies/1", {"pace": 2}),
    ("POST", "/policies/1/retire", None),
    ("POST", "/policies/1/default", None),
    ("POST", "/drivers", {"id": "nino"}),
    ("PATCH", "/drivers/d1", {"vehicle": "van"}),
    ("POST", "/restaurants", {"name": "Bar", "lat_deg": 1, "lon_deg": 2}),
    ("PATCH", "/restaurants/1", {"phone": None}),
    ("POST", "/restaurants/1/retire", None),
    ("POST", "/service-areas", {"name": "a", "west": 1, "south": 1, "east": 2, "north": 2}),
    ("PATCH", "/service-areas/a", {"east": 3}),
    ("POST", "/service-areas/a/retire", None),
    ("GET", "/drivers.csv", None),
    ("GET", "/restaurants.csv", None),
    ("GET", "/service-areas.csv", None),
    ("GET", "/policies.csv", None),
]


def as_staff(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer tok-{name}"}


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


@pytest.mark.parametrize("name", ["a%00b", "%1b%5b2J", "a%0ab"])
async def test_path_with_control_characters__is_in_the_audit_without_them(
    store: MemoryStore, name: str
) -> None:
    """PostgreSQL stores no U+0000: one such read would keep all later ones out of the audit."""
    app = build_app(Stores.backed_by(store), "https://track.test")
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client,
    ):
        put = await client.put(
            f"/simulations/{name}", json={"count": 1}, headers=as_staff("dispatcher")
        )
        assert put.status_code == 422
        await client.get(f"/streams/{name}", headers=as_staff("viewer"))
    [(_, _, commanded, _), (_, _, _, reads)] = store.audit
    for subject in (commanded, *reads["subjects"]):
        assert subject
        assert subject.isprintable()


async def test_read__while_earlier_ones_are_written__is_in_the_next_entry() -> None:
    written: list[Any] = []

    class SlowStore(MemoryStore):
        async def record_audit(self, *entry: Any) -> None:
            if not written:
                log.add("vera", "GET /orders")
            written.append(entry[3]["reads"])

    log = ReadLog(SlowStore())
    log.add("vera", "GET /drivers")
    await log.flush()
    await log.flush()
    assert written == [{"GET /drivers": 1}, {"GET /orders": 1}]


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


OWN = {"Origin": "https://track.test"}


async def sign_in(
    http: httpx.AsyncClient, token: str = "tok-dispatcher", origin: dict[str, str] = OWN
) -> httpx.Response:
    """Sign in; the cookie is kept by hand, because the client only speaks HTTP."""
    answer = await http.post("/session", json={"token": token}, headers=origin)
    if answer.is_success:
        http.cookies.set("doorstep_staff", answer.cookies["doorstep_staff"])
    return answer


async def test_sign_in__good_token__sets_a_cookie_that_scripts_and_other_sites_cannot_use(
    http: httpx.AsyncClient,
) -> None:
    answer = await sign_in(http)
    assert answer.json() == {"name": "dario", "role": "dispatcher"}
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("doorstep_staff=ses_")
    attributes = {part.strip().lower() for part in cookie.split(";")[1:]}
    assert {"httponly", "samesite=strict", "secure", "path=/"} <= attributes
    assert any(one.startswith("expires=") for one in attributes)
    assert (await http.get("/orders")).status_code == 200
    assert (await http.get("/session")).json() == {"name": "dario", "role": "dispatcher"}


@pytest.mark.parametrize("token", ["wrong", "tok-customer", "tok-d1", "tok-integration"])
async def test_sign_in__other_token__is_refused_and_limited(
    http: httpx.AsyncClient, token: str
) -> None:
    for _ in range(20):
        assert (await sign_in(http, token)).status_code == 401
    assert (await sign_in(http, token)).status_code == 429
    assert (await http.get("/orders")).status_code == 401


FOREIGN = [
    "http://track.test",  # the scheme counts
    "https://track.test:8443",
    "https://evil.test",
    "https://track.test.evil.test",
    "https://test",
    "null",
    "https://[",
    "",
]


@pytest.mark.parametrize("origin", FOREIGN)
async def test_cookie__on_a_write_of_another_site__is_forbidden(
    http: httpx.AsyncClient, store: MemoryStore, origin: str
) -> None:
    foreign = {"Origin": origin}
    assert (await sign_in(http, origin=foreign)).status_code == 403
    await sign_in(http)
    for method, path, body in (*COMMANDS, ("DELETE", "/session", None)):
        refused = await http.request(method, path, json=body, headers=foreign)
        assert refused.status_code == 403, path
        assert refused.json()["type"] == "/problems/foreign-origin"
        for other in ({}, {"Authorization": "Basic eDp5"}):  # only a bearer token needs no Origin
            bare = await http.request(method, path, json=body, headers=other)
            assert bare.status_code == 403, path
    assert (store.commands, store.created, store.audit) == ([], [], [])


@pytest.mark.parametrize("origin", ["https://track.test", "HTTPS://Track.test:443", "http://test"])
async def test_cookie__on_a_write_of_our_own_page__is_accepted(
    http: httpx.AsyncClient, origin: str
) -> None:
    await sign_in(http)
    answer = await http.post(f"{ORDER}/confirm", headers={"Origin": origin})
    assert answer.status_code == 200


async def test_sign_out__ends_the_session_and_deletes_the_cookie(
    http: httpx.AsyncClient, store: MemoryStore
) -> None:
    await sign_in(http)
    held = len(store.tokens)
    out = await http.delete("/session", headers=OWN)
    assert out.status_code == 204
    assert 'doorstep_staff=""' in out.headers["set-cookie"]
    assert len(store.tokens) == held - 1


@pytest.mark.parametrize("page", ["fleet", "series"])
async def test_staff_page__without_a_session__redirects_to_the_sign_in(
    http: httpx.AsyncClient, page: str
) -> None:
    html = {"Accept": "text/html"}
    answer = await http.get(f"/{page}", headers=html)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/sign-in?next=/{page}")
    http.cookies.set("doorstep_staff", "ses_old")
    assert (await http.get(f"/{page}", headers=html)).status_code == 303
    await sign_in(http)
    assert (await http.get(f"/{page}", headers=html)).status_code != 303


@pytest.mark.parametrize(("kind", "has_token"), [("driver", True), ("source", False)])
async def test_credential__added_or_rotated__is_answered_with_its_secrets_once(
    http: httpx.AsyncClient, kind: str, has_token: bool
) -> None:
    path, admin = f"/credentials/{kind}s", as_staff("staff")
    added = await http.post(path, json={"id": "nino"}, headers=admin)
    assert added.status_code == 201
    rotated = await http.post(f"{path}/d1/rotate", headers=admin)
    for answer in (added.json(), rotated.json()):
        assert len(answer["mqtt_password"]) == 43
        assert (answer["token"] is not None) is has_token
    assert added.json()["mqtt_password"] != rotated.json()["mqtt_password"]
    listed = (await http.get(path, headers=admin)).json()["credentials"]
    assert listed == [{"id": "d1", "state": "active", "generation": 0}]
    assert (await http.post(path, json={"id": "d1"}, headers=admin)).status_code == 409
    assert (await http.post(f"{path}/other/rotate", headers=admin)).status_code == 404
    for bad in ("bridge", "a/b", "", "x" * 65):
        assert (await http.post(path, json={"id": bad}, headers=admin)).status_code == 422
