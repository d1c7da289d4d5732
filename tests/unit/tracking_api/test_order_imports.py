"""Orders from a CSV: what a row says, and which lines are refused."""

from __future__ import annotations

import pytest

from doorstep.errors import MalformedCsv
from tests.unit.tracking_api.memory_store import ORDER_ID, STAFF
from tests.unit.tracking_api.test_routes import problem_of
from tracking_api.orders.imports import read_orders

CSV = {**STAFF, "Content-Type": "text/csv"}
ROWS = (
    "external_id,restaurant_id,lon_deg,lat_deg,customer_name,customer_phone,promised_to,pin\r\n"
    "shop-1,1,11.26,43.78,Carla,+39 055 1234,2026-11-30T19:45:00Z,auto\r\n"
    "shop-2,1,11.27,43.79,old,,,\r\n"
)


def test_read_orders__a_row__is_an_order() -> None:
    first, second = read_orders(ROWS.encode())
    assert (first.line, first.external_id, first.new.pin) == (2, "shop-1", "auto")
    assert first.new.details()["promised_to"] == "2026-11-30T19:45:00Z"
    assert (second.new.destination.lon_deg, second.new.customer_phone) == (11.27, None)


def test_read_orders__any_pickup_place__is_one() -> None:
    header = "external_id;lon_deg;lat_deg;pickup_name;pickup_lon_deg;pickup_lat_deg"
    [row] = read_orders(f"{header}\nb-1;11.26;43.78;Bookshop;11.25;43.77\n".encode())
    assert row.new.pickup is not None
    assert (row.new.pickup.name, row.new.restaurant_id) == ("Bookshop", None)


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ("a,1,181,43.78,", "lon_deg"),
        ("a,1,,43.78,", "lon_deg"),
        ("a,x,11,43.78,", "restaurant_id"),
        ("a,1,11,43.78,12", "pin"),
        (",1,11,43.78,", "external_id"),
        ("a b,1,11,43.78,", "external_id"),
        ("a,,11,43.78,", None),
    ],
)
def test_read_orders__bad_cell__names_line_and_field(row: str, field: str | None) -> None:
    header = "external_id,restaurant_id,lon_deg,lat_deg,pin"
    with pytest.raises(MalformedCsv) as refused:
        read_orders(f"{header}\nok,1,11,43,\n{row}\n".encode())
    [error] = refused.value.errors
    assert (error["line"], error["field"]) == (3, field)


async def test_import__rows__answers_with_the_links_of_new_orders_only(http, store) -> None:
    answer = await http.post("/orders/import", content=ROWS, headers=CSV)
    body = answer.json()
    assert (answer.status_code, body["created"], body["unchanged"]) == (200, 1, 1)
    [order] = body["orders"]
    assert (order["external_id"], order["order_id"]) == ("shop-1", str(ORDER_ID))
    assert order["customer_link"].partition("#")[2].startswith("cst_")
    dry = (await http.post("/orders/import?dry_run=true", content=ROWS, headers=CSV)).json()
    assert (dry["created"], dry["orders"]) == (1, [])


async def test_import__json_or_a_customers_token__is_refused(http, store) -> None:
    answer = await http.post("/orders/import", json={}, headers=STAFF)
    problem_of(answer, 415, "unsupported-body")
    customer = {**CSV, "Authorization": "Bearer tok-customer"}
    problem_of(await http.post("/orders/import", content=ROWS, headers=customer), 403, "forbidden")
    assert store.imported == []
