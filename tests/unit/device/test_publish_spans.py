"""The span of a sampled fix on its device. `Spans` replaces the writer, `FakeConnection` MQTT."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from device import device as device_module
from device.connection import Login
from device.device import Device
from device.journal import Journal
from device.publish_spans import NO_TRACING, DeviceTracing
from doorstep.settings import MqttBroker
from doorstep.traces.exporter import SpanWriter
from doorstep.traces.identity import Sampler
from tests.unit.device.fake_connection import FakeConnection

LOGIN = Login(MqttBroker("127.0.0.1", 1, tls=False), "anna", "secret", "will")
NOW_S = time.monotonic()
FIX: dict[str, Any] = {"fix_at": 1_700_000_000_000, "lat_deg": 43.77, "lon_deg": 11.25}


class Spans:
    def __init__(self) -> None:
        self.written: list[tuple[int, str]] = []

    def write(self, trace_id: int, name: str, start_ns: int, end_ns: int) -> None:
        assert start_ns <= end_ns
        self.written.append((trace_id, name))


@pytest.fixture
def spans() -> Spans:
    return Spans()


@pytest.fixture
def device(tmp_path: Path, spans: Spans, monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    monkeypatch.setattr(device_module, "Connection", FakeConnection)
    with Journal(tmp_path / "j.sqlite") as journal:
        yield Device(LOGIN, journal, spans=tracing_of(spans).of("anna"))


def tracing_of(spans: Spans, share: float = 1.0) -> DeviceTracing:
    return DeviceTracing(cast("SpanWriter", spans), share)


def id_of(device: Device, seq: int) -> int:
    fix = Sampler(1.0).traced("anna", device.boot, seq)
    assert fix is not None
    return fix.trace_id


def report(device: Device) -> None:
    device.write(FIX)
    device.pump()


async def connect(device: Device) -> FakeConnection:
    await device._connect()
    return FakeConnection.newest


async def test_puback__sampled_fix__its_span_is_written_once(device: Device, spans: Spans) -> None:
    connection = await connect(device)
    report(device)
    assert spans.written == []
    connection.puback_all()
    connection.puback_all()
    assert spans.written == [(id_of(device, 1), "publish")]


async def test_puback__fix_sent_again__has_no_second_span(device: Device, spans: Spans) -> None:
    connection = await connect(device)
    report(device)
    connection.puback_all()
    device._resend_pending()
    assert connection.seqs() == [1, 1]
    connection.puback_all()
    assert len(spans.written) == 1


def test_clear__connection_lost_before_the_puback__the_next_one_writes_the_span(
    spans: Spans,
) -> None:
    tracing = tracing_of(spans).of("anna")
    assert tracing is not None
    message = b'{"boot": "b", "seq": 1}'
    tracing.published(1, message, NOW_S)
    tracing.clear()
    tracing.acknowledged(1)
    assert spans.written == []
    tracing.published(1, message, NOW_S)
    tracing.acknowledged(1)
    assert len(spans.written) == 1


def test_acknowledged__array__each_sampled_fix_has_its_span(spans: Spans) -> None:
    tracing = tracing_of(spans).of("anna")
    assert tracing is not None
    tracing.published(1, json.dumps([{"boot": "b", "seq": n} for n in (1, 2, 3)]).encode(), NOW_S)
    tracing.acknowledged(1)
    assert len({trace_id for trace_id, _ in spans.written}) == 3


def test_acknowledged__not_sampled__no_span(spans: Spans) -> None:
    tracing = tracing_of(spans, share=0.0).of("anna")
    assert tracing is not None
    tracing.published(1, b'{"boot": "b", "seq": 1}', NOW_S)
    tracing.acknowledged(1)
    assert spans.written == []


def test_no_tracing__a_device__has_no_spans() -> None:
    assert NO_TRACING.of("anna") is None
