"""Writes the spans of sampled fixes: the batch, the statement, the ack. Imported only if on."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence

import msgspec

from doorstep.store.records import IncomingRow
from doorstep.traces.exporter import SpanWriter
from doorstep.traces.identity import ROOT, TRACES_HEADER, Sampler, TracedFix
from driver_events.acks import AckSender
from driver_events.batch import Batch, BatchResult, BootKey
from driver_events.consumer import TopicIdentity
from driver_events.positions import Headers
from driver_events.recorder import Recorder

MAX_UNACKNOWLEDGED = 10_000  # boots with traced fixes that wait for an ack
MAX_PER_BOOT = 100
MAX_LINKS = 16  # from a batch's fix to others of the batch


class _Ack(msgspec.Struct):
    boot: str
    seq: int
    missing: list[tuple[int, int]] = []


_decode_ack = msgspec.json.Decoder(_Ack).decode


class Tracing:
    """The sampled fixes between their commit and their ack. Thread-safe."""

    def __init__(self, spans: SpanWriter, share: float) -> None:
        self.spans = spans
        self._sampler = Sampler(share)
        self._lock = threading.Lock()
        self._unacknowledged: OrderedDict[BootKey, list[tuple[TracedFix, int]]] = OrderedDict()

    def recorder(self, recorder: Recorder) -> Recorder:
        """Return a recorder that reports its batches here."""
        return TracedRecorder(recorder, self)

    def sender(self, sender: AckSender) -> AckSender:
        """Return a sender that reports its acks here."""
        return TracedSender(sender, self)

    def committed(self, batch: Batch, result: BatchResult, started_ns: int, ended_ns: int) -> None:
        """Write the spans of a committed batch."""
        rows = [(self._sampler.traced(row[1], row[2], row[3]), row) for row in batch.rows]
        traced = [(fix, row) for fix, row in rows if fix is not None]
        trace_ids = [fix.trace_id for fix, _ in traced[: MAX_LINKS + 1]]
        for fix, row in traced:
            _, driver_id, boot, seq, fix_at, received_at, *_ = row
            received_ns = round(received_at.timestamp() * 1e9)
            fix_ns = round(fix_at.timestamp() * 1e9) if fix_at else received_ns
            outcome = "not_committed" if row[0] in result.not_committed else "committed"
            write = self.spans.write
            write(
                fix.trace_id, ROOT, min(fix_ns, received_ns), ended_ns,
                attributes={"driver_id": driver_id, "boot": boot or "", "seq": seq or 0},
            )  # fmt: skip
            links = [one for one in trace_ids if one != fix.trace_id][:MAX_LINKS]
            write(
                fix.trace_id, "driver_events", received_ns, ended_ns, parent="bridge",
                attributes={"outcome": outcome, "batch.fixes": len(batch.rows)}, links=links,
            )  # fmt: skip
            write(
                fix.trace_id, "postgres", started_ns, ended_ns, parent="driver_events",
                attributes={"db.system.name": "postgresql", "db.operation.name": "record_fixes"},
            )  # fmt: skip
            self._remember(fix, ended_ns)

    def _remember(self, fix: TracedFix, ended_ns: int) -> None:
        with self._lock:
            waiting = self._unacknowledged.setdefault((fix.driver_id, fix.boot), [])
            if len(waiting) < MAX_PER_BOOT:
                waiting.append((fix, ended_ns))
            if len(self._unacknowledged) > MAX_UNACKNOWLEDGED:
                self._unacknowledged.popitem(last=False)

    def acknowledged(self, driver_id: str, payload: bytes) -> None:
        """Write the ack spans of the fixes that a watermark covers."""
        ack = _decode_ack(payload)
        with self._lock:
            waiting = self._unacknowledged.pop((driver_id, ack.boot), [])
            left = [one for one in waiting if not _covers(ack, one[0].seq)]
            if left:
                self._unacknowledged[driver_id, ack.boot] = left
        now_ns = time.time_ns()
        for fix, committed_ns in waiting:
            if _covers(ack, fix.seq):
                self.spans.write(
                    fix.trace_id, "ack", committed_ns, now_ns, parent="driver_events"
                )  # fmt: skip

    def headers_of(self, rows: Sequence[IncomingRow]) -> Headers | None:
        """Return the header of a record of the live feed, which names the sampled fixes in it."""
        found = [self._sampler.traced(row[1], row[2], row[3]) for row in rows]
        parents = [fix.traceparent("driver_events") for fix in found if fix is not None]
        return [(TRACES_HEADER, ",".join(parents))] if parents else None


class TracedRecorder:
    """A recorder that reports each committed batch."""

    def __init__(self, recorder: Recorder, tracing: Tracing) -> None:
        self._recorder = recorder
        self._tracing = tracing

    def open_offsets(self, topic: TopicIdentity, partitions: Sequence[int]) -> dict[int, int]:
        """Read the next offset of each partition."""
        return self._recorder.open_offsets(topic, partitions)

    def discard(self) -> None:
        """Close the connection and roll back."""
        self._recorder.discard()

    def record(
        self, batch: Batch, topic: TopicIdentity, offset_ranges: Mapping[int, tuple[int, int]]
    ) -> BatchResult:
        """Record a batch, then write its spans."""
        started_ns = time.time_ns()
        result = self._recorder.record(batch, topic, offset_ranges)
        self._tracing.committed(batch, result, started_ns, time.time_ns())
        return result


class TracedSender:
    """A sender of acks that reports those it has sent."""

    def __init__(self, sender: AckSender, tracing: Tracing) -> None:
        self._sender = sender
        self._tracing = tracing

    def send(self, acks: Sequence[tuple[str, bytes]]) -> Collection[str]:
        """Send acks; return the drivers whose broker is unreachable."""
        unreachable = self._sender.send(acks)
        for driver_id, payload in acks:
            if driver_id not in unreachable:
                self._tracing.acknowledged(driver_id, payload)
        return unreachable


def _covers(ack: _Ack, seq: int) -> bool:
    return seq <= ack.seq and not any(first <= seq <= last for first, last in ack.missing)
