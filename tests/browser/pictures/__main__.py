"""Draw the contact sheets: `python -m tests.browser.pictures [PAGE …]`; all pages by default."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable

from ops.stack.stack import Stack
from tests.browser.conftest import City, opened_pages, running_chromium, running_stack
from tests.browser.pictures.admin_pages import picture_admin, picture_observe, picture_series
from tests.browser.pictures.customer_page import picture_customer
from tests.browser.pictures.device_pages import picture_drive, picture_join
from tests.browser.pictures.staff_pages import (
    picture_dispatch,
    picture_reports,
    picture_restaurant,
    picture_sign_in,
)
from tests.browser.pictures.studio import Studio

PAGES: dict[str, Callable[[Studio], Awaitable[None]]] = {
    "customer": picture_customer,
    "dispatch": picture_dispatch,
    "restaurant": picture_restaurant,
    "drive": picture_drive,
    "join": picture_join,
    "admin": picture_admin,
    "observe": picture_observe,
    "series": picture_series,
    "reports": picture_reports,
    "sign-in": picture_sign_in,
}


async def draw(stack: Stack, names: list[str]) -> list[str]:
    """Draw the sheets of some pages, each in an empty city. Returns the states' faults."""
    city = City(stack)
    faults: list[str] = []
    async with running_chromium() as browser:
        for name in names:
            city.clear()
            async with opened_pages(browser, city.url) as open_page:
                studio = Studio(city, open_page)
                await PAGES[name](studio)
            for file, size in studio.save(name):
                print(f"{file.name}: {size / 1000:.0f} kB", flush=True)
            faults += [f"{name}, {one}" for one in studio.faults]
    await city.close()
    return faults


def main() -> int:
    """Run the command. 1 if axe finds a fault, or a text overflows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pages", nargs="*", metavar="PAGE", help=", ".join(PAGES))
    names = parser.parse_args().pages or list(PAGES)
    with running_stack() as stack:
        faults = asyncio.run(draw(stack, names))
    for one in faults:
        print(one)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
