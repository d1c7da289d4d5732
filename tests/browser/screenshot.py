"""A screenshot of a page as it stands: `python -m tests.browser.picture ADDRESS FILE.png`.

For docs/images: give it an address that `./run demo` has printed. `--choose` takes the first order
under way; `--dark` and `--size 390x844` look at it otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from playwright.async_api import async_playwright
from tests.browser.looking import ARGUMENTS, CHROMIUM, seen


async def take(address: str, file: Path, size: str, *, dark: bool, choose: bool) -> None:
    """Open the page, let it settle, and keep its picture."""
    width, height = (int(part) for part in size.split("x"))
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = await browser.new_page(
            viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
        )
        await page.goto(address)
        assert await seen(lambda: page.evaluate("globalThis.doorstepMap?.loaded()"))
        if choose:
            await page.locator("#group-under_way + ol button").nth(12).click()
            await page.evaluate("document.querySelector('#scroll').scrollTop = 0")
            await page.wait_for_selector("#detail dl", timeout=60_000)
        await page.wait_for_timeout(8000)  # tiles, glides and fonts
        await page.screenshot(path=file)
        await browser.close()


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("file", type=Path)
    parser.add_argument("--size", default="1280x800")
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--choose", action="store_true")
    args = parser.parse_args()
    asyncio.run(take(args.address, args.file, args.size, dark=args.dark, choose=args.choose))


if __name__ == "__main__":
    main()
