"""The ledger's arithmetic. How it reads PostgreSQL is in tests/integration/test_ledger.py."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from device.journal import PublishedBoot
from ops.ledger import Ledger, StoredBoot, balance, count, join, overlap, subtract

SPANS = st.lists(
    st.tuples(st.integers(1, 60), st.integers(0, 9)).map(lambda pair: (pair[0], sum(pair))),
    max_size=8,
)


def seqs(spans: list[tuple[int, int]]) -> set[int]:
    return {seq for first, last in spans for seq in range(first, last + 1)}


def life(last_seq: int, pending: int = 0) -> PublishedBoot:
    return PublishedBoot("anna", "b1", last_seq, pending=pending, voids=0)


def stored(
    *in_history: tuple[int, int], rejected: list[tuple[int, int]] | None = None
) -> StoredBoot:
    return StoredBoot(
        stored=in_history,
        rejected=rejected or [],
        in_history=in_history,
        history_rows=count(in_history),
    )


@given(SPANS, SPANS)
def test_spans__joined_subtracted_overlapped__are_what_sets_say(
    one: list[tuple[int, int]], other: list[tuple[int, int]]
) -> None:
    assert seqs(join(one)) == seqs(one)
    assert count(join(one)) == len(seqs(one))
    assert seqs(subtract(one, other)) == seqs(one) - seqs(other)
    assert seqs(overlap(one, other)) == seqs(one) & seqs(other)


def test_balance__everything_committed_or_rejected__agrees() -> None:
    found = balance(life(10), stored((1, 4), (6, 10), rejected=[(5, 5)]))
    assert (found.published, found.committed, found.rejected) == (10, 9, 1)
    assert Ledger([found]).agrees


def test_balance__a_seq_in_neither__is_lost_by_name() -> None:
    found = balance(life(10), stored((1, 4), (7, 10)))
    assert list(found.lost) == [(5, 6)]
    assert Ledger([found]).lost == 2
    assert "lost 5-6" in Ledger([found]).complaints()[0]


def test_balance__the_database_knows_nothing_of_the_boot__all_is_lost() -> None:
    assert Ledger([balance(life(3), StoredBoot())]).fixes() == {
        "published": 3,
        "committed": 0,
        "quarantined": 0,
        "rejected": 0,
        "lost": 3,
    }


def test_balance__ranges_without_their_rows__count_as_lost_and_inconsistent() -> None:
    claims = StoredBoot(stored=[(1, 5)], in_history=[(1, 4)], history_rows=4)
    found = balance(life(5), claims)
    assert list(found.lost) == [(5, 5)]
    assert found.inconsistent


def test_balance__a_row_twice__is_inconsistent_though_nothing_is_lost() -> None:
    twice = StoredBoot(stored=[(1, 5)], in_history=[(1, 5)], history_rows=6)
    found = balance(life(5), twice)
    assert not found.lost
    assert not Ledger([found]).agrees


def test_balance__stored_and_rejected_at_once__is_inconsistent() -> None:
    assert balance(life(5), stored((1, 5), rejected=[(5, 5)])).inconsistent


def test_balance__seqs_that_the_journal_never_used__do_not_agree() -> None:
    found = balance(life(5), stored((1, 7)))
    assert found.unknown == 2
    assert not Ledger([found]).agrees


def test_balance__since_an_earlier_seq__counts_only_what_came_after() -> None:
    found = balance(life(10), stored((3, 9)), since=5)
    assert (found.published, found.committed, list(found.lost)) == (5, 4, [(10, 10)])


def test_balance__quarantined__is_part_of_committed() -> None:
    one = StoredBoot(
        stored=[(1, 5)],
        in_history=[(1, 5)],
        history_rows=5,
        quarantined={"null_island": [(2, 3)], "inaccurate": [(5, 5)]},
    )
    ledger = Ledger([balance(life(5), one)])
    assert ledger.fixes() == {
        "published": 5,
        "committed": 5,
        "quarantined": 3,
        "rejected": 0,
        "lost": 0,
    }
    assert ledger.quarantined == {"null_island": 2, "inaccurate": 1}


def test_ledger__nothing_published__agrees() -> None:
    assert Ledger([]).agrees
    assert Ledger([]).fixes()["published"] == 0
