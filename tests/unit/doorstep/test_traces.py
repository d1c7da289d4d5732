"""Sampling and the ids of traces: a function of a fix's identity. No OpenTelemetry when off."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from doorstep.traces.identity import Sampler, parse_traceparent, span_id_of
from doorstep.traces.settings import TraceSettings

OFF = """
import sys
import bridge.__main__ as bridge
import driver_events.service as driver_events
from bridge.settings import BridgeSettings
from device.publish_spans import open_device_tracing
from device.settings import DeviceSettings
from driver_events.settings import DriverEventsSettings
publisher = bridge._make_publisher(BridgeSettings(kafka_bootstrap_servers="127.0.0.1:1"))
publisher.close()
assert driver_events._make_tracing(DriverEventsSettings(database_url="x")) is None
with open_device_tracing(DeviceSettings(), "device") as tracing:
    assert tracing.of("anna") is None
assert not [m for m in sys.modules if m.startswith("opentelemetry")]
import tracking_api.app  # FastAPI imports OpenTelemetry's API itself, never the SDK
assert not [m for m in sys.modules if m.startswith(("opentelemetry.sdk", "opentelemetry.exporter"))]
print(type(publisher).__name__)
"""


def test_traced__same_identity__same_ids_in_every_sampler() -> None:
    first, second = Sampler(1.0).traced("anna", "b", 7), Sampler(0.999999999).traced("anna", "b", 7)
    assert first is not None
    assert first == second
    assert first != Sampler(1.0).traced("anna", "b", 8)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.25, 1.0])
def test_traced__share__is_about_that_of_the_fixes(share: float) -> None:
    sampler = Sampler(share)
    sampled = sum(sampler.traced("anna", "b", seq) is not None for seq in range(20_000))
    assert abs(sampled / 20_000 - share) < 0.01


def test_traced__larger_share__includes_the_smaller() -> None:
    few, many = Sampler(0.1), Sampler(0.2)
    found = [seq for seq in range(1000) if few.traced("anna", "b", seq)]
    assert found
    assert all(many.traced("anna", "b", seq) for seq in found)


def test_traced__no_boot__is_never_sampled() -> None:
    assert Sampler(1.0).traced("anna", None, 7) is None
    assert Sampler(1.0).traced("anna", "b", None) is None


def test_traced_in__array__finds_each_fix() -> None:
    payload = json.dumps([{"boot": "b", "seq": n, "lat_deg": 1.5} for n in (1, 2)]).encode()
    assert [one.seq for one in Sampler(1.0).traced_in("anna", payload)] == [1, 2]


@pytest.mark.parametrize("payload", [b"", b"{", b"[1]", b'{"boot": 3}', b"\xff", b'{"seq": 1}'])
def test_traced_in__unreadable__is_not_traced(payload: bytes) -> None:
    assert Sampler(1.0).traced_in("anna", payload) == []


def test_traceparent__of_a_span__parses_back() -> None:
    fix = Sampler(1.0).traced("anna", "b", 7)
    assert fix is not None
    ids = parse_traceparent(fix.traceparent("bridge"))
    assert ids == (fix.trace_id, span_id_of(fix.trace_id, "bridge"))


@pytest.mark.parametrize(
    "text", ["", "00", "01-" + "a" * 32 + "-" + "b" * 16 + "-01", "00-x-y-01",
             "00-" + "0" * 32 + "-" + "b" * 16 + "-01", "00-" + "g" * 32 + "-" + "b" * 16 + "-01"],
)  # fmt: skip
def test_parse_traceparent__not_one__none(text: str) -> None:
    assert parse_traceparent(text) is None


def test_trace_settings__default__is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRACES_ENDPOINT", raising=False)
    settings = TraceSettings()
    assert not settings.has_traces


def test_services__traces_off__import_no_opentelemetry() -> None:
    answer = subprocess.run(
        [sys.executable, "-c", OFF], capture_output=True, text=True, check=False
    )
    assert answer.stdout.endswith("Publisher\n"), answer.stderr
