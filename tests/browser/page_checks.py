"""Helpers of the browser tests: waiting, reading the map, errors, accessibility."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from playwright.async_api import ConsoleMessage, Page

PROJECT = Path(__file__).resolve().parents[2]
AXE = PROJECT / "web/node_modules/axe-core/axe.min.js"
CHROMIUM = Path("/usr/bin/chromium")
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
]
Theme = Literal["light", "dark"]
# Text in a box that scrolls, and what only screen readers read, is left out.
OVERFLOWING = """() => {
  const scrolls = (element) => {
    for (let at = element; at && at !== document.body; at = at.parentElement) {
      const { overflowX, overflowY } = getComputedStyle(at);
      if (at.matches(".visually-hidden, canvas, details:not([open])")) return true;
      if (/auto|scroll/.test(overflowX + overflowY)) return true;
    }
    return false;
  };
  const isText = (node) => node.nodeType === Node.TEXT_NODE && node.data.trim();
  const found = [];
  for (const element of document.body.querySelectorAll("*")) {
    const texts = [...element.childNodes].filter(isText);
    const isSeen = texts.length && element.checkVisibility({ visibilityProperty: true });
    if (!isSeen || scrolls(element)) continue;
    const box = element.getBoundingClientRect();
    for (const text of texts) {
      const range = document.createRange();
      range.selectNodeContents(text);
      const { left, right, width } = range.getBoundingClientRect();
      if (width === 0) continue;
      const most = Math.min(innerWidth, box.right) + 1;
      if (right <= most && left >= Math.max(0, box.left) - 1) continue;
      found.push(`${element.tagName}#${element.id}.${element.className}: ${text.data.trim()}`);
    }
  }
  return found;
}"""
TABS = 8  # six connections to one server over HTTP/1.1
TIMEOUT_S = 120  # of one wait: two pages that draw maps fill two cores
POLL_S = 0.1

PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1280, "height": 800}


async def eventually(poll: Callable[[], Awaitable[Any]]) -> Any:
    """Poll until the result is truthy, and return it. None after the timeout."""
    for _ in range(round(TIMEOUT_S / POLL_S)):
        if found := await poll():
            return found
        await asyncio.sleep(POLL_S)
    return None


async def wait_for_text(page: Page, selector: str, text: str) -> str | None:
    """Wait until an element's text contains `text`."""

    async def poll() -> str | None:
        found = await page.text_content(selector) or ""
        return found if text in found else None

    found: str | None = await eventually(poll)
    return found


async def rendered_features(page: Page, layer: str) -> int:
    """The number of rendered features of a map layer; 0 while the map has no style."""
    count = "(layer) => globalThis.doorstepMap?.style?.getLayer(layer) ? " \
        "doorstepMap.queryRenderedFeatures({ layers: [layer] }).length : 0"  # fmt: skip
    found: int = await page.evaluate(count, layer)
    return found


def collect_errors(page: Page) -> list[str]:
    """Collect errors, warnings, and requests to other hosts."""
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(f"error: {error}"))

    def listen(line: ConsoleMessage) -> None:
        if line.type in ("error", "warning") and "GL Driver Message" not in line.text:
            errors.append(line.text)

    page.on("console", listen)

    def poll(address: str) -> None:
        if urlsplit(address).hostname not in ("127.0.0.1", None):
            errors.append(f"request to {address}")

    page.on("request", lambda request: poll(request.url))
    return errors


async def more_tabs_than_connections(page: Page) -> list[Page]:
    """Open a page's address in further tabs of its browser; return all of them."""
    pages = [page]
    for _ in range(TABS - 1):
        another = await page.context.new_page()
        await another.goto(page.url)
        pages.append(another)
    return pages


async def accessibility_violations(page: Page) -> list[str]:
    """The findings of axe-core in both themes: `dark rule: selector`.

    The map's canvas is excluded: its content is available as text beside it.
    """
    is_dark = await page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    own: Theme = "dark" if is_dark else "light"
    other: Theme = "light" if is_dark else "dark"
    found = await violations_in(page, own)
    await page.emulate_media(color_scheme=other)
    found += await violations_in(page, other)
    await page.emulate_media(color_scheme=own)
    return found


async def overflowing_texts(page: Page) -> list[str]:
    """The texts that leave the window, or the element that they are in: `#id.class: the text`."""
    found: list[str] = await page.evaluate(OVERFLOWING)
    return found


async def violations_in(page: Page, theme: Theme) -> list[str]:
    """The findings of axe-core in the present theme, which `theme` names."""
    if not await page.evaluate("Boolean(globalThis.axe)"):
        await page.evaluate(AXE.read_text(encoding="utf-8"))
    found = await page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    assert found["passes"], "axe-core checked nothing"
    return [
        f"{theme} {one['id']}: "
        + ", ".join(re.sub(r"\s+", " ", str(n["target"][0])) for n in one["nodes"])
        for one in found["violations"]
    ]
