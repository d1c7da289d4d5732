"""Writes the span of the live push for each sampled fix of the feed. Imported only if on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from confluent_kafka import Message

from doorstep.traces.exporter import SpanWriter
from doorstep.traces.identity import TRACES_HEADER, parse_traceparent


def push_tracer(spans: SpanWriter) -> Callable[[Sequence[Message]], None]:
    """Return a function for the records of the feed that have been handed to the hub."""

    def trace(messages: Sequence[Message]) -> None:
        now_ns = time.time_ns()
        for message in messages:
            start_ns = message.timestamp()[1] * 1_000_000
            for trace_id in _trace_ids_of(message):
                spans.write(trace_id, "tracking_api", start_ns, now_ns, parent="driver_events")

    return trace


def _trace_ids_of(message: Message) -> Iterator[int]:
    for name, value in dict(message.headers() or ()).items():
        if name == TRACES_HEADER and isinstance(value, bytes):
            for text in value.decode("ascii", "replace").split(","):
                if (ids := parse_traceparent(text)) is not None:
                    yield ids[0]
