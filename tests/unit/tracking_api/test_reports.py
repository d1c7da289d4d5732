"""A day's report over HTTP, and the kilometres of a way. Replaces the database."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta

import pytest

from data import BUNDLED_CITY
from doorstep.geo import offset
from tests.unit.tracking_api.memory_store import STAFF
from tracking_api.reports import routes
from tracking_api.reports.distance import STEP_S, travelled_m
from tracking_api.reports.schemas import DayReport

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
HOME = (11.25, 43.77)
PATH = "/reports/days/2026-03-10"
VIEWER = {"Authorization": "Bearer tok-viewer"}
KM_OF_TEN_STEPS = 1.11  # ten times 0.001 degrees of latitude


def way(*metres_north: float, every_s: float = STEP_S):
    """Places so many metres north of home, one every `every_s`."""
    return [
        (NOON + n * timedelta(seconds=every_s), *offset(HOME, 0, north_m))
        for n, north_m in enumerate(metres_north)
    ]


@pytest.mark.parametrize(
    ("metres_north", "total_m"),
    [
        ((), 0),
        ((0,), 0),
        ((0, 100, 200, 100), 300),
        ((0, 10, -10, 15, 0, 12), 0),  # noise at rest
        ((0, 20, 40, 60), 40),  # a slow walk: 40 m, and 20 m that do not count yet
        ((0, 5000, 5100), 100),  # 250 m/s is a jump
    ],
)
def test_travelled_m__of_a_way__counts_movements_only(metres_north, total_m):
    assert travelled_m(way(*metres_north)) == pytest.approx(total_m, abs=0.1)


async def get(client, address=PATH, headers=VIEWER, **query):
    return await client.get(address, params={"city": BUNDLED_CITY, **query}, headers=headers)


async def test_report__of_a_day__is_the_document_that_is_described(http):
    answer = await get(http)
    assert answer.status_code == 200, answer.text
    report = DayReport.model_validate_json(answer.content)
    assert report.model_dump(mode="json") == answer.json()
    assert [one.name for one in report.restaurants] == ["=Da Mario"]
    assert (report.total.promise.delivered, report.total.promise.late) == (1, 1)
    assert [(one.driver_id, one.distance_km) for one in report.drivers] == [
        ("d1", KM_OF_TEN_STEPS),
        ("d2", KM_OF_TEN_STEPS),
    ]


@pytest.mark.parametrize("count", [0, 1, 10, 11, 25])
async def test_report__of_many_drivers__has_each_of_them_once(http, store, count):
    store.report_drivers = [f"d{n}" for n in range(count)]
    found = [one["driver_id"] for one in (await get(http)).json()["drivers"]]
    assert found == store.report_drivers


async def test_report__of_more_drivers_than_it_shows__says_so(http, store, monkeypatch):
    monkeypatch.setattr(routes, "MAX_DRIVERS", 1)
    report = (await get(http)).json()
    assert ([one["driver_id"] for one in report["drivers"]], report["more_drivers"]) == (
        ["d1"],
        True,
    )
    lines = (await get(http, f"{PATH}.csv")).text.splitlines()
    assert lines[-1].startswith("more_drivers,")


async def test_csv__of_a_day__has_a_row_for_city_restaurant_reason_and_driver(http):
    answer = await get(http, f"{PATH}.csv")
    assert answer.headers["content-type"].startswith("text/csv")
    assert f'filename="{BUNDLED_CITY}-2026-03-10.csv"' in answer.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [one["kind"] for one in rows] == ["city", "restaurant", "failed", "driver", "driver"]
    assert {one["date"] for one in rows} == {"2026-03-10"}
    city, restaurant, reason, driver, _ = rows
    assert (city["late_max_s"], city["whole_p90_s"]) == ("300", "90.5")
    assert restaurant["name"] == "'=Da Mario"  # no formula in a spreadsheet
    assert (reason["by"], reason["reason"], reason["orders"]) == ("driver", "customer_absent", "2")
    assert (driver["id"], driver["orders"], driver["distance_km"]) == ("d1", "3", "1.11")


@pytest.mark.parametrize("suffix", ["", ".csv"])
async def test_report__without_a_good_request__is_refused(http, suffix):
    address = f"{PATH}{suffix}"
    assert (await get(http, address, {})).status_code == 401
    customer = {"Authorization": "Bearer tok-customer"}
    assert (await get(http, address, customer)).status_code == 403
    assert (await get(http, address, STAFF, city="atlantis")).status_code == 404
    assert (await get(http, address, STAFF, city="no city")).status_code == 422
    assert (await http.get(address, headers=STAFF)).status_code == 422
    for day in ("2026-13-01", "1999-12-31", "2101-01-01", "9999-12-31", "today"):
        assert (await get(http, f"/reports/days/{day}{suffix}", STAFF)).status_code == 422
