"""The figures at the end of a demo."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from doorstep.errors import DoorstepError
from doorstep.provision import owner_connection
from ops.fleet_statistics import read_evidence, read_latency_ms, read_orders
from ops.ledger import Boot, Ledger, compare, read_journals
from ops.stack.stack import Stack

AGREE_TIMEOUT_S = 60.0
RETRY_S = 1.0
QUARANTINE_REASONS = {
    "inaccurate": "accuracy worse than 200 m",
    "null_island": "at latitude 0, longitude 0",
    "swapped": "latitude and longitude swapped",
}


@dataclass(frozen=True, slots=True)
class DemoStart:
    """What a demo's figures are counted from."""

    at: datetime
    seqs: Mapping[Boot, int]  # the newest seq of each boot in the journals
    driver_ids: list[str]  # grows as couriers are added


@dataclass(frozen=True, slots=True)
class DemoReport:
    """The result of a demo."""

    orders: Mapping[str, int]
    ledger: Ledger
    evidence: Mapping[str, int]
    latency_ms: Mapping[str, float] | None  # None without any fix

    def as_json(self) -> str:
        """Format for programs: one line."""
        latency = self.latency_ms or dict.fromkeys(("p50", "p95", "p99"))
        return json.dumps(
            {
                "orders": self.orders,
                "fixes": self.ledger.fixes(),
                "evidence": self.evidence,
                "latency_ms": {"publish_to_commit": latency},
            }
        )

    def as_text(self) -> str:
        """Format for people: a few lines."""
        orders = ", ".join(f"{count} {state}" for state, count in self.orders.items() if count)
        fixes = ", ".join(f"{count:,} {what}" for what, count in self.ledger.fixes().items())
        proved = ", ".join(f"{count} {state}" for state, count in self.evidence.items())
        lines = [f"orders   {orders}", f"fixes    {fixes}", f"proved   {proved or 'nothing'}"]
        if self.latency_ms:
            late = ", ".join(f"{name} {ms:,.0f} ms" for name, ms in self.latency_ms.items())
            lines.append(f"commit   {late} after a fix was due")
        return "\n".join(lines)

    def hints(self) -> list[str]:
        """Problems, and for each kind of quarantined fix the command that shows one."""
        lines = self.ledger.complaints()
        examples = self.ledger.quarantine_examples()
        if examples:
            lines.append("quarantined: stored and acknowledged, but never used as evidence")
        for reason, count in self.ledger.quarantined.most_common():
            driver_id, boot, seq = examples[reason]
            meaning = QUARANTINE_REASONS.get(reason, reason)
            lines.append(
                f"  {count} {reason} ({meaning}); one of them, while the stack is up: "
                f"./run where {driver_id} {seq} --boot {boot}"
            )
        return lines


def make_report(stack: Stack, start: DemoStart) -> DemoReport:
    """Compare journals and database until they agree, for up to a minute. Raises DoorstepError."""
    deadline = time.monotonic() + AGREE_TIMEOUT_S
    while True:
        try:
            report = _read_report(stack, start)
            if report.ledger.agrees or time.monotonic() > deadline:
                return report
        except DoorstepError as exc:
            if not exc.retriable or time.monotonic() > deadline:
                raise
        time.sleep(RETRY_S)


def _read_report(stack: Stack, start: DemoStart) -> DemoReport:
    with owner_connection(stack.database_admin_url) as conn:
        return DemoReport(
            orders=read_orders(conn, start.driver_ids, start.at),
            ledger=compare(conn, read_journals(stack.paths.journals), start.seqs),
            evidence=read_evidence(conn, start.driver_ids, start.at),
            latency_ms=read_latency_ms(conn, start.driver_ids, start.at),
        )
