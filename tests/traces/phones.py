"""`python -m tests.traces.phones`: 14 real phone-days through a stack, three times.

First in order of arrival, from each phone's journal to PostGIS. Then over HTTP without boot and
seq, which must prove the same. Then the Kafka records of the first pass, shuffled and every tenth
twice, into an empty database, which must end in the same history, evidence and states. The table
shows the outcomes of every kind of defect. See docs/results.md.

    python -m tests.traces.phones                     all of it, about a minute
    python -m tests.traces.phones --days d04 d09      some days
    python -m tests.traces.phones --json              the result as JSON on stdout
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.recordings.traces import GPS, Trace, phone_days
from ops.servers.postgres import running_cluster
from ops.stack.settings import FREE_PORTS, StackSettings
from ops.stack.stack import Stack
from tests.database import Database, cloned_database, create_template
from tests.traces.defects import DefectRow, defects_of, expected_outcome, table_of
from tests.traces.final_state import FinalState, compare, content, evidence_by_day
from tests.traces.orders import now_ms
from tests.traces.phone_days import PhoneDays, Reporter, count_outcomes
from tests.traces.shuffled import send_shuffled

ACK_EVERY_S = 2.0
SEED = 14


@dataclass(slots=True)
class PhoneDaysResult:
    """The outcomes of all passes, and the failures."""

    days: int
    fixes: int
    over_mqtt: dict[str, int]
    over_http: dict[str, int]
    defects: list[DefectRow]
    evidence: dict[str, int]
    jumps_flagged: int
    failures: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return not self.failures

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "ok": self.ok}


async def run_passes(
    phones: PhoneDays, empty: Database, folder: Path, seed: int = SEED
) -> PhoneDaysResult:
    """Run the three passes and compare their results."""
    days = {day.name: day for day in phones.days}
    seconds: dict[str, float] = {}
    at = time.monotonic()

    def record_time(what: str) -> None:
        nonlocal at
        seconds[what] = round(time.monotonic() - at, 1)
        phones.say(f"{what}: {seconds[what]:.1f} s")
        at = time.monotonic()

    await phones.place_orders(["mqtt", "http"])
    record_time("create orders")
    await phones.over_mqtt()
    record_time("send over MQTT")
    final_state = phones.final_state()
    over_mqtt = phones.outcomes()
    jumps = await phones.read_jumps()
    record_time("read")
    over_http = await phones.over_http()
    record_time("send over HTTP")
    shuffled = await asyncio.to_thread(send_shuffled, phones, empty, folder, seed)
    record_time("send shuffled")

    result = PhoneDaysResult(
        days=len(days),
        fixes=sum(len(day.fixes) for day in phones.days),
        over_mqtt=dict(count_outcomes(over_mqtt)),
        over_http=dict(count_outcomes(over_http)),
        defects=table_of(days, over_mqtt, over_http),
        evidence=dict(Counter(row["state"] for row in final_state["evidence"])),
        jumps_flagged=jumps,
        seconds=seconds,
    )
    result.failures += compare("shuffled", shuffled, final_state)
    result.failures += compare_protocols(phones, final_state)
    result.failures += compare_outcomes(days, over_mqtt)
    expected = sum(len(defects_of(day)["flagged_jump"]) for day in phones.days)
    if jumps != expected:
        result.failures.append(f"jumps flagged by GET /history: {jumps}, expected {expected}")
    return result


def compare_protocols(phones: PhoneDays, final_state: FinalState) -> list[str]:
    """Check that HTTP proves the same evidence, and stores each distinct fix once."""
    over_http = phones.final_state("http")
    failures = []
    found, expected = evidence_by_day(over_http), evidence_by_day(final_state)
    if found != expected:
        failures.append(f"HTTP proves other evidence: {found}, expected {expected}")
    for day in phones.days:
        mqtt, http = (
            [row for row in state["history"] if row["driver_id"] == phones.driver_of(day, protocol)]
            for state, protocol in ((final_state, "mqtt"), (over_http, "http"))
        )
        if sorted(map(content, http)) != sorted(set(map(content, mqtt))):
            failures.append(f"{day.name}: the history over HTTP is not the set of its fixes")
    return failures


def compare_outcomes(days: dict[str, Trace], outcomes: dict[str, dict[int, str]]) -> list[str]:
    """Return the fixes whose outcome differs from the expected one."""
    return [
        f"{name} {seq}: {outcomes[name].get(seq, 'LOST')}, expected {expected_outcome(fix)}"
        for name, day in days.items()
        for seq, fix in enumerate(day.fixes, 1)
        if outcomes[name].get(seq) != expected_outcome(fix)
    ]


def report_of(result: PhoneDaysResult) -> list[str]:
    """Return the report as lines of text."""
    lines = [
        f"{result.days} phone-days, {result.fixes:,} fixes",
        f"  over MQTT: {tally(result.over_mqtt)}",
        f"  over HTTP: {tally(result.over_http)}",
        f"  proved: {tally(result.evidence)}",
        f"  flagged as jumps when read: {result.jumps_flagged}",
        "",
        f"{'fixes':>6}  defect",
    ]
    for row in result.defects:
        lines.append(f"{row.fixes:>6,}  {row.what}")
        lines.append(f"{'':>8}MQTT: {tally(row.outcomes)}; HTTP: {tally(row.http)}")
    lines.append("")
    lines += [f"FAILED: {failure}" for failure in result.failures[:20]]
    if result.ok:
        lines.append("shuffled into an empty database: the same history, evidence and states")
    return lines


def tally(counts: dict[str, int]) -> str:
    """Format counts, the most frequent first."""
    found = Counter(counts).most_common()
    return ", ".join(f"{count:,} {what}" for what, count in found) or "none"


def run(names: Sequence[str], say: Reporter) -> PhoneDaysResult:
    """Start a stack and an empty database, and run all passes."""
    days = [day for day in phone_days() if not names or day.name.rpartition("/")[2] in names]
    paths = Path(tempfile.mkdtemp(prefix="doorstep-phones-"))
    paths.chmod(0o755)
    settings = StackSettings(doorstep_home=paths / "stack", **FREE_PORTS)
    environment = os.environ | {
        "ACK_EVERY_S": str(ACK_EVERY_S),
        "SAMPLING_FOLLOWS_DEMAND": "false",  # every recorded fix is sent
    }
    stack = Stack(settings, environment=environment, echo=say)
    try:
        say("starting a stack on free ports")
        stack.up(owner_pid=os.getpid())
        with running_cluster() as cluster:
            create_template(cluster)
            with cloned_database(cluster) as empty:
                phones = PhoneDays(stack, days, now_ms(), paths / "journals", ACK_EVERY_S, say=say)
                return asyncio.run(run_passes(phones, empty, paths / "driver_events"))
    finally:
        stack.down(erase=True)
        shutil.rmtree(paths, ignore_errors=True)


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.traces.phones",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--days", nargs="+", default=[], metavar="DAY", help="d01 to d14")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args()
    if not GPS.exists():
        print(f"there are no recordings in {GPS}", file=sys.stderr)
        return 2
    known = {day.name.rpartition("/")[2] for day in phone_days()}
    if unknown := set(options.days) - known:
        parser.error(f"no such day: {', '.join(sorted(unknown))}; there are d01 to d14")
    result = run(options.days, lambda line: print(line, file=sys.stderr, flush=True))
    if options.json:
        print(json.dumps(result.as_json(), indent=2))
    else:
        print("\n".join(report_of(result)))
    return 0 if result.ok else 1


if __name__ == "__main__":
    sys.exit(main())
