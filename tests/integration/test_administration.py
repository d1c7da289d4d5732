"""One life of each kind of what admins set, over a real database with the services' rights."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from data import BUNDLED_CITY
from doorstep.store.people import read_audit
from tests.database import Database
from tests.integration.http_services import (
    STAFF,
)

PLACE = {"name": "Kappeli", "lat_deg": 60.1675, "lon_deg": 24.9483}
CSV = STAFF | {"Content-Type": "text/csv; charset=utf-8"}


pytestmark = pytest.mark.usefixtures("uncached_tokens")


@pytest.fixture
async def http(tracking_api: httpx.AsyncClient) -> Any:
    tracking_api.headers.update(STAFF)
    return tracking_api


async def as_role(http: httpx.AsyncClient, role: str) -> dict[str, str]:
    added = await http.post("/staff", json={"name": f"a-{role}", "role": role})
    return {"Authorization": f"Bearer {added.json()['token']}"}


def audit(database: Database, subject: str) -> list[tuple[str, Any]]:
    with database.connect() as conn:
        return [(one.action, one.detail) for one in read_audit(conn) if one.subject == subject]


async def order_at(http: httpx.AsyncClient, restaurant_id: int, **members: Any) -> httpx.Response:
    destination = {"lon_deg": 24.95, "lat_deg": 60.17}
    body = {"restaurant_id": restaurant_id, "destination": destination, **members}
    return await http.post("/orders", json=body)


async def test_driver__from_adding_to_retiring__has_one_life(
    http: httpx.AsyncClient, driver_api: httpx.AsyncClient, database: Database
) -> None:
    new = {"id": "nora", "name": "Nora", "vehicle": "cargo_bike", "phone": "+39 055 123"}
    added = await http.post("/drivers", json=new)
    assert added.status_code == 201, added.text
    assert added.headers["location"] == "/drivers/nora"
    phone = {"Authorization": f"Bearer {added.json()['token']}"}
    assert (await driver_api.post("/drivers/nora/on-duty", headers=phone)).status_code == 200
    assert (await http.post("/drivers", json=new)).json()["type"] == "/problems/device-exists"

    changed = await http.patch("/drivers/nora", json={"vehicle": "car"})
    assert (changed.json()["vehicle"], changed.json()["phone"]) == ("car", "+39 055 123")
    viewer = await as_role(http, "viewer")
    assert (await http.get("/drivers/nora", headers=viewer)).json()["phone"] is None
    assert (await http.get("/drivers", headers=viewer)).status_code == 403

    retired = await http.post("/drivers/nora/retire")
    assert retired.json()["retired_at"] is not None
    assert (await driver_api.post("/drivers/nora/on-duty", headers=phone)).status_code == 401
    assert (await http.get("/drivers/nora")).json()["duty"] == "off_duty"
    listed = (await http.get("/drivers")).json()["drivers"]
    assert [one["driver_id"] for one in listed] == ["d1", "d2", "d3"]
    listed = (await http.get("/drivers?retired=true")).json()["drivers"]
    assert "nora" in [one["driver_id"] for one in listed]
    refused = await http.patch("/drivers/nora", json={"name": "N"})
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/retired")

    again = await http.post("/drivers", json={"id": "nora"})
    assert (again.json()["name"], again.json()["phone"]) == ("nora", None)
    assert again.json()["token"] != added.json()["token"]
    fields = {"fields": ["name", "phone", "vehicle"]}
    assert [one for one in audit(database, "nora") if one[0] == "driver.change"] == [
        ("driver.change", fields),
        ("driver.change", {"fields": ["vehicle"]}),
        ("driver.change", fields),
    ]


async def test_restaurant__from_adding_to_retiring__takes_orders_until_then(
    http: httpx.AsyncClient, database: Database
) -> None:
    hours = [{"days": ["fri", "sat"], "from": "18:00", "to": "02:00"}]
    added = await http.post("/restaurants", json=PLACE | {"opening_hours": hours})
    assert added.status_code == 201, added.text
    restaurant_id = added.json()["restaurant_id"]
    assert added.json()["opening_hours"] == hours
    order = await order_at(http, restaurant_id)
    assert order.status_code == 201

    path = f"/restaurants/{restaurant_id}"
    changed = await http.patch(path, json={"preparation_s": 600, "opening_hours": None})
    assert changed.json() == added.json() | {"preparation_s": 600, "opening_hours": None}
    assert (await http.post(f"{path}/retire")).json()["retired_at"] is not None
    refused = await order_at(http, restaurant_id)
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/retired")
    listed = (await http.get("/restaurants")).json()["restaurants"]
    assert [one["restaurant_id"] for one in listed] == [1]
    assert (await http.get(path)).json()["name"] == "Kappeli"
    assert [action for action, _ in audit(database, str(restaurant_id))] == [
        *("restaurant.create", "restaurant.change", "restaurant.retire")
    ]


async def test_restaurant__with_swapped_coordinates__is_422_at_every_door(
    http: httpx.AsyncClient, database: Database
) -> None:
    swapped = {"lat_deg": 11.25, "lon_deg": 43.77}
    table = "name,lat_deg,lon_deg\nGood,43.77,11.25\nBad,11.25,43.77\n"
    for answer in (
        await http.post("/restaurants", json={"name": "Bad", **swapped}),
        await http.patch("/restaurants/1", json=swapped),
    ):
        assert (answer.status_code, answer.json()["type"]) == (422, "/problems/swapped-coordinates")
        assert "the restaurant is in no service area" in answer.json()["detail"]
    imported = await http.post("/restaurants/import", content=table, headers=CSV)
    [error] = imported.json()["errors"]
    assert (imported.status_code, error["line"]) == (422, 3)
    assert error["reason"] == "swapped-coordinates"
    assert database.value("SELECT count(*) FROM restaurant") == 1


async def test_area__from_adding_to_retiring__is_listed_until_then(
    http: httpx.AsyncClient, database: Database
) -> None:
    box = {"west": 24.9, "south": 60.1, "east": 25.0, "north": 60.2}
    added = await http.post("/service-areas", json={"name": "helsinki", **box})
    assert added.status_code == 201, added.text
    taken = await http.post("/service-areas", json={"name": "helsinki", **box})
    assert (taken.status_code, taken.json()["type"]) == (409, "/problems/name-taken")
    wrong = await http.patch("/service-areas/helsinki", json={"north": 60.0})
    assert (wrong.status_code, wrong.json()["reason"]) == (422, "out_of_range")
    inside = (await http.post("/restaurants", json=PLACE)).json()
    assert inside["city"] == "helsinki"
    path = f"/restaurants/{inside['restaurant_id']}"
    assert (await http.patch(path, json={"lat_deg": 59.0})).json()["city"] is None
    change = {"east": 25.1, "south": 58.0, "time_zone": "Europe/Helsinki"}
    changed = await http.patch("/service-areas/helsinki", json=change)
    assert changed.json() == added.json() | change
    assert (await http.get(path)).json()["city"] == "helsinki"
    odd = await http.patch("/service-areas/helsinki", json={"time_zone": "Mars/Olympus"})
    assert odd.status_code == 422
    await http.post("/service-areas/helsinki/retire")
    listed = (await http.get("/service-areas")).json()["service_areas"]
    assert [one["name"] for one in listed] == [BUNDLED_CITY]
    again = await http.post("/service-areas", json={"name": "helsinki", **box})
    assert again.json() == added.json()
    assert (await http.get("/service-areas/oslo")).status_code == 404


async def test_policy__changed__is_a_new_one_and_orders_keep_the_old(
    http: httpx.AsyncClient,
) -> None:
    before = (await order_at(http, 1)).json()
    changed = await http.patch("/policies/1", json={"enter_radius_m": 90})
    assert changed.status_code == 201, changed.text
    policy = changed.json()
    assert (policy["replaces"], policy["is_default"], policy["dwell_min_s"]) == (1, True, 30)
    assert changed.headers["location"] == f"/policies/{policy['policy_id']}"
    assert (await order_at(http, 1)).json()["policy_id"] == policy["policy_id"]
    assert (await http.get(f"/orders/{before['order_id']}")).json()["policy_id"] == 1
    assert (await order_at(http, 1, policy_id=1)).json()["type"] == "/problems/retired"
    assert (await http.patch("/policies/1", json={"pace": 2})).status_code == 409


async def test_policy__default__can_be_moved_and_not_retired(http: httpx.AsyncClient) -> None:
    other = (await http.post("/policies", json={"name": "slow"})).json()["policy_id"]
    refused = await http.post("/policies/1/retire")
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/default-policy")
    assert (await http.post(f"/policies/{other}/default")).json()["is_default"] is True
    assert (await http.post("/policies/1/retire")).json()["retired_at"] is not None
    assert (await order_at(http, 1)).json()["policy_id"] == other
    listed = (await http.get("/policies")).json()["policies"]
    assert [one["policy_id"] for one in listed] == [other]


async def test_order__repeated_after_the_default_policy_changed__is_the_same(
    http: httpx.AsyncClient,
) -> None:
    key = {"Idempotency-Key": "k1"}
    destination = {"lon_deg": 11.26, "lat_deg": 43.78}
    body = {"restaurant_id": 1, "destination": destination}
    first = await http.post("/orders", json=body, headers=key)
    await http.patch("/policies/1", json={"pace": 2})
    await http.post("/restaurants/1/retire")
    again = await http.post("/orders", json=body, headers=key)
    assert (again.status_code, again.json()["order_id"]) == (201, first.json()["order_id"])


@pytest.mark.parametrize("kind", ["drivers", "restaurants", "service-areas", "policies"])
async def test_csv__exported__imports_without_a_change(http: httpx.AsyncClient, kind: str) -> None:
    await http.patch("/drivers/d1", json={"phone": "+39 055 1", "vehicle": "foot"})
    exported = await http.get(f"/{kind}.csv")
    assert exported.headers["content-type"] == "text/csv; charset=utf-8"
    assert len(exported.text.splitlines()) >= 2
    imported = await http.post(f"/{kind}/import", content=exported.content, headers=CSV)
    assert imported.status_code == 200, imported.text
    rows = len(exported.text.splitlines()) - 1
    assert imported.json() == {
        "dry_run": False,
        "created": [],
        "changed": [],
        "secrets": [],
        "unchanged": rows,
    }


async def test_import__of_drivers__creates_and_changes_and_holds_the_secrets(
    http: httpx.AsyncClient, driver_api: httpx.AsyncClient
) -> None:
    table = "driver_id,name,phone\nd1,Dora,\nnino,Nino,+39 055 7\n"
    tried = await http.post("/drivers/import?dry_run=true", content=table, headers=CSV)
    assert (tried.json()["created"], tried.json()["secrets"]) == (["nino"], [])
    assert (await http.get("/drivers/nino")).status_code == 404

    done = await http.post("/drivers/import", content=table, headers=CSV)
    assert (done.json()["created"], done.json()["changed"]) == (["nino"], ["d1"])
    [secret] = done.json()["secrets"]
    phone = {"Authorization": f"Bearer {secret['token']}"}
    assert (await driver_api.get("/drivers/nino", headers=phone)).status_code == 200
    assert (await http.get("/drivers/d1")).json()["name"] == "Dora"


async def test_import__one_bad_row__names_line_and_field_and_writes_nothing(
    http: httpx.AsyncClient,
) -> None:
    table = "name,lat_deg,lon_deg,preparation_s\nA,60.1,24.9,\nB,60.1,,\nC,95,24.9,-3\n"
    refused = await http.post("/restaurants/import", content=table, headers=CSV)
    assert refused.status_code == 422
    found = [(one["line"], one["field"]) for one in refused.json()["errors"]]
    assert found == [(3, "lon_deg"), (4, "lat_deg"), (4, "preparation_s")]
    assert len((await http.get("/restaurants")).json()["restaurants"]) == 1


async def test_import__a_row_that_the_database_refuses__is_named_and_nothing_is_written(
    http: httpx.AsyncClient,
) -> None:
    table = "name,west,south,east,north\na,1,1,2,2\nb,1,9,2,2\n"
    refused = await http.post("/service-areas/import", content=table, headers=CSV)
    assert refused.status_code == 422
    assert [one["line"] for one in refused.json()["errors"]] == [3]
    assert (await http.get("/service-areas/a")).status_code == 404


async def test_import__of_other_types_and_too_large__is_refused(http: httpx.AsyncClient) -> None:
    as_json = await http.post("/drivers/import", content="x", headers={"Content-Type": "text/x"})
    assert as_json.status_code == 415
    large = await http.post("/drivers/import", content=b"x" * 600_000, headers=CSV)
    assert large.status_code == 413
    many = "name,lat_deg,lon_deg\n" + "A,1,1\n" * 1_001
    refused = await http.post("/restaurants/import", content=many, headers=CSV)
    assert refused.json()["errors"][0]["reason"] == "too_many_rows"


async def test_import__a_thousand_drivers__is_one_answer(http: httpx.AsyncClient) -> None:
    table = "driver_id,name\n" + "".join(f"r{n},Rider {n}\n" for n in range(1_000))
    done = await http.post("/drivers/import", content=table, headers=CSV)
    assert done.status_code == 200, done.text
    assert len(done.json()["secrets"]) == 1_000
    first = await http.get("/drivers?limit=600")
    second = await http.get(first.headers["link"].split(">")[0].lstrip("<"))
    ids = [one["driver_id"] for page in (first, second) for one in page.json()["drivers"]]
    assert ids == sorted(["d1", "d2", "d3", *(f"r{n}" for n in range(1_000))])
    assert second.json()["next_cursor"] is None


@pytest.mark.parametrize("cursor", ["x", "W10", "WyJhIiwgMV0", "bnVsbA"])
async def test_list__of_a_forged_cursor__is_422(http: httpx.AsyncClient, cursor: str) -> None:
    answer = await http.get(f"/restaurants?cursor={cursor}")
    assert (answer.status_code, answer.json()["reason"]) == (422, "bad_cursor")


@pytest.mark.parametrize("role", ["viewer", "dispatcher"])
async def test_change__by_staff_who_are_no_admins__is_forbidden(
    http: httpx.AsyncClient, role: str
) -> None:
    headers = await as_role(http, role)
    for method, path in (
        *(("POST", f"/{kind}") for kind in ("drivers", "restaurants", "service-areas")),
        *(("PATCH", path) for path in ("/drivers/d1", "/restaurants/1", "/policies/1")),
        *(("POST", f"/{path}/retire") for path in ("drivers/d1", "restaurants/1", "policies/1")),
        *(("GET", f"/{kind}.csv") for kind in ("drivers", "restaurants", "policies")),
        *(("POST", f"/{kind}/import") for kind in ("drivers", "restaurants", "policies")),
        ("POST", "/policies/1/default"),
    ):
        answer = await http.request(method, path, headers=headers)
        assert answer.status_code == 403, (method, path)
    for kind in ("restaurants", "service-areas", "policies"):
        assert (await http.get(f"/{kind}", headers=headers)).status_code == 200
