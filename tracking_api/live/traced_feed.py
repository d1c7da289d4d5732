"""Writes the span of the live push for each sampled fix of the feed. Imported only if on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from confluent_kafka import Message

from doorstep.traces.exporter import SpanWriter
from doorstep.traces.identity import parse_traceparent

HEADER = "traceparents"  # of tracking-positions: comma-separated, written by driver_events


def push_tracer(spans: SpanWriter) -> Callable[[Sequence[Message]], None]:
    """Return a function for the records of the feed that have been handed to the hub."""

    def trace(messages: Sequence[Message]) -> None:
        now_ns = time.time_ns()
        for message in messages:
            _, created_ms = message.timestamp()
            for name, value in message.headers() or ():
                if name != HEADER or value is None:
                    continue
                text = value if isinstance(value, str) else value.decode("ascii", "replace")
                for parent in text.split(","):
                    ids = parse_traceparent(parent)
                    if ids is not None:
                        spans.write(
                            ids[0], "tracking_api", created_ms * 1_000_000, now_ns,
                            parent="driver_events",
                        )  # fmt: skip

    return trace
