"""What a watermark asks of a device: what to forget, what to send again, what to close as void.

Acks may be lost, doubled, or come in another order than they were written. What an ack covers is
true for ever; what it calls missing may have arrived since, so only what the journal still holds
is sent again, and a seq that the journal has let go is closed only when a second, later ack names
it too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from typing import NamedTuple

import msgspec

from device.journal import Boot, Journal

MAX_ARRAY_FIXES = 256
MAX_ARRAY_BYTES = 60_000  # the contract's 64 KiB, less brackets and a margin
MAX_RESENDS = 3
MAX_REPAIRS = 4096  # missing seqs looked at per ack: 16 in flight of 256; the next names the rest

Span = tuple[int, int]
"""Seqs from the first to the last, both included."""


class Ack(msgspec.Struct, frozen=True):
    """The committed watermark: all of `boot` up to `seq` is committed, but for `missing`.

    With `hold_s`, fixes over the device's quota wait at the platform: nothing of the boot is to be
    sent again for so long. `held` counts fixes that the platform could not even keep waiting.
    """

    boot: str
    seq: int
    missing: list[Span] = []
    hold_s: float = 0.0
    held: int = 0


class Resent(NamedTuple):
    """How often a missing fix was sent again, and the newest seq, the time and `held` then."""

    times: int
    sent_before: int
    at_s: float
    held: int


class Retransmission:
    """The missing seqs of one life, and what was already done about them."""

    def __init__(self, journal: Journal, life: Boot, silence_s: float) -> None:
        self._journal = journal
        self._life = life
        self._silence_s = silence_s
        self._resends: dict[int, Resent] = {}

    def plan(
        self, ack: Ack, *, sent_up_to: int, last_seq: int, now_s: float
    ) -> list[tuple[int, bytes]]:
        """What to send for the gaps of an ack: (seq, fix or void).

        A resend has failed for sure only when something written after it was committed: one
        driver's fixes are worked off in the order sent. Without that sign, or when the platform
        has dropped fixes over the quota since, it is repeated after the time of a silence, and not
        counted: the platform may only be slow. Call it while nothing is on hold.
        """
        named = list(islice(_seqs(ack.missing, sent_up_to), MAX_REPAIRS))
        still = set(named)
        self._resends = {
            seq: resent
            for seq, resent in self._resends.items()
            if seq in still or seq > ack.seq  # an ack says nothing about what lies above it
        }
        rows: list[tuple[int, bytes]] = []
        for seq in named:
            before = self._resends.get(seq)
            failed = before is None or (ack.seq > before.sent_before and ack.held == before.held)
            if before is not None and not failed and now_s - before.at_s < self._silence_s:
                continue
            times = (before.times if before else 0) + failed
            self._resends[seq] = Resent(times, last_seq, now_s, ack.held)
            payload = self._payload(seq, times, named_again=before is not None and failed)
            if payload is not None:
                rows.append((seq, payload))
        return rows

    def _payload(self, seq: int, times: int, *, named_again: bool) -> bytes | None:
        life_id = self._life.life_id
        found = self._journal.pending_between(life_id, seq, seq, 1)
        if found and times <= MAX_RESENDS:
            return found[0][1]
        if found or (named_again and not self._journal.is_given_up(life_id, seq)):
            self._journal.give_up(life_id, seq)
        if self._journal.is_given_up(life_id, seq):
            return msgspec.json.encode({"boot": self._life.boot, "seq": seq, "void": True})
        return None  # committed as far as we were told: the ack may be older than that


def _seqs(spans: Sequence[Span], most: int) -> Iterator[int]:
    for first, last in sorted(spans):
        yield from range(first, min(last, most) + 1)


def committed_ranges(ack: Ack) -> list[Span]:
    """What a watermark covers: 1 to `seq` without the gaps, as inclusive ranges."""
    edges = [(0, 0), *sorted(ack.missing), (ack.seq + 1, ack.seq + 1)]
    ranges = [(before[1] + 1, after[0] - 1) for before, after in pairwise(edges)]
    return [(first, min(last, ack.seq)) for first, last in ranges if first <= min(last, ack.seq)]


def join_fixes(rows: Sequence[tuple[int, bytes]]) -> tuple[bytes, int]:
    """Join (seq, payload) rows into one message: (message, how many rows it took).

    One row stays bare.
    """
    size = 0
    taken = 0
    for _, payload in rows[:MAX_ARRAY_FIXES]:
        size += len(payload) + 1
        if taken and size > MAX_ARRAY_BYTES:
            break
        taken += 1
    if taken == 1:
        return rows[0][1], 1
    return b"[" + b",".join(payload for _, payload in rows[:taken]) + b"]", taken
