"""Describes the trace of a fix: a line for each step, and the result in one sentence."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from doorstep.fix import Refused
from doorstep.http.instants import format_instant
from ops.commands.dead_letter_reader import time_text
from ops.commands.trace import Trace

Mark = Literal["yes", "no", "wait", "none"]
SIGNS: dict[Mark, str] = {"yes": "✓", "no": "✗", "wait": "…", "none": "·"}


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the path, and what was found there."""

    part: str
    mark: Mark
    text: str

    def line(self) -> str:
        return f"{SIGNS[self.mark]} {self.part:<13} {self.text}"


@dataclass(frozen=True, slots=True)
class TraceResult:
    """The outcome of a fix: one word for programs, one sentence for people."""

    word: str  # committed, refused, parked, waiting, pending, void, lost, unknown
    sentence: str
    next: str = ""


def steps_of(trace: Trace) -> list[Step]:
    """Describe each step in a line."""
    steps = [_journal(trace), *_kafka(trace)]
    if trace.parked_at is not None:
        steps.append(Step("parked", "wait", f"since {format_instant(trace.parked_at)}"))
    steps.append(_history(trace))
    steps += [
        Step(
            "dead letter",
            "no",
            f"{letter.letter_id}: {letter.reason}, written {time_text(letter.written_at_ms)}",
        )
        for letter in trace.letters
    ]
    steps.append(_watermark(trace))
    if trace.trace_id is not None:
        steps.append(Step("trace", "yes", trace.trace_id))
    steps += [
        Step("evidence", "yes", f"{state} of order {order_id}, assignment {assignment_no}")
        for order_id, assignment_no, state in trace.proved
    ]
    return steps


def trace_result_of(trace: Trace) -> TraceResult:
    """Derive the outcome from the strongest finding."""
    boot, seq = trace.boot, trace.seq
    if trace.history is not None:
        return _stored(trace)
    known = trace.known
    if known is not None and known.is_stored:
        return TraceResult(
            "committed", "committed; its day is no longer in the history (retention)"
        )
    if trace.parked_at is not None:
        return TraceResult(
            "parked",
            "parked: another transaction holds its driver's or its order's row",
            "it is recorded within seconds; if not: ./run logs driver_events",
        )
    if trace.letters:
        letter = trace.letters[-1]
        return TraceResult(
            "refused",
            f"refused: {letter.reason}; dead letter {letter.letter_id}",
            f"./run dead-letters show {letter.letter_id}",
        )
    if known is not None and known.is_rejected:
        return _refused_without_letter(trace)
    if any(not one.is_consumed for one in trace.records):
        return TraceResult(
            "waiting",
            f"in Kafka, not consumed yet: {trace.lag:,} records of its partition are waiting",
            "./run status; ./run logs driver_events",
        )
    if trace.records:
        return TraceResult(
            "lost",
            "LOST: consumed from Kafka, and neither stored nor refused",
            "./run logs driver_events",
        )
    if trace.journal is not None:
        return _only_journal(trace)
    if known is not None:
        newest = f"the newest seq of boot {boot} is {known.newest_seq}"
        if seq <= known.newest_seq:
            return TraceResult(
                "unknown",
                f"never received: {newest}, and {seq} is missing",
                "the watermark lists it as missing; a device that still has it resends it",
            )
        return TraceResult(
            "unknown", f"never received: {newest}", "check whether the device has sent it"
        )
    return TraceResult(
        "unknown",
        f"never received: no boot of {trace.driver_id} has the seq {seq}",
        "a fix without boot and seq (a plain PATCH) cannot be traced; --boot names another boot",
    )


def _stored(trace: Trace) -> TraceResult:
    history = trace.history
    assert history is not None  # noqa: S101 - for mypy; checked by the caller
    recorded_at = history.recorded_at
    sentence = f"committed at {format_instant(recorded_at)}" if recorded_at else "committed"
    if history.received_at < history.fix_at:
        sentence += (
            f"; the phone's clock is {_format_span(history.received_at, history.fix_at)} ahead"
        )
    elif recorded_at:
        sentence += (
            f", {_format_span(history.fix_at, history.received_at)} after it was due "
            f"and {_format_span(history.received_at, recorded_at)} after it arrived"
        )
    else:
        sentence += "; its day is packed, which drops the time of the commit"
    if history.quarantine is not None:
        sentence += f"; in quarantine ({history.quarantine}), so it is never used as evidence"
    if trace.letters:
        reasons = ", ".join(sorted({letter.reason for letter in trace.letters}))
        sentence += f"; another copy was refused ({reasons})"
    return TraceResult("committed", sentence)


def _refused_without_letter(trace: Trace) -> TraceResult:
    if (trace.journal is not None and trace.journal.is_voided) or any(
        isinstance(one.entry, Refused) and one.entry.is_void for one in trace.records
    ):
        return TraceResult(
            "void", "closed by its device, which no longer had it or resent it without success"
        )
    return TraceResult(
        "refused",
        "refused: its dead letter has expired (30 days) or is not written yet, the fix came over "
        "HTTP, where the response had the reason, or it was taken off duty and dropped",
    )


def _only_journal(trace: Trace) -> TraceResult:
    journal = trace.journal
    assert journal is not None  # noqa: S101 - for mypy; checked by the caller
    if trace.seq > journal.last_seq:
        return TraceResult(
            "unknown", f"never used: the journal's newest seq of this boot is {journal.last_seq}"
        )
    if journal.is_pending:
        return TraceResult(
            "pending",
            "never received: still in the device's journal",
            "the device sends it when it is connected: ./run logs mosquitto-1, ./run logs bridge",
        )
    if journal.is_voided:
        return TraceResult("void", "closed by its device, and not received yet")
    return TraceResult(
        "lost",
        "LOST: the journal dropped it as committed, and the database does not have it",
        "this is a bug: keep the journal and the database unchanged",
    )


def _journal(trace: Trace) -> Step:
    journal = trace.journal
    if journal is None:
        return Step(
            "journal",
            "none",
            "the driver's journals have no such boot"
            if trace.has_journal
            else "none on this machine",
        )
    if journal.is_pending:
        return Step("journal", "wait", "pending: no watermark has passed it")
    if journal.is_voided:
        return Step("journal", "no", "closed as void")
    if trace.seq > journal.last_seq:
        return Step("journal", "none", f"not used yet: the newest is {journal.last_seq}")
    return Step("journal", "yes", "dropped: the watermark has passed it")


def _kafka(trace: Trace) -> list[Step]:
    if not trace.records:
        first, end = trace.searched
        return [
            Step(
                "driver-pos",
                "none",
                f"not among offsets {first:,} to {max(first, end - 1):,} of partition "
                f"{trace.partition}: it came over HTTP, earlier, or not at all",
            )
        ]
    return [
        Step(
            "driver-pos",
            "yes" if one.is_consumed else "wait",
            f"{one.partition}:{one.offset}, arrived {time_text(one.at_ms)}, "
            + (
                "consumed"
                if one.is_consumed
                else f"not consumed yet ({trace.lag:,} records are waiting)"
            ),
        )
        for one in trace.records
    ]


def _history(trace: Trace) -> Step:
    history = trace.history
    if history is None:
        known = trace.known
        if known is not None and known.is_stored:
            return Step("history", "none", "was stored; its day is deleted")
        if known is not None and known.is_rejected:
            return Step("history", "no", "not stored: refused")
        return Step("history", "none", "not stored")
    where = f"lat {history.lat_deg:.6f} lon {history.lon_deg:.6f}"
    quarantine = f", quarantine: {history.quarantine}" if history.quarantine else ""
    recorded_at = history.recorded_at
    recorded = f"recorded {format_instant(recorded_at)}" if recorded_at else "packed"
    return Step(
        "history",
        "yes",
        f"{where}, taken {format_instant(history.fix_at)}, received "
        f"{format_instant(history.received_at)}, {recorded}{quarantine}",
    )


def _watermark(trace: Trace) -> Step:
    mark = trace.watermark
    if mark is None:
        return Step("watermark", "none", "no such boot in the database")
    gaps = f", {len(mark.missing)} gaps below it" if mark.missing else ""
    covered = "covers it" if trace.is_acknowledged else "does not cover it"
    text = f"{mark.seq}{gaps}: {covered}"
    return Step("watermark", "yes" if trace.is_acknowledged else "wait", text)


def _format_span(earlier: datetime, later: datetime) -> str:
    seconds = (later - earlier).total_seconds()
    if seconds < 120:
        return f"{seconds:.2f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"
