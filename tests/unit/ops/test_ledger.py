"""The ledger's arithmetic. tests/integration/test_ledger.py reads a real database."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from device.journal import PublishedBoot
from ops.ledger import Ledger, StoredBoot, balance
from ops.seq_spans import count_seqs, intersect, merge, subtract

SPANS = st.lists(
    st.tuples(st.integers(1, 60), st.integers(0, 9)).map(lambda pair: (pair[0], sum(pair))),
    max_size=8,
)


def seqs(spans: list[tuple[int, int]]) -> set[int]:
    return {seq for first, last in spans for seq in range(first, last + 1)}


def published(last_seq: int, pending: int = 0) -> PublishedBoot:
    return PublishedBoot("anna", "b1", last_seq, pending=pending, voids=0)


def stored(
    *in_history: tuple[int, int], rejected: list[tuple[int, int]] | None = None
) -> StoredBoot:
    return StoredBoot(
        stored=in_history,
        rejected=rejected or [],
        in_history=in_history,
        history_rows=count_seqs(in_history),
    )


@given(SPANS, SPANS)
def test_spans__merge_subtract_intersect__equal_set_operations(
    one: list[tuple[int, int]], other: list[tuple[int, int]]
) -> None:
    assert seqs(merge(one)) == seqs(one)
    assert count_seqs(merge(one)) == len(seqs(one))
    assert seqs(subtract(one, other)) == seqs(one) - seqs(other)
    assert seqs(intersect(one, other)) == seqs(one) & seqs(other)


def test_balance__all_committed_or_rejected__agrees() -> None:
    found = balance(published(10), stored((1, 4), (6, 10), rejected=[(5, 5)]))
    assert (found.published, found.committed, found.rejected) == (10, 9, 1)
    assert Ledger([found]).agrees


def test_balance__a_seq_in_neither__is_lost_and_named() -> None:
    found = balance(published(10), stored((1, 4), (7, 10)))
    assert list(found.lost) == [(5, 6)]
    assert Ledger([found]).lost == 2
    assert "lost 5-6" in Ledger([found]).complaints()[0]


def test_balance__a_boot_without_rows__all_is_lost() -> None:
    assert Ledger([balance(published(3), StoredBoot())]).fixes() == {
        "published": 3,
        "committed": 0,
        "quarantined": 0,
        "rejected": 0,
        "lost": 3,
    }


def test_balance__spans_without_their_rows__are_lost_and_inconsistent() -> None:
    claims = StoredBoot(stored=[(1, 5)], in_history=[(1, 4)], history_rows=4)
    found = balance(published(5), claims)
    assert list(found.lost) == [(5, 5)]
    assert found.inconsistent


def test_balance__a_double_row__is_inconsistent_though_nothing_is_lost() -> None:
    twice = StoredBoot(stored=[(1, 5)], in_history=[(1, 5)], history_rows=6)
    found = balance(published(5), twice)
    assert not found.lost
    assert not Ledger([found]).agrees


def test_balance__stored_and_rejected_at_once__is_inconsistent() -> None:
    assert balance(published(5), stored((1, 5), rejected=[(5, 5)])).inconsistent


def test_balance__seqs_that_the_journal_never_used__do_not_agree() -> None:
    found = balance(published(5), stored((1, 7)))
    assert found.unknown == 2
    assert not Ledger([found]).agrees


def test_balance__since_a_seq__counts_only_later_ones() -> None:
    found = balance(published(10), stored((3, 9)), since=5)
    assert (found.published, found.committed, list(found.lost)) == (5, 4, [(10, 10)])


def test_balance__quarantined__is_part_of_committed() -> None:
    one = StoredBoot(
        stored=[(1, 5)],
        in_history=[(1, 5)],
        history_rows=5,
        quarantined={"null_island": [(2, 3)], "inaccurate": [(5, 5)]},
    )
    ledger = Ledger([balance(published(5), one)])
    assert ledger.fixes() == {
        "published": 5,
        "committed": 5,
        "quarantined": 3,
        "rejected": 0,
        "lost": 0,
    }
    assert ledger.quarantined == {"null_island": 2, "inaccurate": 1}
    assert ledger.quarantine_examples() == {
        "null_island": ("anna", "b1", 2),
        "inaccurate": ("anna", "b1", 5),
    }


def test_ledger__nothing_published__agrees() -> None:
    assert Ledger([]).agrees
    assert Ledger([]).fixes()["published"] == 0
