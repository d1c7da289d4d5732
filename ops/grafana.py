"""Grafana's files: `python -m ops.grafana` writes each dashboard to grafana/dashboards/.

The panels are those of tracking_api.observe.dashboards. Needs grafana-foundation-sdk.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from grafana_foundation_sdk.builders import dashboard, prometheus, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DataSourceRef

from ops.stack.settings import PROJECT
from tracking_api.observe.dashboards import DASHBOARDS, Dashboard, Panel

FOLDER = PROJECT / "grafana" / "dashboards"
SOURCE = DataSourceRef(type_val="prometheus", uid="prometheus")  # grafana/provisioning
WIDTH, HEIGHT = 12, 8
UNITS = {
    "per second": "cps",
    "seconds": "s",
    "bytes": "bytes",
    "bytes per second": "Bps",
    "count": "short",
    "share": "percentunit",
}


def render(board: Dashboard) -> str:
    """Return a dashboard as Grafana's JSON."""
    builder = (
        dashboard.Dashboard(f"Doorstep: {board.title}")
        .uid(f"doorstep-{board.dashboard_id}")
        .tags(["doorstep"])
        .refresh("10s")
        .time("now-1h", "now")
        .timezone("browser")
        .readonly()
    )
    for panel in board.panels:
        builder.with_panel(_panel(panel))
    return JSONEncoder(sort_keys=True, indent=1).encode(builder.build()) + "\n"


def files() -> Iterator[tuple[Path, str]]:
    """Return the path and content of each file."""
    for board in DASHBOARDS:
        yield FOLDER / f"{board.dashboard_id}.json", render(board)


def _panel(panel: Panel) -> timeseries.Panel:
    drawn = (
        timeseries.Panel()
        .title(panel.title)
        .description(panel.note)
        .datasource(SOURCE)
        .unit(UNITS[panel.unit])
        .min(0)
        .span(WIDTH)
        .height(HEIGHT)
    )
    for number, query in enumerate(panel.queries):
        legend = re.sub(r"\{(\w+)\}", r"{{\1}}", query.legend)
        drawn.with_target(
            prometheus.Dataquery()
            .expr(query.promql)
            .legend_format(legend)
            .ref_id(chr(ord("A") + number))
            .datasource(SOURCE)
        )
    return drawn


def main() -> None:
    """Write the files."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path, content in files():
        path.write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
