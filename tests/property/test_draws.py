"""What `check_each` draws. The seam: no database, the values are only collected."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st

from tests.property.cases import cases
from tests.property.draws import check_each
from tests.property.mutations import GENERATED
from tests.property.steps import Case


def drawn(how_many: int, first_seed: int) -> list[Case]:
    found: list[Case] = []
    check_each(cases, how_many, found.append, GENERATED, first_seed)
    return found


def test_check_each__same_seed__draws_the_same_and_nothing_twice() -> None:
    found = drawn(40, 0)
    assert found == drawn(40, 0)
    assert len(set(found)) == 40
    assert found != drawn(40, 7)


def test_check_each__journeys__seldom_share_a_leg() -> None:
    found = [case for case in drawn(100, 0) if len(case.legs) > 3]
    legs = {leg for case in found for leg in case.legs}
    assert len(legs) > 0.7 * sum(len(case.legs) for case in found)


def test_check_each__failing_value__is_checked_again_and_raised() -> None:
    def check(value: int) -> None:
        assert value < 100

    with pytest.raises(AssertionError):
        check_each(st.integers(0, 10**6), 40, check, GENERATED, first_seed=0)
