"""The outbox of one boot: which message goes out next.

Resends and voids come first, then pending fixes in the order of their seqs. While there is a
connection each fix is a message of its own; after an outage, and in batch mode, fixes go out as
arrays. The outbox holds no fixes itself: they are in the journal.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

import msgspec

from device.journal import Boot, Journal

MAX_ARRAY_FIXES = 256
MAX_ARRAY_BYTES = 60_000  # the contract's 64 KiB, minus brackets and a margin

MAX_ASKED_BETWEEN = 6
GOLDEN_RATIO = 0.618  # its multiples, modulo 1, are spread evenly

SeqPayload = tuple[int, bytes]
"""A seq, and its encoded fix or void."""


class Outbox:
    """Writes fixes to the journal and gives them out in order."""

    def __init__(self, journal: Journal, boot: Boot) -> None:
        self.boot = boot
        self.last_seq = boot.last_seq  # the newest seq in the journal
        self.sent_seq = 0  # the highest seq sent on this connection
        self.given_up = journal.count_given_up(boot.boot_id)
        self._journal = journal
        self._newest: SeqPayload | None = None  # saves reading it from the journal
        self._resends: deque[bytes] = deque()
        self._questions = 0
        self._unsent_since_s: float | None = None  # when the oldest unsent fix was written

    @property
    def has_unsent(self) -> bool:
        """Whether a fix or a resend has not been sent on this connection."""
        return self.sent_seq < self.last_seq or bool(self._resends)

    def write(self, fix: Mapping[str, object], now_s: float) -> int:
        """Write a fix to the journal with the next seq, and return that.

        A full journal gives up its oldest fix. Durable after the journal's next commit.
        """
        seq = self.last_seq + 1
        payload = msgspec.json.encode({"boot": self.boot.boot, "seq": seq, **fix})
        given_up = self._journal.append([(self.boot.boot_id, seq, payload)])
        self.given_up += sum(given_up.values())
        if self.sent_seq >= self.last_seq:
            self._unsent_since_s = now_s
        self.last_seq = seq
        self._newest = (seq, payload)
        return seq

    def next_message(self, now_s: float, batch_s: float) -> bytes | None:
        """Return the next message; None if all is sent, or waits for more fixes of its batch."""
        if self._resends:
            return self._resends.popleft()
        if self.sent_seq >= self.last_seq or self._is_batching(now_s, batch_s):
            return None
        if self._newest is not None and self.sent_seq == self._newest[0] - 1:
            self.sent_seq, payload = self._newest
            return payload
        rows = self._journal.pending_after(self.boot.boot_id, self.sent_seq, MAX_ARRAY_FIXES)
        if not rows:
            self.sent_seq = self.last_seq
            return None
        message, count = join_payloads(rows)
        self.sent_seq = rows[count - 1][0]
        return message

    def resend(self, rows: Sequence[SeqPayload]) -> None:
        """Queue fixes and voids before everything else."""
        while rows:
            message, count = join_payloads(rows)
            self._resends.append(message)
            rows = rows[count:]

    def ask(self) -> None:
        """Send the oldest and the newest pending fix again, and some between, to get an ack.

        Others between are taken each time, so that unreadable ones cannot stay without an answer.
        """
        boot_id = self.boot.boot_id
        oldest = self._journal.pending_after(boot_id, 0, 1)
        newest = self._journal.last_pending(boot_id, self.sent_seq)
        if not oldest or not newest or oldest[0] > newest[0]:
            return
        (first, _), (last, _) = oldest[0], newest[0]
        self._questions += 1
        phase = self._questions * GOLDEN_RATIO % 1
        rows = dict(oldest + newest)
        for n in range(MAX_ASKED_BETWEEN):
            after = first + int((last - first) * (n + phase) / MAX_ASKED_BETWEEN)
            rows |= self._journal.pending_between(boot_id, after, last, 1)
        self.resend(sorted(rows.items()))

    def rewind(self) -> None:
        """Send all pending fixes again, from the oldest."""
        self.sent_seq = 0
        self._unsent_since_s = None  # batching is for new fixes only
        self.cancel_resends()

    def end_batch(self) -> None:
        """Let unsent fixes wait for no others. The next fix begins a new batch."""
        self._unsent_since_s = None

    def cancel_resends(self) -> None:
        """Forget the queued resends. The fixes stay in the journal."""
        self._resends.clear()

    def _is_batching(self, now_s: float, batch_s: float) -> bool:
        """Whether unsent fixes wait for others, to wake the radio less often."""
        return (
            batch_s > 0
            and self._unsent_since_s is not None
            and now_s - self._unsent_since_s < batch_s
        )


def join_payloads(rows: Sequence[SeqPayload]) -> tuple[bytes, int]:
    """Join payloads to one message, and return how many it holds.

    A single payload is sent without brackets.
    """
    size = count = 0
    for _, payload in rows[:MAX_ARRAY_FIXES]:
        size += len(payload) + 1
        if count and size > MAX_ARRAY_BYTES:
            break
        count += 1
    if count == 1:
        return rows[0][1], 1
    return b"[" + b",".join(payload for _, payload in rows[:count]) + b"]", count
