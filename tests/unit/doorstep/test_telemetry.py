"""Health over HTTP, and one JSON object per log line."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator

import httpx
import pytest

from doorstep.settings import Bind
from doorstep.telemetry import configure_logging, get_logger, serve_telemetry


def test_readyz__dependency_unavailable__is_503_naming_it() -> None:
    there = {"mqtt": True, "kafka": False}
    server = serve_telemetry(Bind("127.0.0.1", 0), lambda: there)
    try:
        url = f"http://127.0.0.1:{server.port}"
        assert httpx.get(f"{url}/healthz").status_code == 200
        away = httpx.get(f"{url}/readyz")
        assert (away.status_code, away.json()) == (503, {"ready": False, **there})
        there["kafka"] = True
        assert httpx.get(f"{url}/readyz").status_code == 200
        assert "python_info" in httpx.get(f"{url}/metrics").text
        assert httpx.get(f"{url}/else").status_code == 404
    finally:
        server.close()


def test_healthz__not_alive__is_503() -> None:
    server = serve_telemetry(Bind("127.0.0.1", 0), dict, alive=lambda: False)
    try:
        assert httpx.get(f"http://127.0.0.1:{server.port}/healthz").status_code == 503
    finally:
        server.close()


@pytest.mark.usefixtures("_logging_restored")
def test_logging__any_thread_or_library__is_one_json_line_with_the_service(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging("bridge")
    get_logger(broker=1).info("subscribed", topics=2)
    other = threading.Thread(target=lambda: get_logger().warning("reconnecting"))
    other.start()
    other.join()
    logging.getLogger("some.library").error("it broke: %s", "why")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["service"] for line in lines] == ["bridge"] * 3
    assert lines[0] | {"at": ""} == {
        "event": "subscribed", "broker": 1, "topics": 2,
        "level": "info", "service": "bridge", "at": "",
    }  # fmt: skip
    assert lines[1]["event"] == "reconnecting"
    assert lines[2]["event"] == "it broke: why"


@pytest.fixture
def _logging_restored() -> Iterator[None]:
    import structlog

    before = logging.getLogger().handlers[:], logging.getLogger().level
    yield
    logging.getLogger().handlers[:], logging.getLogger().level = before
    structlog.reset_defaults()
