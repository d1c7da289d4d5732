"""Which fixes to resend, and which seqs to close as void, by the gaps of an ack.

Acks may be lost, repeated or reordered. What an ack covers stays committed. What it calls missing
may have arrived since, so only fixes that are still in the journal are resent. A seq that is not in
the journal is closed as void only if a second, later ack calls it missing too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from typing import NamedTuple

import msgspec

from device.journal import Boot, Journal
from device.outbox import SeqPayload

MAX_RESENDS = 3
MAX_SEQS_PER_ACK = 4096  # 16 messages of 256; the next ack lists the rest

Span = tuple[int, int]
"""Seqs from the first to the last, both included."""


class Ack(msgspec.Struct, frozen=True):
    """The committed watermark: all seqs of `boot` up to `seq` are committed, except `missing`.

    `hold_s`: fixes over the device's quota are parked, so nothing of the boot is sent again for so
    long. `held` counts the fixes that the platform dropped, because too many were parked.
    """

    boot: str
    seq: int
    missing: list[Span] = []
    hold_s: float = 0.0
    held: int = 0


class Resent(NamedTuple):
    """How often a fix was resent, and the newest seq, the time and `held` at the last resend."""

    times: int
    last_seq: int
    at_s: float
    held: int


class Retransmission:
    """The missing seqs of one boot, and how often each was resent."""

    def __init__(self, journal: Journal, boot: Boot, retry_after_s: float) -> None:
        self._journal = journal
        self._boot = boot
        self._retry_after_s = retry_after_s
        self._resent: dict[int, Resent] = {}

    def plan(self, ack: Ack, *, sent_seq: int, last_seq: int, now_s: float) -> list[SeqPayload]:
        """Return the fixes and voids to send for the gaps of an ack.

        `sent_seq` is the highest seq sent on this connection, `last_seq` the newest written.

        A resend has failed only if a fix written after it is committed: the fixes of one driver
        are processed in the order sent. Otherwise, or if the platform has dropped fixes since, it
        may be slow, and the fix is resent after `retry_after_s` without counting it as failed.
        """
        missing = list(islice(_seqs(ack.missing, sent_seq), MAX_SEQS_PER_ACK))
        still_missing = set(missing)
        self._resent = {
            seq: resent
            for seq, resent in self._resent.items()
            if seq in still_missing or seq > ack.seq  # an ack says nothing about seqs above it
        }
        rows: list[SeqPayload] = []
        for seq in missing:
            before = self._resent.get(seq)
            has_failed = before is None or (ack.seq > before.last_seq and ack.held == before.held)
            if before and not has_failed and now_s - before.at_s < self._retry_after_s:
                continue
            count = (before.times if before else 0) + has_failed
            self._resent[seq] = Resent(count, last_seq, now_s, ack.held)
            payload = self._payload(seq, count, is_repeated=before is not None and has_failed)
            if payload is not None:
                rows.append((seq, payload))
        return rows

    def _payload(self, seq: int, count: int, *, is_repeated: bool) -> bytes | None:
        """Return the fix, a void, or None if an earlier ack may have covered the seq."""
        boot_id = self._boot.boot_id
        pending = self._journal.pending_between(boot_id, seq, seq, 1)
        if pending and count <= MAX_RESENDS:
            return pending[0][1]
        if pending or (is_repeated and not self._journal.is_given_up(boot_id, seq)):
            self._journal.give_up(boot_id, seq)
        if self._journal.is_given_up(boot_id, seq):
            return msgspec.json.encode({"boot": self._boot.boot, "seq": seq, "void": True})
        return None


def committed_spans(ack: Ack) -> list[Span]:
    """Return what an ack covers: 1 to `seq`, without the gaps."""
    edges = [(0, 0), *sorted(ack.missing), (ack.seq + 1, ack.seq + 1)]
    spans = [(before[1] + 1, after[0] - 1) for before, after in pairwise(edges)]
    return [(first, min(last, ack.seq)) for first, last in spans if first <= min(last, ack.seq)]


def _seqs(spans: Sequence[Span], highest: int) -> Iterator[int]:
    for first, last in sorted(spans):
        yield from range(first, min(last, highest) + 1)
