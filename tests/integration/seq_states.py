"""The state of seqs in the database, as tests compare it with what devices sent."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from sql import read_sql

Identity = tuple[str, str, int]
"""(driver_id, boot, seq)"""


@dataclass(frozen=True, slots=True)
class Known:
    """One seq in the database."""

    is_stored: bool
    is_rejected: bool
    is_parked: bool
    recorded_at: datetime | None


def read_known(
    conn: psycopg.Connection[Any], identities: Iterable[Identity]
) -> dict[Identity, Known]:
    """Read the state of some fixes."""
    asked = sorted(set(identities))
    parameters = {
        "driver_ids": [one[0] for one in asked],
        "boots": [one[1] for one in asked],
        "seqs": [one[2] for one in asked],
    }
    rows = conn.execute(read_sql("dead_letter_replay/seq_states.sql"), parameters).fetchall()
    return {tuple(row[:3]): Known(*row[3:]) for row in rows}
