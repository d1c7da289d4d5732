"""A second city on the pages: its map, and the menu of the fleet's page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from playwright.async_api import Page

from data import BUNDLED_CITY
from doorstep.provision import provision_city
from ops.cities.build import build_city
from tests.browser.conftest import City, OpenPage
from tests.browser.page_checks import collect_errors, eventually, rendered_features
from tests.osm_grid import write_osm


async def middle(page: Page) -> list[float]:
    """The map's centre, rounded; empty before the map is there."""
    found: list[float] = await page.evaluate(
        "globalThis.doorstepMap?.getCenter().toArray().map((one) => Math.round(one * 100) / 100)"
        " ?? []"
    )
    return found


async def has_streets(page: Page) -> bool:
    return await rendered_features(page, "roads_minor") > 0


async def test_pages__a_second_city__have_its_map_and_the_menu_changes_it(
    city: City, open_page: OpenPage, tmp_path: Path
) -> None:
    extract = write_osm(tmp_path / "grid.osm")
    cities_dir = city.stack.settings.cities_root
    made = build_city("gridville", extract, None, cities_dir, lambda _: None)
    with city.database() as conn:
        assert provision_city(conn, made) == 1
    errors: list[list[str]] = []

    async def requested(page: Page) -> Any:
        errors.append(collect_errors(page))

    staff_page = await open_page(f"/fleet?city=gridville#{city.staff_token}", before=requested)
    assert await eventually(lambda: middle(staff_page)) == [10.0, 50.0]
    assert await eventually(lambda: has_streets(staff_page))
    assert await staff_page.input_value("#city") == "gridville"
    await staff_page.select_option("#city", BUNDLED_CITY)
    assert await eventually(lambda: is_at(staff_page, [11.26, 43.77]))
    assert await eventually(lambda: has_streets(staff_page))

    [restaurant] = [
        one["restaurant_id"]
        for one in (await city.staff.get("/restaurants")).json()["restaurants"]
        if one["city"] == "gridville"
    ]
    order = await city.order(
        restaurant_id=restaurant, destination={"lon_deg": 10.0, "lat_deg": 50.0}
    )
    customer_page = await open_page(order["customer_link"], before=requested)
    assert await eventually(lambda: has_streets(customer_page))
    assert errors == [[], []]


async def is_at(page: Page, place: list[float]) -> bool:
    return await middle(page) == place
