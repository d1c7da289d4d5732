"""The ETA's model in the database: for both roles, it holds nothing of an order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from doorstep.store import commands
from doorstep.store.deadline import run_command
from doorstep.store.pool import Pool
from eta.codec import model_from_json
from eta.model import EtaModel


class EtaStore(Protocol):
    """The newest model. Errors are DoorstepErrors."""

    async def read_eta_model(self, known_id: int) -> EtaModel | None: ...


@dataclass(frozen=True, slots=True)
class EtaQueries:
    """The EtaStore on PostgreSQL, over either pool."""

    pool: Pool

    async def read_eta_model(self, known_id: int) -> EtaModel | None:
        """Read the newest ETA model. None if it is the one with this id, or there is none."""
        found = await run_command(self.pool, lambda conn: commands.read_eta_model(conn, known_id))
        return model_from_json(found) if found is not None else None
