"""Reads the dashboards' panels and the alerts from Prometheus."""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any

from doorstep.errors import NotFound, Unavailable
from tracking_api.observe.dashboards import PANELS, Panel
from tracking_api.observe.schemas import Alert, PanelData, Series

TIMEOUT_S = 5.0
POINTS = 120  # of each series
MIN_STEP_S = 5  # Prometheus scrapes as often
KEEP_S = 4.0  # an answer, for other viewers of the page
MAX_SERIES = 30  # of a panel
CONCURRENT_REQUESTS = 4

_LABEL = re.compile(r"\{(\w+)\}")


class NoMonitoring(NotFound):
    """The stack runs without monitoring: ./run up --observe starts it."""

    problem = "no-monitoring"


class UnknownPanel(NotFound):
    """There is no such panel."""

    problem = "unknown-panel"


class PrometheusUnavailable(Unavailable):
    """Prometheus does not answer."""

    problem = "prometheus-unavailable"


class PrometheusReader:
    """Runs the panels' own queries only. `url` is Prometheus's; empty without monitoring."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._limit = asyncio.Semaphore(CONCURRENT_REQUESTS)
        self._kept: dict[tuple[str, int], tuple[float, PanelData]] = {}
        self._locks: dict[tuple[str, int], asyncio.Lock] = {}

    @property
    def is_configured(self) -> bool:
        """Whether the stack has monitoring."""
        return bool(self._url)

    async def read_panel(self, panel_id: str, minutes: int) -> PanelData:
        """Read a panel's last minutes. Raises UnknownPanel, NoMonitoring, PrometheusUnavailable."""
        if panel_id not in PANELS:
            raise UnknownPanel
        key = panel_id, minutes
        async with self._locks.setdefault(key, asyncio.Lock()):  # the keys are few and fixed
            kept = self._kept.get(key)
            if kept is None or time.monotonic() - kept[0] > KEEP_S:
                data = await self._query_panel(PANELS[panel_id], minutes)
                kept = self._kept[key] = time.monotonic(), data
        return kept[1]

    async def _query_panel(self, panel: Panel, minutes: int) -> PanelData:
        step_s = max(MIN_STEP_S, math.ceil(minutes * 60 / POINTS))
        end_s = math.floor(time.time() / step_s) * step_s
        at = list(range(end_s - minutes * 60, end_s + 1, step_s))
        series: list[Series] = []
        for query in panel.queries:
            parameters = {"query": query.promql, "start": at[0], "end": at[-1], "step": step_s}
            found = await self._get("query_range", parameters)
            for one in found["result"]:
                values = {int(float(instant)): _number(text) for instant, text in one["values"]}
                series.append(
                    Series(
                        label=_legend(query.legend, one["metric"]),
                        values=[values.get(instant) for instant in at],
                    )
                )
        return PanelData(at=at, series=series[:MAX_SERIES])

    async def read_alerts(self) -> list[Alert]:
        """Read the alerts that fire or are pending. Raises as `read_panel`."""
        found = await self._get("alerts", {})
        return [
            Alert(
                name=one["labels"]["alertname"],
                severity=one["labels"].get("severity", ""),
                state=one["state"],
                since=one["activeAt"],
                summary=one["annotations"].get("summary", ""),
            )
            for one in found["alerts"]
        ]

    async def _get(self, path: str, parameters: Mapping[str, object]) -> dict[str, Any]:
        if not self._url:
            raise NoMonitoring
        address = f"{self._url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        async with self._limit:
            return await asyncio.to_thread(_fetch, address)


def _fetch(address: str) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT_S) as response:  # noqa: S310 - ours
            answer = json.load(response)
    except (OSError, HTTPException, ValueError) as exc:
        raise PrometheusUnavailable from exc
    data: dict[str, Any] = answer["data"]
    return data


def _number(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None


def _legend(template: str, labels: Mapping[str, str]) -> str:
    return _LABEL.sub(lambda found: labels.get(found[1]) or "none", template)
