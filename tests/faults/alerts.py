"""Whether an alert would fire on what Prometheus would have scraped of a service meanwhile.

promtool evaluates the rules of `prometheus/alerts.yml` on the scrapes. Needs no Prometheus.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx
import yaml

from ops.stack.errors import StackError
from ops.stack.programs import find_program
from ops.stack.settings import PROJECT, StackSettings
from tests.faults.background import Background
from tests.faults.environment import FaultEnvironment

RULES_FILE = PROJECT / "prometheus" / "alerts.yml"
PROMETHEUS_FILE = PROJECT / "prometheus" / "prometheus.yml"
EVALUATE_TIMEOUT_S = 60
PROMTOOL = "promtool"
CASE = """
rule_files: [{rules}]
evaluation_interval: {every_s}s
tests:
  - interval: {every_s}s
    input_series: {series}
    promql_expr_test:
      - eval_time: {at_s}s
        expr: count by (alertname) (ALERTS{{alertname="{alert}", alertstate="firing"}})
        exp_samples: [{expected}]
"""

Scrape = Mapping[str, float]
"""The value of each series, such as `a_total{topic="b"}`. Empty if the service did not answer."""


def scrape_interval_s() -> float:
    """Return how often Prometheus scrapes."""
    config = yaml.safe_load(PROMETHEUS_FILE.read_text(encoding="utf-8"))
    return float(config["global"]["scrape_interval"].removesuffix("s"))


class Scraper(Background):
    """Scrapes one metric of a service as often as Prometheus does."""

    def __init__(self, env: FaultEnvironment, part: str, metric: str) -> None:
        super().__init__("scraper")
        self.scrapes: list[Scrape] = []
        self.every_s = scrape_interval_s()
        self._url = f"http://{env.addresses.telemetry_of(part)}/metrics"
        self._part, self._metric = part, metric

    async def work(self) -> None:
        async with httpx.AsyncClient(timeout=self.every_s, trust_env=False) as client:
            while not self.stopping.is_set():
                next_one = asyncio.create_task(asyncio.sleep(self.every_s))
                try:
                    text = (await client.get(self._url)).text
                except httpx.TransportError:
                    text = ""
                self.scrapes.append(series_of(text, self._metric, self._part))
                await next_one


def series_of(text: str, metric: str, job: str) -> Scrape:
    """Return the series of a metric in a service's response, with the label that a target has."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        name, _, value = line.rpartition(" ")
        if name == metric or name.startswith(metric + "{"):
            labels = name.removeprefix(metric).strip("{}")
            every = ",".join(filter(None, [labels, f'job="{job}"']))
            found[f"{metric}{{{every}}}"] = float(value)
    return found


def is_firing(alert: str, scrapes: Sequence[Scrape], every_s: float) -> bool:
    """Return whether an alert fires at the last scrape. Raises StackError without promtool."""
    if _agrees(
        alert, scrapes, every_s, expected=f"""{{labels: '{{alertname="{alert}"}}', value: 1}}"""
    ):
        return True
    if _agrees(alert, scrapes, every_s, expected=""):
        return False
    raise ValueError(f"promtool cannot evaluate {alert}")


def _agrees(alert: str, scrapes: Sequence[Scrape], every_s: float, expected: str) -> bool:
    program = find_program(StackSettings(), PROMTOOL, "./run test")
    names = {name for one in scrapes for name in one}
    series = [
        {"series": name, "values": " ".join(_values([one.get(name) for one in scrapes]))}
        for name in sorted(names)
    ]
    text = CASE.format(
        rules=RULES_FILE, every_s=f"{every_s:g}", series=json.dumps(series), alert=alert,
        at_s=f"{every_s * (len(scrapes) - 1):g}", expected=expected,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        case = Path(folder) / "case.yml"
        case.write_text(text, encoding="utf-8")
        done = subprocess.run(
            [program, "test", "rules", case],
            capture_output=True,
            timeout=EVALUATE_TIMEOUT_S,
            check=False,
        )
    return done.returncode == 0


def _no_promtool() -> str:
    try:
        find_program(StackSettings(), PROMTOOL, "./run test")
    except StackError as exc:
        return str(exc)
    return ""


NO_PROMTOOL = _no_promtool()  # why no alert can be evaluated; empty if one can


def _values(values: Sequence[float | None]) -> list[str]:
    """Return a series as promtool writes it: Prometheus marks the first missing one as stale."""
    said, was_there = [], False
    for value in values:
        if value is None:
            said.append("stale" if was_there else "_")
        else:
            said.append(f"{value:g}")
        was_there = value is not None
    return said
