"""Writes spans over OTLP/HTTP, in the background. Needs the extra `traces`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, SpanContext, TraceFlags
from opentelemetry.util.types import AttributeValue

from doorstep.traces.identity import ROOT, span_id_of

SEND_EVERY_MS = 1000


class SpanWriter:
    """Queues finished spans. Beyond the SDK's queue (2,048) spans are dropped, never waited for."""

    def __init__(self, endpoint: str, service: str) -> None:
        self._resource = Resource.create({"service.name": service, "service.namespace": "doorstep"})
        self._processor = BatchSpanProcessor(
            OTLPSpanExporter(endpoint=endpoint, timeout=5), schedule_delay_millis=SEND_EVERY_MS
        )

    def write(
        self,
        trace_id: int,
        name: str,
        start_ns: int,
        end_ns: int,
        *,
        parent: str = ROOT,
        attributes: Mapping[str, AttributeValue] | None = None,
        links: Sequence[int] = (),
    ) -> None:
        """Queue the span `name` of a trace. `links` are ids of traces with a span of that name."""
        is_root = name == parent
        start_ns = max(0, start_ns)  # OTLP has no time before 1970
        span = ReadableSpan(
            name,
            context=_context(trace_id, name),
            parent=None if is_root else _context(trace_id, parent),
            resource=self._resource,
            attributes=attributes,
            links=[Link(_context(one, name)) for one in links],
            start_time=start_ns,
            end_time=max(start_ns, end_ns),
        )
        self._processor.on_end(span)

    def close(self) -> None:
        """Send what is queued."""
        self._processor.shutdown()  # type: ignore[no-untyped-call]


def _context(trace_id: int, name: str) -> SpanContext:
    span_id = span_id_of(trace_id, name)
    return SpanContext(trace_id, span_id, is_remote=False, trace_flags=TraceFlags(1))
