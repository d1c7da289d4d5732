"""Writes the span `publish` of each sampled fix: from its message to the PUBACK. Only if on.

The ids follow from (driver, boot, seq), as in every other hop, so a device sends no `traceparent`:
MQTT 3.1.1 has no place for it, and MQTT 5 devices save its bytes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from doorstep.traces.identity import Sampler, TracedFix
from doorstep.traces.settings import TraceSettings

if TYPE_CHECKING:
    from doorstep.traces.exporter import SpanWriter

SPAN = "publish"


class PublishSpans:
    """The sampled fixes of one device that have no PUBACK yet."""

    def __init__(self, driver_id: str, spans: SpanWriter, share: float) -> None:
        self._driver_id = driver_id
        self._spans = spans
        self._sampler = Sampler(share)
        self._unacknowledged: dict[int, tuple[list[TracedFix], int]] = {}  # by message id
        self._newest = ("", 0)  # boot and highest seq that have a span

    def published(self, message_id: int, message: bytes, at_s: float) -> None:
        """Note a message and when, on the monotonic clock, it was given to the connection.

        A fix that has its span is skipped.
        """
        boot, seq = self._newest
        fixes = [
            fix
            for fix in self._sampler.traced_in(self._driver_id, message)
            if fix.boot != boot or fix.seq > seq
        ]
        if fixes:
            since_ns = round((time.monotonic() - at_s) * 1e9)
            self._unacknowledged[message_id] = (fixes, time.time_ns() - since_ns)

    def acknowledged(self, message_id: int) -> None:
        """Write the spans of a message: its PUBACK has arrived."""
        fixes, started_ns = self._unacknowledged.pop(message_id, ((), 0))
        for fix in fixes:
            self._spans.write(fix.trace_id, SPAN, started_ns, time.time_ns())
            self._newest = (fix.boot, fix.seq)

    def clear(self) -> None:
        """Forget all messages: the connection is closed."""
        self._unacknowledged.clear()


class DeviceTracing:
    """Makes the spans of the devices of one process; None if traces are off."""

    def __init__(self, spans: SpanWriter | None, share: float) -> None:
        self._spans = spans
        self._share = share

    def of(self, driver_id: str) -> PublishSpans | None:
        """Return the spans of a device."""
        if self._spans is None:
            return None
        return PublishSpans(driver_id, self._spans, self._share)


NO_TRACING = DeviceTracing(None, 0)


@contextmanager
def open_device_tracing(settings: TraceSettings, service: str) -> Iterator[DeviceTracing]:
    """Open the writer of a process's devices, and send what is queued at the end."""
    spans = settings.open_spans(service)
    try:
        yield DeviceTracing(spans, settings.traces_share)
    finally:
        if spans is not None:
            spans.close()
