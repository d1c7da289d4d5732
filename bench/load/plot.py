"""Plot a report as SVG: rate, backlog and latency over time, and CPU time per fix."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from bench.load.report import PARTS
from bench.load.run import Measurement

WIDTH, HEIGHT = 960, 200
LEFT, TOP = 70, 28
PLOT_WIDTH = WIDTH - LEFT - 170
COLOURS = ("#1b6ca8", "#d1495b", "#2e8b57", "#8d6a9f", "#e0a030", "#30a0a0", "#666666")

Line = tuple[str, Sequence[tuple[float, float]]]
"""A name and its points, (seconds since the start, value)."""


def draw(report: Mapping[str, Any], measured: Measurement) -> str:
    """Draw the plot."""
    began_s = measured.all_samples[0].at_s
    title = (
        f"{report['devices']:,} devices, {report['rate_per_s']:,.0f} fixes/s, "
        f"{report['fixes']['lost']:,} lost, {report['cpu_us_per_fix']['total']:.1f} µs a fix"
    )
    plots = [
        plot(0, "fixes per second", _rates(measured, began_s)),
        plot(1, "fixes in flight", _backlogs(measured, began_s)),
        plot(2, "latency since due, ms", _latencies(measured, began_s)),
        bars(3, "CPU per fix, µs", {part: report["cpu_us_per_fix"][part] for part in PARTS}),
    ]
    height = 40 + len(plots) * HEIGHT
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="sans-serif" font-size="12" fill="#222">\n'
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>\n'
        f'<text x="{LEFT}" y="24" font-size="16">{escape(title)}</text>\n'
        + "\n".join(plots)
        + "\n</svg>\n"
    )


def _rates(measured: Measurement, began_s: float) -> list[Line]:
    samples = measured.all_samples
    published = [
        (now.at_s - began_s, (now.published - before.published) / (now.at_s - before.at_s))
        for before, now in itertools.pairwise(samples)
        if now.at_s > before.at_s
    ]
    committed = [
        (second + 0.5 - began_s, float(fixes))
        for second, fixes in sorted(measured.commit_latency.committed_by_second.items())
    ]
    return [("published", published), ("committed", committed)]


def _backlogs(measured: Measurement, began_s: float) -> list[Line]:
    names: dict[str, Callable[[Any], float]] = {
        "in the brokers": lambda one: one.at_broker,
        "in the bridge": lambda one: one.at_bridge,
        "in Kafka": lambda one: one.in_kafka,
    }
    return [
        (name, [(one.at_s - began_s, value(one)) for one in measured.all_samples])
        for name, value in names.items()
    ]


def _latencies(measured: Measurement, began_s: float) -> list[Line]:
    by_second = sorted(measured.commit_latency.by_second.items())
    lines: list[Line] = [
        (
            f"commit {name}",
            [(second + 0.5 - began_s, one.percentile(share) or 0.0) for second, one in by_second],
        )
        for name, share in (("p50", 0.5), ("p99", 0.99))
    ]
    pubacks = [
        (one.at_s - began_s, one.puback_p99_ms)
        for one in measured.all_samples
        if one.puback_p99_ms is not None
    ]
    return [*lines, ("PUBACK p99", pubacks)]


def plot(row: int, title: str, lines: Sequence[Line]) -> str:
    """A line chart over time, from 0 on."""
    points = [point for _name, line in lines for point in line]
    most_x = max((x for x, _y in points), default=1.0) or 1.0
    most_y = max((y for _x, y in points), default=1.0) or 1.0
    top, plot_height = 40 + row * HEIGHT + TOP, HEIGHT - 60
    parts = [_frame(top, plot_height, title, most_y)]
    parts.append(_text(LEFT + PLOT_WIDTH, top + plot_height + 16, f"{most_x:.0f} s", "end"))
    for number, (name, line) in enumerate(lines):
        colour = COLOURS[number]
        path = " ".join(
            f"{LEFT + x / most_x * PLOT_WIDTH:.1f},{top + plot_height * (1 - y / most_y):.1f}"
            for x, y in line
            if x >= 0
        )
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
        )
        parts.append(_legend(top, number, name, colour))
    return "\n".join(parts)


def bars(row: int, title: str, values: Mapping[str, float]) -> str:
    """A bar chart."""
    maximum = max(values.values(), default=1.0) or 1.0
    top, plot_height = 40 + row * HEIGHT + TOP, HEIGHT - 60
    parts = [_frame(top, plot_height, title, maximum)]
    step = PLOT_WIDTH / max(1, len(values))
    for number, (name, value) in enumerate(values.items()):
        x, tall = LEFT + number * step, plot_height * value / maximum
        parts.append(
            f'<rect x="{x + 8:.1f}" y="{top + plot_height - tall:.1f}" width="{step - 16:.1f}" '
            f'height="{tall:.1f}" fill="{COLOURS[number % len(COLOURS)]}"/>'
        )
        parts.append(_text(x + step / 2, top + plot_height + 16, name, "middle"))
        parts.append(_text(x + step / 2, top + plot_height - tall - 4, f"{value:.1f}", "middle"))
    return "\n".join(parts)


def _frame(top: float, plot_height: float, title: str, maximum: float) -> str:
    bottom = top + plot_height
    return "\n".join(
        (
            f'<text x="{LEFT}" y="{top - 12}" font-weight="bold">{escape(title)}</text>',
            f'<path d="M{LEFT},{top} V{bottom} H{LEFT + PLOT_WIDTH}" fill="none" stroke="#999"/>',
            _text(LEFT - 6, top + 5, f"{maximum:,.0f}", "end"),
            _text(LEFT - 6, bottom, "0", "end"),
        )
    )


def _legend(top: float, number: int, name: str, colour: str) -> str:
    x, y = LEFT + PLOT_WIDTH + 16, top + 14 + 18 * number
    swatch = f'<rect x="{x}" y="{y - 9}" width="10" height="10" fill="{colour}"/>'
    return swatch + f'<text x="{x + 16}" y="{y}">{escape(name)}</text>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
