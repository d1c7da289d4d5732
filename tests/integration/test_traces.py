"""One fix through a whole stack with traces on, received over OTLP."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from doorstep.traces.identity import Sampler
from ops.commands import trace_command
from ops.servers.waiting import wait_until
from ops.stack.settings import FREE_PORTS, StackSettings
from ops.stack.stack import Stack
from tests.integration.devices import connect_all
from tests.integration.http_services import make_fix

DRIVER, BOOT = "traced-anna", "b1"
PARENTS = {
    "fix": None,
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


def test_traces__one_fix_at_share_1__one_trace_through_every_hop(
    traced_stack: Stack,
    receiver: OtlpReceiver,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    traced_stack.add_drivers([DRIVER])
    device = connect_all(traced_stack, [DRIVER])[DRIVER]
    device.publish(json.dumps(make_fix(boot=BOOT, seq=1)).encode())
    fix = Sampler(1.0).traced(DRIVER, BOOT, 1)
    wait_until(lambda: set(receiver.of(fix.trace_id)) >= set(PARENTS), 60, "all spans have arrived")
    device.close()

    spans = receiver.of(fix.trace_id)
    ids = {name: span.span_id for name, (_, span) in spans.items()}
    for name, parent in PARENTS.items():
        assert spans[name][1].parent_span_id == (ids[parent] if parent else b""), name
    assert {spans[one][0] for one in ("bridge", "driver_events", "tracking_api")} == {
        "bridge", "driver_events", "tracking_api",
    }  # fmt: skip
    starts = [
        spans[one][1].start_time_unix_nano for one in ("bridge", "postgres", "tracking_api", "ack")
    ]
    assert starts[0] <= starts[1] <= min(starts[2] + 1_000_000, starts[3])  # Kafka stamps whole ms

    for name, value in traced_stack.operator_environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TRACES_ENDPOINT", receiver.url)
    monkeypatch.setenv("TRACES_SHARE", "1.0")
    capsys.readouterr()
    assert trace_command.main([DRIVER, "1", "--boot", BOOT, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["trace_id"] == fix.trace_id_hex
