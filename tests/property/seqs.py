"""Which seqs of a boot are settled: what must hold, and the structure that the database keeps.

`Known` is the specification: two sets. `Boot` is the structure with bounded cost, a prefix and
blocks of 2,048 seqs, with the rules of docs/explanation/watermark.md. The counterexamples that led
to a rule are in `test_seqs.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

BLOCK = 2048
BLOCKS_PER_FIX = 2  # that the prefix may pass
MOST_GAPS = 64  # in a watermark
MOST_BLOCKS = 64  # read for a watermark
Watermark = tuple[int, list[tuple[int, int]]]


@dataclass
class Known:
    """The sets of stored and rejected seqs."""

    stored: set[int] = field(default_factory=set)
    rejected: set[int] = field(default_factory=set)

    def take(self, seq: int, *, good: bool) -> str:
        """Take a fix (or a void) and say what becomes of it."""
        if seq in self.stored:
            return "duplicate"
        if not good:
            was_rejected = seq in self.rejected
            self.rejected.add(seq)
            return "rejected_before" if was_rejected else "rejected"
        self.rejected.discard(seq)
        self.stored.add(seq)
        return "committed"


@dataclass
class Block:
    """The bits of 2,048 seqs."""

    stored: set[int] = field(default_factory=set)
    rejected: set[int] = field(default_factory=set)


@dataclass
class Boot:
    """A prefix and blocks. `touched` is how many blocks the last fix read or wrote."""

    settled_to: int = 0
    newest_seq: int = 0
    blocks: dict[int, Block] = field(default_factory=dict)
    touched: int = 0

    def take(self, seq: int, *, good: bool) -> str:
        """Take a fix (or a void) and say what becomes of it, as `Known.take`."""
        self.touched = 0
        if self.is_stored(seq):
            return "duplicate"
        was_rejected = self.is_rejected(seq)
        if was_rejected and not good:
            return "rejected_before"
        if good and self.newest_seq == self.settled_to == seq - 1:
            self.settled_to = self.newest_seq = seq  # the one cheap path: no block is touched
        else:
            self._settle(seq, good=good)
        return "committed" if good else "rejected"

    def is_stored(self, seq: int) -> bool:
        """At or below the prefix, stored means that there is no rejected bit."""
        if seq > self.newest_seq:
            return False
        block = self._block(seq)
        if seq <= self.settled_to:
            return block is None or seq not in block.rejected
        return block is not None and seq in block.stored

    def is_rejected(self, seq: int) -> bool:
        if seq > self.newest_seq:
            return False
        block = self._block(seq)
        return block is not None and seq in block.rejected

    def _block(self, seq: int) -> Block | None:
        self.touched += 1
        return self.blocks.get(seq // BLOCK)

    def _settle(self, seq: int, *, good: bool) -> None:
        self.touched += 1
        block = self.blocks.setdefault(seq // BLOCK, Block())
        (block.stored if good else block.rejected).add(seq)
        block.rejected -= block.stored
        self.newest_seq = max(self.newest_seq, seq)
        before = self.settled_to
        for _ in range(BLOCKS_PER_FIX):
            found = self._block(self.settled_to + 1)
            if found is None or self.settled_to == self.newest_seq:
                break
            end = (self.settled_to + 1) // BLOCK * BLOCK + BLOCK - 1
            while self.settled_to < end and (
                self.settled_to + 1 in found.stored or self.settled_to + 1 in found.rejected
            ):
                self.settled_to += 1
            if self.settled_to < end:
                break
        for number in {seq // BLOCK, *range(before // BLOCK, self.settled_to // BLOCK + 1)}:
            is_passed = number * BLOCK + BLOCK - 1 <= self.settled_to
            is_needed = not is_passed and self.settled_to < self.newest_seq
            if number in self.blocks and not (self.blocks[number].rejected or is_needed):
                del self.blocks[number]

    def watermark(self) -> Watermark:
        """The last settled seq and the gaps before it, as far as is looked."""
        last, gaps = self.settled_to, []
        numbers = sorted(n for n in self.blocks if n >= (self.settled_to + 1) // BLOCK)
        for number in numbers[:MOST_BLOCKS]:
            block = self.blocks[number]
            for seq in sorted(block.stored | block.rejected):
                if seq <= last:
                    continue
                if seq > last + 1:
                    if len(gaps) == MOST_GAPS:
                        return last, gaps
                    gaps.append((last + 1, seq - 1))
                last = seq
        return last, gaps
