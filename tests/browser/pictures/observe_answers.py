"""Answers of /observe with Prometheus, made of the dashboards themselves."""

from __future__ import annotations

from urllib.parse import urlsplit

from playwright.async_api import Page, Route

from tracking_api.observe.dashboards import DASHBOARDS, PANELS, Query

START_S, STEP_S, COUNT = 1_764_500_000, 15, 60
ALERT = {
    "name": "BackupOld",
    "severity": "ticket",
    "state": "firing",
    "since": "2026-11-30T06:00:00Z",
    "summary": "The newest backup is older than two intervals.",
}


def overview() -> dict[str, object]:
    """The dashboards and one alert."""
    dashboards = [
        {
            "id": one.dashboard_id,
            "title": one.title,
            "panels": [
                {"id": it.panel_id, "title": it.title, "unit": it.unit, "note": it.note}
                for it in one.panels
            ],
        }
        for one in DASHBOARDS
    ]
    return {"prometheus": "up", "dashboards": dashboards, "alerts": [ALERT]}


def label_of(query: Query) -> str:
    """The name of a query's series; that of a label stands for its value."""
    return query.legend.replace("{", "").replace("}", "")


def panel_data(panel_id: str) -> dict[str, object]:
    """A sawtooth for each query of a panel."""
    series = [
        {"label": label_of(query), "values": [n % 10 + 1.5 + place for n in range(COUNT)]}
        for place, query in enumerate(PANELS[panel_id].queries)
    ]
    return {"at": [START_S + STEP_S * n for n in range(COUNT)], "series": series}


async def install_dashboards(page: Page) -> None:
    """Answer a page's requests to /observe."""

    async def answer_panel(route: Route) -> None:
        panel_id = urlsplit(route.request.url).path.rpartition("/")[2]
        await route.fulfill(json=panel_data(panel_id))

    await page.route("**/observe/overview", lambda route: route.fulfill(json=overview()))
    await page.route("**/observe/panels/*", answer_panel)
