"""What the browser tests look at, and how long they wait for it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.async_api import ConsoleMessage, Page

PROJECT = Path(__file__).resolve().parents[2]
AXE = PROJECT / "web/node_modules/axe-core/axe.min.js"
CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
]
PATIENCE_S = 60
LOOK_EVERY_S = 0.1

PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1280, "height": 800}


async def seen(look: Callable[[], Awaitable[Any]]) -> Any:
    """Look until there is something to see. None if there never was."""
    for _ in range(round(PATIENCE_S / LOOK_EVERY_S)):
        if found := await look():
            return found
        await asyncio.sleep(LOOK_EVERY_S)
    return None


async def says(page: Page, selector: str, text: str) -> str | None:
    """Wait until an element's text holds `text`."""

    async def look() -> str | None:
        found = await page.text_content(selector) or ""
        return found if text in found else None

    found: str | None = await seen(look)
    return found


async def drawn(page: Page, layer: str) -> int:
    """How many features of a layer are on the map."""
    count = "(layer) => globalThis.doorstepMap?.getLayer(layer) ? " \
        "doorstepMap.queryRenderedFeatures({ layers: [layer] }).length : 0"  # fmt: skip
    found: int = await page.evaluate(count, layer)
    return found


def watch(page: Page) -> list[str]:
    """Collect what must not happen: errors, warnings, and requests to anybody else."""
    bad: list[str] = []
    page.on("pageerror", lambda error: bad.append(f"error: {error}"))

    def listen(line: ConsoleMessage) -> None:
        if line.type in ("error", "warning") and "GL Driver Message" not in line.text:
            bad.append(line.text)

    page.on("console", listen)

    def look(address: str) -> None:
        if urlsplit(address).hostname not in ("127.0.0.1", None):
            bad.append(f"request to {address}")

    page.on("request", lambda request: look(request.url))
    return bad


async def barriers(page: Page) -> list[str]:
    """What axe-core finds serious or critical on a page: `rule: selector, selector`.

    The map's canvas is left to itself: what is drawn there is told in words beside it.
    """
    await page.evaluate(AXE.read_text(encoding="utf-8"))
    found = await page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    assert found["passes"], "axe-core looked at nothing"
    return [
        f"{one['id']}: " + ", ".join(re.sub(r"\s+", " ", str(n["target"][0])) for n in one["nodes"])
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
    ]
