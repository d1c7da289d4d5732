"""Whether an alert fires on a fault's scrapes, by promtool and the project's rules."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry, Counter, start_http_server

from ops.servers.waiting import wait_until
from ops.stack.programs import find_program
from tests.faults.alerts import Scrape, Scraper, is_firing, scrape_interval_s, series_of
from tests.programs import provided

UP = 'up{job="bridge"}'
METRICS = """# TYPE a_total counter
a_total{topic="x"} 3.0
a_total{topic="y"} 1e+06
a_totals 5.0
b 2.0
"""


def scrapes(*values: float | None) -> list[Scrape]:
    return [{} if one is None else {UP: one} for one in values]


@pytest.fixture(autouse=True)
def promtool() -> str:
    return provided(find_program, "promtool", "./run test")


def test_series_of__one_metric__has_each_child_with_the_targets_job() -> None:
    assert series_of(METRICS, "a_total", "driver_events") == {
        'a_total{topic="x",job="driver_events"}': 3.0,
        'a_total{topic="y",job="driver_events"}': 1e6,
    }
    assert series_of(METRICS, "b", "bridge") == {'b{job="bridge"}': 2.0}
    assert series_of("", "b", "bridge") == {}


def test_is_firing__long_down__fires() -> None:
    assert is_firing("ServiceDown", scrapes(*[1.0] * 4, *[0.0] * 60), scrape_interval_s())


@pytest.mark.parametrize(
    "values",
    [
        pytest.param([1.0] * 60, id="up"),
        pytest.param([0.0] * 60 + [1.0], id="up again"),
        pytest.param([0.0] * 60 + [None], id="not scraped any more"),
        pytest.param([None] * 60 + [0.0], id="down for one scrape"),
    ],
)
def test_is_firing__not_down_for_long__does_not_fire(values: list[float | None]) -> None:
    assert not is_firing("ServiceDown", scrapes(*values), scrape_interval_s())


def test_scraper__service_ends__has_its_series_and_then_none() -> None:
    registry = CollectorRegistry()
    Counter("a", "A counter", ["topic"], registry=registry).labels("x").inc(3)
    server, thread = start_http_server(0, "127.0.0.1", registry)
    bind = f"127.0.0.1:{server.server_port}"
    env = SimpleNamespace(addresses=SimpleNamespace(telemetry_of=lambda _part: bind))
    scraper = Scraper(env, "driver_events", "a_total")  # type: ignore[arg-type]
    scraper.every_s = 0.2
    with scraper:
        wait_until(lambda: scraper.scrapes)
        server.shutdown()
        server.server_close()
        thread.join()
        wait_until(lambda: {} in scraper.scrapes)
    assert scraper.scrapes[0] == {'a_total{topic="x",job="driver_events"}': 3.0}


def test_is_firing__promtool_fails__raises() -> None:
    with pytest.raises(ValueError, match="ServiceDown"):
        is_firing("ServiceDown", [{"not a series": 1.0}], scrape_interval_s())
