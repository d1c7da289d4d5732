"""The structure of settled seqs agrees with plain sets, at a bounded cost for each fix."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.property.seqs import BLOCK, MOST_BLOCKS, MOST_GAPS, Boot, Known

Step = tuple[int, bool]
MOST_TOUCHED = 5  # blocks per fix: two looks at its own, one written, two that the prefix passes


def play(steps: Iterable[Step]) -> tuple[Boot, Known, int]:
    """Play on both and compare; return the most blocks that one fix touched."""
    boot, known, most = Boot(), Known(), 0
    for seq, good in steps:
        assert boot.take(seq, good=good) == known.take(seq, good=good), seq
        most = max(most, boot.touched)
    seqs = {s + d for s in (known.stored | known.rejected) for d in (-1, 0, 1)}
    assert {s for s in seqs if s and boot.is_stored(s)} == known.stored
    assert {s for s in seqs if s and boot.is_rejected(s)} == known.rejected
    seq, missing = boot.watermark()
    for first, last in [*missing, (seq + 1, boot.settled_to)]:
        assert not known.stored & set(range(first, last + 1))
    claimed = seq - sum(last - first + 1 for first, last in missing)
    assert claimed == len({s for s in known.stored | known.rejected if s <= seq})
    return boot, known, most


WIDE = [1, 2, 3, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK - 1, 2 * BLOCK, 3 * BLOCK, 9 * BLOCK]


@given(st.lists(st.tuples(st.sampled_from([1, 2, 3, 4, 5, 6, *WIDE]), st.booleans()), max_size=40))
def test_boot__any_steps__does_what_two_sets_do(steps: list[Step]) -> None:
    play(steps)


@given(st.lists(st.tuples(st.integers(1, 300), st.booleans()), max_size=400), st.integers(0, 4097))
def test_boot__any_steps_around_a_block_s_edge__does_what_two_sets_do(
    steps: list[Step], start: int
) -> None:
    play([*((seq, True) for seq in range(1, start + 1)), *((start + s, g) for s, g in steps)])


def test_void_1_then_good_1__the_good_fix_is_stored_once() -> None:
    boot, known, _ = play([(1, False), (1, True), (1, True), (2, True), (1, False)])
    assert known.stored == {1, 2}
    assert boot.blocks == {}


def test_a_rejected_seq_that_the_prefix_has_passed__can_still_be_stored() -> None:
    steps = [(5, False), *((s, True) for s in range(1, 3 * BLOCK) if s != 5), (5, True), (5, True)]
    boot, known, _ = play(steps)
    assert 5 in known.stored
    assert boot.blocks == {}


def test_2_to_60000_then_1__no_fix_touches_more_than_a_few_blocks() -> None:
    boot, _, most = play([*((s, True) for s in range(2, 60_001)), (1, True)])
    assert most <= MOST_TOUCHED
    assert boot.settled_to < 60_000
    assert boot.watermark() == (60_000, [])
    for seq in range(60_001, 60_001 + 60_000 // BLOCK):
        boot.take(seq, good=True)
    assert boot.settled_to == boot.newest_seq
    assert boot.blocks == {}


@pytest.mark.parametrize("seed", range(5))
def test_a_shuffle_of_1000__ends_in_the_same_state(seed: int) -> None:
    seqs = list(range(1, 1001))
    random.Random(seed).shuffle(seqs)
    boot, _, most = play((seq, True) for seq in seqs)
    assert most <= MOST_TOUCHED
    assert (boot.settled_to, boot.newest_seq, boot.blocks) == (1000, 1000, {})


def test_40000_odd_seqs__few_blocks_and_a_watermark_of_64_gaps() -> None:
    boot, _, most = play((seq, True) for seq in range(1, 80_000, 2))
    assert most <= MOST_TOUCHED
    assert len(boot.blocks) == 80_000 // BLOCK + 1
    assert boot.watermark()[0] == 2 * MOST_GAPS + 1
    assert len(boot.watermark()[1]) == MOST_GAPS


def test_40000_alternating_voids__few_blocks_and_no_gap() -> None:
    boot, known, most = play((seq, seq % 2 == 0) for seq in range(1, 40_001))
    assert most <= MOST_TOUCHED
    assert len(boot.blocks) == 40_000 // BLOCK + 1  # they remember what was rejected
    assert boot.watermark() == (40_000, [])
    assert len(known.rejected) == 20_000


def test_a_fix_in_each_of_many_blocks__the_watermark_reads_64_of_them() -> None:
    boot, _, _ = play((seq, True) for seq in range(1, 100 * BLOCK, BLOCK))
    seq, missing = boot.watermark()
    assert seq <= MOST_BLOCKS * BLOCK + 1
    assert len(missing) <= MOST_GAPS
