"""The symbols of the drivers' states on the fleet's page, for every colour vision."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

from tests.browser.conftest import City, OpenPage
from tests.browser.page_checks import eventually
from tests.browser.test_fleet import fleet_value
from tests.integration.http_services import RESTAURANT, north_of

# Simulation of colour vision deficiencies, on linear RGB (Machado, Oliveira and Fernandes 2009).
DEFICIENCIES = {
    "none": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deuteranopia": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
    "tritanopia": (
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ),
}
SYMBOLS = """() => [...document.querySelectorAll("#states canvas")].map((canvas) => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const counts = new Map();
  for (let at = 0; at < data.length; at += 4) {
    if (data[at + 3] < 255) continue;
    const colour = `${data[at]},${data[at + 1]},${data[at + 2]}`;
    if (colour !== "255,255,255") counts.set(colour, (counts.get(colour) ?? 0) + 1);
  }
  const [fill] = [...counts].sort((a, b) => b[1] - a[1])[0];
  const [red, green, blue] = fill.split(",").map(Number);
  let image = ""; // which pixels have the fill colour: the shape without the letter
  for (let at = 0; at < data.length; at += 4) {
    image += data[at] === red && data[at + 1] === green && data[at + 2] === blue ? "1" : "0";
  }
  return { fill: [red, green, blue], image };
})"""


def dot(row: Sequence[float], vector: Sequence[float]) -> float:
    return sum(one * other for one, other in zip(row, vector, strict=True))


def lab(rgb: Sequence[float], matrix: Sequence[Sequence[float]]) -> list[float]:
    """CIE L*a*b* (D65) of an sRGB colour as seen with a colour vision deficiency."""
    linear = [
        (one / 255 / 12.92) if one <= 10.3 else ((one / 255 + 0.055) / 1.055) ** 2.4 for one in rgb
    ]
    seen = [min(1.0, max(0.0, dot(row, linear))) for row in matrix]
    x, y, z = (
        dot(row, seen) / white
        for row, white in (
            ((0.4124, 0.3576, 0.1805), 0.9505),
            ((0.2126, 0.7152, 0.0722), 1.0),
            ((0.0193, 0.1192, 0.9505), 1.089),
        )
    )
    fx, fy, fz = (one ** (1 / 3) if one > 0.008856 else 7.787 * one + 16 / 116 for one in (x, y, z))
    return [116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)]


async def test_fleet__states__differ_in_colour_for_every_colour_vision_and_in_symbol(
    city: City, open_page: OpenPage, screenshots: Path
) -> None:
    for n, shift in enumerate((100, 250, 400)):
        await city.driver(f"d{n}", north_of(RESTAURANT, shift))
    await city.order(driver_id="d0")
    delivery = await city.order(driver_id="d1")
    await city.phone("d1", f"orders/{delivery['order_id']}/picked-up")
    page = await open_page(f"/fleet#{city.staff_token}")
    assert await eventually(lambda: fleet_value(page, "drawn")) == 3
    symbols = await page.evaluate(SYMBOLS)
    assert len(symbols) == 8  # with the one of those on the way back
    assert len({one["image"] for one in symbols}) == 8  # shape and letter, without the colour
    for name, matrix in DEFICIENCIES.items():
        for one, other in itertools.combinations(symbols, 2):
            apart = math.dist(lab(one["fill"], matrix), lab(other["fill"], matrix))
            assert apart > 12, (name, one["fill"], other["fill"])
    await page.screenshot(path=screenshots / "fleet-states.png")
