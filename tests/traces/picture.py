"""`python -m tests.traces.picture > docs/images/real-traces.svg`: three labels on two van runs."""

from __future__ import annotations

import sys
from html import escape

from bench.recordings.labels import LABELS, Label
from bench.recordings.places import place_of
from bench.recordings.traces import FLORENCE, Place, moved, read_trace
from doorstep.geo import M_PER_DEG

GREEN, ORANGE, RED, INK, GREY = "#2a9d5c", "#e08a00", "#c8432b", "#33383f", "#aab0b8"
WIDTH, HEIGHT, MARGIN = 480, 430, 62
COARSE_M = 10.0  # resolution of the drawn tracks
RADIUS_M = 60.0
TWICE = "a van passes at 6 m/s, turns, and passes again 35 s later; without speeds"
PANELS = (
    ("goal/711", {"a van passes at 10 m/s": "passed at 10 m/s: nothing"}),
    ("goal/372", {TWICE: "passed twice, no speeds: taken for a stop"}),
)

Point = tuple[float, float]


class Panel:
    """One run, with its places as circles of 60 m."""

    def __init__(self, trace: str, left: float) -> None:
        self.trace = read_trace(trace)
        points = [self._metres(fix.place) for fix in self.trace.fixes]
        west, south = min(x for x, _ in points), min(y for _, y in points)
        east, north = max(x for x, _ in points), max(y for _, y in points)
        self.scale = min(
            (WIDTH - 2 * MARGIN) / (east - west), (HEIGHT - 2 * MARGIN - 30) / (north - south)
        )
        self._west, self._north, self._left = west, north, left
        self.points = points

    @staticmethod
    def _metres(place: Place) -> Point:
        unit = moved(FLORENCE, 1000, 0)
        east = (place.lon_deg - FLORENCE.lon_deg) / (unit.lon_deg - FLORENCE.lon_deg) * 1000
        return east, (place.lat_deg - FLORENCE.lat_deg) * M_PER_DEG

    def at(self, point: Point) -> Point:
        x, y = point
        return (
            self._left + MARGIN + (x - self._west) * self.scale,
            MARGIN + 30 + (self._north - y) * self.scale,
        )

    def draw(self, title: str, labels: dict[str, str]) -> list[str]:
        line = " ".join(f"{x:.0f},{y:.0f}" for x, y in map(self.at, thinned(self.points)))
        parts = [
            f'<polyline points="{line}" fill="none" stroke="{GREY}" stroke-width="2.5"/>',
            text(self._left + 20, 28, title, INK, 15),
        ]
        way = next(one for one in LABELS if one.trace == self.trace.name and one.missed == {})
        parts += self._circle(
            way, "restaurant", f"at_restaurant {clock(way, 'at_restaurant')}", GREEN
        )
        parts += self._circle(way, "customer", f"at_customer {clock(way, 'at_customer')}", GREEN)
        for name, caption in labels.items():
            label = next(one for one in LABELS if one.name == name)
            parts += self._circle(
                label, "restaurant", caption, RED if label.false_arrivals else ORANGE
            )
        return parts

    def _circle(self, label: Label, which: str, caption: str, colour: str) -> list[str]:
        x, y = self.at(self._metres(place_of(self.trace, getattr(label, which))))
        radius = RADIUS_M * self.scale
        right = x > self._left + WIDTH * 0.55
        return [
            f'<circle cx="{x:.0f}" cy="{y:.0f}" r="{radius:.0f}" fill="{colour}" '
            f'fill-opacity="0.15" stroke="{colour}" stroke-width="2"/>',
            f'<circle cx="{x:.0f}" cy="{y:.0f}" r="4" fill="{colour}"/>',
            text(
                x + (radius if right else -radius),
                y + radius + 16 if which == "restaurant" and not label.passed else y - radius - 6,
                caption,
                colour,
                13,
                "end" if right else "start",
            ),
        ]

    def scale_bar(self) -> list[str]:
        x, y, length = self._left + 20, HEIGHT - 18, 100 * self.scale
        return [
            f'<path d="M{x:.0f} {y} h{length:.0f}" stroke="{INK}" stroke-width="2"/>',
            text(x + length + 8, y + 4, "100 m", INK, 12),
        ]


def thinned(points: list[Point]) -> list[Point]:
    """Leave out points nearer than 10 m to the last one kept."""
    kept = points[:1]
    for x, y in points[1:]:
        if abs(x - kept[-1][0]) + abs(y - kept[-1][1]) >= COARSE_M:
            kept.append((round(x / COARSE_M) * COARSE_M, round(y / COARSE_M) * COARSE_M))
    return kept


def clock(label: Label, state: str) -> str:
    """Format the labelled window in minutes and seconds."""
    return "-".join(f"{int(at) // 60}:{int(at) % 60:02}" for at in label.expected[state])


def text(x: float, y: float, caption: str, colour: str, size: int, anchor: str = "start") -> str:
    """Return a line of text."""
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" fill="{colour}" font-size="{size}" '
        f'text-anchor="{anchor}" font-weight="600">{escape(caption)}</text>'
    )


def main() -> int:
    """Print the picture."""
    print(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * WIDTH} {HEIGHT}" '
        f'font-family="system-ui, sans-serif"><rect width="{2 * WIDTH}" height="{HEIGHT}" '
        f'fill="#fff"/>'
    )
    for number, (trace, labels) in enumerate(PANELS):
        panel = Panel(trace, number * WIDTH)
        print("\n".join([*panel.draw(f"van run {trace[5:]}", labels), *panel.scale_bar()]))
    print("</svg>")
    return 0


if __name__ == "__main__":
    sys.exit(main())
