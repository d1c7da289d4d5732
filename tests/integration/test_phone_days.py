"""Fourteen real phone-days through the whole stack, twice; see docs/real-traces.md."""

from __future__ import annotations

import asyncio
from pathlib import Path

from ops.stack.stack import Stack
from tests.database import Database
from tests.traces.data import needs_traces, phone_days
from tests.traces.orders import now_ms
from tests.traces.phones import Verdict, judge_days
from tests.traces.whole import PhoneDays

pytestmark = needs_traces
ACK_EVERY_S = 2.0  # the shared stack's


def test_phone_days__as_they_arrived_and_shuffled__leave_the_same(
    stack: Stack, database: Database, tmp_path: Path
) -> None:
    phones = PhoneDays(stack, phone_days(), now_ms(), tmp_path / "journals", ACK_EVERY_S, "days")

    async def judged() -> Verdict:
        verdict = await judge_days(phones, database, tmp_path / "driver_events")
        await phones.close_orders()
        return verdict

    verdict = asyncio.run(judged())

    assert verdict.failures == []
    assert verdict.days == 14
    assert verdict.over_mqtt == {
        "committed": 7393,
        "quarantined inaccurate": 761,
        "rejected too_old": 3,
    }
    assert verdict.over_http["duplicate"] == 3370
    assert sum(verdict.over_http.values()) == verdict.fixes == 8157
    assert verdict.evidence == {
        "at_restaurant": 11,
        "picked_up": 10,
        "arriving": 10,
        "at_customer": 9,
    }
    assert all(row.fixes > 0 and "LOST" not in row.fates for row in verdict.faults)
