"""Take a screenshot of a page: `python -m tests.browser.screenshot ADDRESS FILE.png`.

For docs/images, with an address printed by `./run demo`. `--select` selects an order under way;
`--dark` and `--size 390x844` change the appearance.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from playwright.async_api import async_playwright

from tests.browser.page_checks import CHROMIUM, CHROMIUM_ARGUMENTS, eventually


async def take(address: str, file: Path, size: str, *, dark: bool, select: bool) -> None:
    """Open the page, wait until it is drawn, and save a screenshot."""
    width, height = (int(part) for part in size.split("x"))
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=CHROMIUM_ARGUMENTS
        )
        page = await browser.new_page(
            viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
        )
        await page.goto(address)
        assert await eventually(lambda: page.evaluate("globalThis.doorstepMap?.loaded()"))
        if select:
            await page.locator("#orders button").nth(12).click()
            await page.wait_for_selector("#timeline li", timeout=60_000)
        await page.wait_for_timeout(8000)  # tiles, glides and fonts
        await page.screenshot(path=file)
        await browser.close()


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("file", type=Path)
    parser.add_argument("--size", default="1280x800")
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--select", action="store_true")
    args = parser.parse_args()
    asyncio.run(take(args.address, args.file, args.size, dark=args.dark, select=args.select))


if __name__ == "__main__":
    main()
