"""Fourteen real phone-days through the whole stack, twice; see docs/results.md."""

from __future__ import annotations

import asyncio
from pathlib import Path

from bench.recordings.traces import phone_days
from ops.stack.stack import Stack
from tests.database import Database
from tests.traces.marks import needs_traces
from tests.traces.orders import now_ms
from tests.traces.phone_days import PhoneDays
from tests.traces.phones import PhoneDaysResult, run_passes

pytestmark = needs_traces
ACK_EVERY_S = 2.0  # the shared stack's


def test_phone_days__as_they_arrived_and_shuffled__leave_the_same(
    stack: Stack, database: Database, tmp_path: Path
) -> None:
    phones = PhoneDays(stack, phone_days(), now_ms(), tmp_path / "journals", ACK_EVERY_S, "days")

    async def run() -> PhoneDaysResult:
        result = await run_passes(phones, database, tmp_path / "driver_events")
        await phones.close_orders()
        return result

    result = asyncio.run(run())

    assert result.failures == []
    assert result.days == 14
    assert result.over_mqtt == {
        "committed": 7393,
        "quarantined inaccurate": 761,
        "rejected too_old": 3,
    }
    assert result.over_http["duplicate"] == 3370
    assert sum(result.over_http.values()) == result.fixes == 8157
    assert result.evidence == {
        "at_restaurant": 11,
        "picked_up": 10,
        "arriving": 10,
        "at_customer": 9,
    }
    assert all(row.fixes > 0 and "LOST" not in row.outcomes for row in result.defects)
