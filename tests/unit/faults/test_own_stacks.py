"""What faults that run other tests report: the lines that those print."""

from __future__ import annotations

from tests.faults.fault import Counts
from tests.faults.own_stacks import RESTORED, UPGRADED, outcome_of

UPGRADE = (
    "from v0.3.0, 0028 to 0032, in 20.1 s: 2341 fixes acknowledged, 0 lost, 1 twice, 0 acknowledged"
    " PATCHes lost; 12 x 200; steps: migrate"
)
DEVICE = "device: 120 fixes, 30 deleted before the restore, {} in the database, {} lost"
REQUESTS = (
    "restored to a second between: of 9 PATCHes and 9 orders answered as committed, 3 are missing"
)


def test_outcome_of__an_upgrade__has_its_counts() -> None:
    outcome = outcome_of(f"{UPGRADE}\n..\n2 passed", UPGRADED, ok=True)
    assert outcome.ok
    assert outcome.seen == UPGRADE
    assert outcome.counts == Counts(2341, 0, 1)


def test_outcome_of__restores__are_added() -> None:
    output = "\n".join((DEVICE.format(120, 0), REQUESTS, "." + DEVICE.format(119, 1)))
    outcome = outcome_of(output, RESTORED, ok=True)
    assert outcome.counts == Counts(239, 1, 0)
    assert REQUESTS in outcome.seen


def test_outcome_of__a_failed_test__says_why() -> None:
    outcome = outcome_of(f"{UPGRADE}\nE   assert 1 == 0\nFAILED x", UPGRADED, ok=False)
    assert not outcome.ok
    assert "assert 1 == 0" in outcome.seen


def test_outcome_of__one_of_two_upgrades_was_skipped__is_a_failure() -> None:
    output = f"{UPGRADE}\n1 passed, 1 skipped"
    assert outcome_of(output, UPGRADED, ok=True).ok
    outcome = outcome_of(output, UPGRADED, 2, ok=True)
    assert not outcome.ok
    assert "1 of 2 tests" in outcome.seen


def test_outcome_of__nothing_printed__is_a_failure() -> None:
    assert not outcome_of("1 skipped", UPGRADED, ok=True).ok
