"""One fix through a whole stack with traces on, received over OTLP."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from device.device_session import open_device_session
from device.settings import DeviceSettings
from doorstep.credentials import mqtt_password
from doorstep.mqtt_topics import POSITION, topic_of
from doorstep.traces.identity import Sampler
from ops.commands import trace_command
from ops.servers.waiting import wait_until
from ops.stack.addresses import reach
from ops.stack.settings import FREE_PORTS, StackSettings
from ops.stack.stack import Stack
from tests.integration.http_services import make_fix

FOREIGN_TRACE = 0x0AF7651916CD43DD8448EB211C80319C
PARENTS = {
    "fix": None,
    "publish": "fix",
    "bridge": "fix",
    "driver_events": "bridge",
    "postgres": "driver_events",
    "ack": "driver_events",
    "tracking_api": "driver_events",
}


class OtlpReceiver:
    """An OTLP/HTTP receiver on loopback: `spans` holds what arrived."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, Any]] = []  # (service, span)
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = ExportTraceServiceRequest()
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    self.send_error(415)
                    return
                request.ParseFromString(body)
                for part in request.resource_spans:
                    names = {one.key: one.value.string_value for one in part.resource.attributes}
                    for scope in part.scope_spans:
                        receiver.spans += [(names["service.name"], span) for span in scope.spans]
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1/traces"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def of(self, trace_id: int) -> dict[str, tuple[str, Any]]:
        """The spans of a trace by name, with their services."""
        return {
            span.name: (service, span)
            for service, span in self.spans
            if int.from_bytes(span.trace_id) == trace_id
        }

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def receiver() -> Iterator[OtlpReceiver]:
    receiver = OtlpReceiver()
    yield receiver
    receiver.close()


@pytest.fixture(scope="module")
def traced_stack(server_home: Path, receiver: OtlpReceiver) -> Iterator[Stack]:
    settings = StackSettings(doorstep_home=server_home / "traced", **FREE_PORTS)
    traces = {"TRACES_ENDPOINT": receiver.url, "TRACES_SHARE": "1.0", "ACK_EVERY_S": "2"}
    stack = Stack(settings, environment=os.environ | traces, echo=lambda _line: None)
    try:
        stack.up(owner_pid=os.getpid())
        yield stack
    finally:
        stack.down(erase=True)


@pytest.fixture
def environment(
    traced_stack: Stack, receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shell of a device, and of `./run where`."""
    for name, value in traced_stack.operator_environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TRACES_ENDPOINT", receiver.url)
    monkeypatch.setenv("TRACES_SHARE", "1.0")


async def publish(driver_id: str, *, mqtt_5: bool) -> str:
    """Publish one fix with the reference device, and return its boot."""
    settings = DeviceSettings.load()
    async with open_device_session(driver_id, settings, mqtt_5=mqtt_5) as session:
        await session.wait_connected(60)
        session.report(make_fix())
        assert await session.wait_committed(60)
        return session.device.boot


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("mqtt_5", [False, True])
def test_traces__one_fix_at_share_1__one_trace_from_the_device_through_every_hop(
    traced_stack: Stack,
    receiver: OtlpReceiver,
    capsys: pytest.CaptureFixture[str],
    *,
    mqtt_5: bool,
) -> None:
    driver_id = f"traced-{mqtt_5}"
    traced_stack.add_drivers([driver_id])
    boot = asyncio.run(publish(driver_id, mqtt_5=mqtt_5))
    fix = Sampler(1.0).traced(driver_id, boot, 1)
    assert fix is not None
    wait_until(lambda: set(receiver.of(fix.trace_id)) >= set(PARENTS), 60, "all spans have arrived")

    spans = receiver.of(fix.trace_id)
    ids = {name: span.span_id for name, (_, span) in spans.items()}
    for name, parent in PARENTS.items():
        assert spans[name][1].parent_span_id == (ids[parent] if parent else b""), name
    assert {spans[one][0] for one in ("publish", "bridge", "driver_events", "tracking_api")} == {
        "device", "bridge", "driver_events", "tracking_api",
    }  # fmt: skip
    hops = ("publish", "bridge", "postgres", "tracking_api", "ack")
    starts = [spans[one][1].start_time_unix_nano for one in hops]
    assert starts[0] <= starts[1] <= starts[2]
    assert starts[2] <= min(starts[3] + 1_000_000, starts[4])  # Kafka stamps whole ms

    capsys.readouterr()
    assert trace_command.main([driver_id, "1", "--boot", boot, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["trace_id"] == fix.trace_id_hex


@pytest.mark.parametrize(
    "traceparent",
    [
        pytest.param(f"00-{FOREIGN_TRACE:032x}-b7ad6b7169203331-01", id="foreign"),
        pytest.param(f"00-{FOREIGN_TRACE:032x}-b7ad6b7169203331-00", id="unsampled"),
        pytest.param("00-none-of-these", id="invalid"),
    ],
)
def test_traces__phone_sends_a_traceparent__it_is_ignored(
    traced_stack: Stack, receiver: OtlpReceiver, traceparent: str, request: pytest.FixtureRequest
) -> None:
    driver_id = f"phone-{request.node.callspec.id}"
    traced_stack.add_drivers([driver_id])
    client = Client(CallbackAPIVersion.VERSION2, driver_id, protocol=MQTTProtocolVersion.MQTTv5)
    client.username_pw_set(driver_id, mqtt_password(traced_stack.paths.fleet_key(), driver_id))
    client.connect("127.0.0.1", reach(traced_stack.addresses.mqtt[0]).port)
    client.loop_start()
    properties = Properties(PacketTypes.PUBLISH)
    properties.UserProperty = ("traceparent", traceparent)
    payload = json.dumps(make_fix(boot="b1", seq=1)).encode()
    client.publish(topic_of(driver_id, POSITION), payload, 1, properties=properties)
    fix = Sampler(1.0).traced(driver_id, "b1", 1)
    assert fix is not None
    expected = set(PARENTS) - {"publish"}
    wait_until(lambda: set(receiver.of(fix.trace_id)) >= expected, 60, "all spans have arrived")
    client.disconnect()
    client.loop_stop()
    assert set(receiver.of(fix.trace_id)) == expected
    assert receiver.of(FOREIGN_TRACE) == {}
