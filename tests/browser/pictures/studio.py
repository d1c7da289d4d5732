"""Pictures of a page's states in all sizes, themes and languages, and their sheets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from playwright.async_api import Page

from tests.browser.conftest import City, OpenPage
from tests.browser.page_checks import DESKTOP, PHONE, PROJECT, Theme
from tests.browser.pictures.sheet import Cell, save_sheet

FOLDER = PROJECT / "docs/images/pages"
SIZES = {"phone": PHONE, "desktop": DESKTOP}
LAYOUTS = {"phone": (210, 8), "desktop": (400, 4), "vision": (600, 2)}  # width, columns
LANGUAGES = {"en": "en-GB", "it": "it-IT"}
THEMES: tuple[Theme, ...] = ("light", "dark")
MAX_SCREENS = 1.35  # of a long page the top is shown
ZONE = "Europe/Rome"
SETTLE_MS = 300  # fonts
# Resolves when the map is drawn in the theme of the page; a map that always changes never is.
MAP_IS_DRAWN = """() => globalThis.doorstepMap?.style && Promise.race([
  new Promise((resolve) => {
    doorstepMap.once("idle", resolve);
    doorstepMap.triggerRepaint();
  }),
  new Promise((resolve) => setTimeout(resolve, 30_000)),
])"""

Opening = Callable[..., Awaitable[Page]]


class Studio:
    """Collects the pictures of one page after the other."""

    def __init__(self, city: City, open_page: OpenPage) -> None:
        self.city = city
        self.open_page = open_page
        self._cells: dict[str, list[Cell]] = defaultdict(list)  # by sheet

    async def take(
        self,
        state: str,
        opening: Opening,
        *,
        sizes: tuple[str, ...] = ("phone", "desktop"),
        languages: tuple[str, ...] = ("en", "it"),
    ) -> None:
        """Picture a state in each size, theme and language.

        `opening(locale=…, timezone_id=…, size=…)` opens the page in that state.
        """
        for language in languages:
            options: dict[str, Any] = {"locale": LANGUAGES[language], "timezone_id": ZONE}
            page = await opening(size=SIZES[sizes[0]], **options)
            for size in sizes:
                for theme in self._themes(size, language, languages):
                    caption = f"{state} · {language} {theme}"
                    png = await self._picture(page, SIZES[size], theme)
                    sheet = f"phone-{language}" if size == "phone" else size
                    self._cells[sheet].append(Cell(caption, png))
            await page.context.close()
            print(f"{state}, {language}", flush=True)

    @staticmethod
    def _themes(size: str, language: str, languages: tuple[str, ...]) -> tuple[Theme, ...]:
        """A desktop's page differs little from language to language: each has one theme there."""
        if size == "desktop" and len(languages) > 1:
            return ("light",) if language == "en" else ("dark",)
        return THEMES

    async def _picture(self, page: Page, size: dict[str, int], theme: Theme) -> bytes:
        width, height = size["width"], size["height"]
        await page.set_viewport_size({"width": width, "height": height})
        await page.emulate_media(color_scheme=theme)
        await page.wait_for_timeout(SETTLE_MS)
        await page.evaluate(MAP_IS_DRAWN)
        await page.wait_for_timeout(SETTLE_MS)
        whole = await page.evaluate("document.documentElement.scrollHeight")
        clip = {"x": 0, "y": 0, "width": width, "height": min(whole, height * MAX_SCREENS)}
        return await page.screenshot(full_page=True, clip=clip)

    def add(self, sheet: str, caption: str, png: bytes) -> None:
        """Add a picture that is taken otherwise."""
        self._cells[sheet].append(Cell(caption, png))

    def save(self, name: str) -> list[tuple[Path, int]]:
        """Save the sheets of the page, and begin the next page."""
        saved = []
        for sheet, cells in self._cells.items():
            file = FOLDER / f"{name}-{sheet}.webp"
            width, columns = LAYOUTS[sheet.partition("-")[0]]
            saved.append((file, save_sheet(cells, file, width=width, columns=columns)))
        self._cells.clear()
        return saved
