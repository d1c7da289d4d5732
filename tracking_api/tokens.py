"""Tokens in the database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from doorstep.store import commands
from doorstep.store.deadline import run_command
from doorstep.store.pool import Pool
from doorstep.store.records import Token


class TokenStore(Protocol):
    """Tokens, by their SHA-256. Errors are DoorstepErrors."""

    async def find_token(self, token_sha256: bytes) -> Token | None: ...

    async def find_tokens(self, token_sha256s: Sequence[bytes]) -> dict[bytes, Token]: ...


@dataclass(frozen=True, slots=True)
class TokenQueries:
    """The TokenStore on PostgreSQL."""

    pool: Pool

    async def find_token(self, token_sha256: bytes) -> Token | None:
        """Look a token up. None if it is unknown, revoked or expired."""
        return await run_command(self.pool, lambda conn: commands.find_token(conn, token_sha256))

    async def find_tokens(self, token_sha256s: Sequence[bytes]) -> dict[bytes, Token]:
        """Look several tokens up; unknown, revoked and expired ones are left out."""
        return await run_command(self.pool, lambda conn: commands.find_tokens(conn, token_sha256s))
