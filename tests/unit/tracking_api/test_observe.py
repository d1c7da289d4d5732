"""/observe: who may read it, and that only the dashboards' own queries reach Prometheus.

A local HTTP server replaces Prometheus; Kafka is absent.
"""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.unit.tracking_api.memory_store import MemoryStore
from tracking_api.app import build_app
from tracking_api.observe import kafka_view
from tracking_api.observe.dashboards import DASHBOARDS, PANELS
from tracking_api.observe.prometheus import MAX_SERIES, PrometheusReader
from tracking_api.stores import Stores

ADMIN = {"Authorization": "Bearer tok-staff"}
PATHS = ["/observe/overview", "/observe/panels/path-rate", "/observe/kafka"]
QUERIES = {query.promql for panel in PANELS.values() for query in panel.queries}


class Prometheus(BaseHTTPRequestHandler):
    """Answers each range with NaN and then 2, and records the queries."""

    asked: list[str]

    def do_GET(self) -> None:
        values = {key: found[0] for key, found in parse_qs(urlsplit(self.path).query).items()}
        if "query" in values:
            self.asked.append(values["query"])
            first, last = int(values["start"]), int(values["end"])
            samples = [[first, "NaN"], [last, "2"]]
            series = [{"metric": {"outcome": str(n)}, "values": samples} for n in range(40)]
            data: object = {"result": series}
        else:
            data = {
                "alerts": [
                    {
                        "labels": {"alertname": "ServiceDown", "severity": "page"},
                        "annotations": {"summary": "<b>down</b>"},
                        "state": "firing",
                        "activeAt": "2026-11-29T12:00:00Z",
                    }
                ]
            }
        body = json.dumps({"data": data}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def prometheus() -> Iterator[str]:
    """The URL of a server that answers like Prometheus."""
    Prometheus.asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Prometheus) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    app = build_app(Stores.backed_by(MemoryStore()), "https://track.test")
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client,
    ):
        yield client


def use(http: httpx.AsyncClient, url: str) -> None:
    """Let the application read this Prometheus."""
    context = http._transport.app.state.context  # type: ignore[attr-defined]
    object.__setattr__(context, "prometheus", PrometheusReader(url))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("name", "status"), [("viewer", 403), ("dispatcher", 403), ("unknown", 401)]
)
async def test_read__by_others_than_admins__is_refused(
    http: httpx.AsyncClient, path: str, name: str, status: int
) -> None:
    answer = await http.get(path, headers={"Authorization": f"Bearer tok-{name}"})
    assert answer.status_code == status


async def test_overview__without_monitoring__says_so(http: httpx.AsyncClient) -> None:
    answer = await http.get("/observe/overview", headers=ADMIN)
    assert answer.json() == {"prometheus": "absent", "dashboards": [], "alerts": []}
    panel = await http.get("/observe/panels/path-rate", headers=ADMIN)
    assert panel.json()["type"] == "/problems/no-monitoring"


async def test_overview__with_monitoring__has_dashboards_and_alerts(
    http: httpx.AsyncClient, prometheus: str
) -> None:
    use(http, prometheus)
    answer = (await http.get("/observe/overview", headers=ADMIN)).json()
    assert [one["id"] for one in answer["dashboards"]] == [one.dashboard_id for one in DASHBOARDS]
    [alert] = answer["alerts"]
    assert (alert["name"], alert["state"], alert["severity"]) == ("ServiceDown", "firing", "page")


async def test_panel__any_request__sends_prometheus_the_panels_own_queries_only(
    http: httpx.AsyncClient, prometheus: str
) -> None:
    use(http, prometheus)
    for path in ("path-rate", "path-rate?query=up", "up", "sum(up)", "path-rate?minutes=5"):
        await http.get(f"/observe/panels/{path}", headers=ADMIN)
    assert Prometheus.asked
    assert set(Prometheus.asked) <= QUERIES


async def test_panel__answer__is_bounded_and_has_no_nan(
    http: httpx.AsyncClient, prometheus: str
) -> None:
    use(http, prometheus)
    answer = (await http.get("/observe/panels/fleet-fixes?minutes=5", headers=ADMIN)).json()
    assert len(answer["series"]) == MAX_SERIES
    first = answer["series"][0]
    assert first["label"] == "0"
    assert (first["values"][0], first["values"][-1]) == (None, 2.0)


async def test_panel__asked_twice_at_once__is_queried_once(
    http: httpx.AsyncClient, prometheus: str
) -> None:
    use(http, prometheus)
    for _ in range(3):
        await http.get("/observe/panels/fleet-watermarks", headers=ADMIN)
    assert len(Prometheus.asked) == 1


@pytest.mark.parametrize("minutes", ["0", "7", "100000", "x"])
async def test_panel__other_ranges__are_refused(http: httpx.AsyncClient, minutes: str) -> None:
    answer = await http.get(f"/observe/panels/path-rate?minutes={minutes}", headers=ADMIN)
    assert answer.status_code == 422


async def test_panel__prometheus_is_down__is_503(http: httpx.AsyncClient) -> None:
    use(http, "http://127.0.0.1:1")
    answer = await http.get("/observe/panels/path-rate", headers=ADMIN)
    assert answer.status_code == 503
    assert answer.json()["type"] == "/problems/prometheus-unavailable"
    overview = await http.get("/observe/overview", headers=ADMIN)
    assert overview.json()["prometheus"] == "down"


async def test_kafka__is_absent__is_503(http: httpx.AsyncClient) -> None:
    answer = await http.get("/observe/kafka", headers=ADMIN)
    assert answer.status_code == 503


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        (b'{"a": 1}', '{"a": 1}'),
        (b"\x1b[31mred\x00", r"\x1b[31mred\x00"),
        (b"\xff\xfe", r"\xff\xfe"),
        ("città".encode(), "città"),
        (b"x" * 50, "x" * 40 + "…"),
    ],
)
def test_text__control_characters_and_wrong_utf_8__are_escaped(content: bytes, shown: str) -> None:
    assert kafka_view._text(content, 40) == shown
