"""Records dead letters again, with their original bytes and arrival time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import psycopg

from doorstep.errors import MalformedFix
from doorstep.fix import Refused, decode_position
from doorstep.phones.letters import decode_letter
from doorstep.store.fix_writer import record_fixes
from doorstep.store.records import rows_of
from ops.commands.dead_letter_reader import StoredDeadLetter
from ops.commands.runner import BadArgument


@dataclass(slots=True)
class Resent:
    """A dead letter that is recorded again, and what became of its fixes."""

    letter: StoredDeadLetter
    driver_id: str
    payload: bytes
    refused: list[str] = field(default_factory=list)  # the reason of each fix refused again
    outcomes: Counter[str] = field(default_factory=Counter)

    def summary(self) -> str:
        """Describe the outcome in a few words."""
        outcomes = [f"{count} {outcome}" for outcome, count in self.outcomes.items()]
        outcomes += [f"refused again: {reason}" for reason in self.refused]
        return ", ".join(outcomes) or "nothing in it was kept"

    def to_json(self) -> dict[str, object]:
        return {
            "id": self.letter.letter_id,
            "outcomes": dict(self.outcomes),
            "refused_again": self.refused,
        }


def resend_of(letter: StoredDeadLetter, payload: bytes | None = None) -> Resent:
    """Prepare a dead letter, optionally with another payload. Raises BadArgument."""
    if letter.driver_id is None:
        raise BadArgument(
            f"dead letter {letter.letter_id} names no driver (topic "
            f"{letter.headers.get('topic', '')!r}): it cannot be recorded"
        )
    return Resent(letter, letter.driver_id, letter.payload if payload is None else payload)


def record_again(conn: psycopg.Connection[Any], resent: Sequence[Resent]) -> None:
    """Record each letter in a transaction of its own, and set its outcomes.

    Its arrival is the original's: a fix that was too old at arrival stays too old, and one that was
    refused by mistake does not become too old by waiting. Raises StoreUnavailable.
    """
    for one in resent:
        try:
            topic = one.letter.headers.get("topic", "")
            decoded = decode_letter(topic, one.payload)
            if decoded is None:
                decoded = decode_position(one.payload)
        except MalformedFix as exc:
            one.refused.append(exc.reason)
            continue
        received_at = datetime.fromtimestamp(one.letter.arrived_at_ms / 1000, UTC)
        rows = rows_of(one.driver_id, decoded, received_at)
        with conn.transaction():
            outcomes = {found.n: found for found in record_fixes(conn, rows)}
        for n, entry in enumerate(decoded):
            found = outcomes.get(n)
            if isinstance(entry, Refused):
                one.refused.append(entry.reason)
            elif found is None:
                one.outcomes["committed"] += 1
            elif found.outcome == "conflict" and entry.boot is None:
                one.outcomes["duplicate"] += 1
            elif found.outcome in ("rejected", "conflict"):
                one.refused.append(found.reason or found.outcome)
            else:
                one.outcomes[found.outcome] += 1
