"""`python -m tests.traces.phones`: 14 real phone-days through a whole stack of its own, twice.

First as they arrived, from each phone's journal to PostGIS; then the same Kafka records, shuffled
and every tenth twice, into an empty database. Both must end in the same history, evidence and
states. A third time without boot and seq over HTTP, which must prove the same. The table says what
became of every real fault. See docs/real-traces.md.

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

from ops.stack.settings import StackSettings
from ops.stack.stack import Stack
from tests.database import Database, cloned_database, create_template, running_cluster
from tests.traces.data import GPS, Trace, phone_days
from tests.traces.faults import FaultRow, fate_of, faults_of, table_of
from tests.traces.orders import now_ms
from tests.traces.shuffled import send_shuffled
from tests.traces.standing import Standing, compare, content, proved
from tests.traces.whole import PhoneDays, Say, count_fates

ANY_PORT: dict[str, Any] = {
    name: 0 for name in StackSettings.model_fields if name.endswith("_port")
}
ACK_EVERY_S = 2.0
SEED = 14


@dataclass(slots=True)
class Verdict:
    """What was sent, what became of it, and whether everything held."""

    days: int
    fixes: int
    over_mqtt: dict[str, int]
    over_http: dict[str, int]
    faults: list[FaultRow]
    evidence: dict[str, int]
    jumps_flagged: int
    failures: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return not self.failures

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "ok": self.ok}


async def judge_days(phones: PhoneDays, empty: Database, folder: Path, seed: int = SEED) -> Verdict:
    """Make all three passes, and compare."""
    days = {day.name: day for day in phones.days}
    seconds: dict[str, float] = {}
    at = time.monotonic()

    def lap(what: str) -> None:
        nonlocal at
        seconds[what] = round(time.monotonic() - at, 1)
        phones.say(f"{what}: {seconds[what]:.1f} s")
        at = time.monotonic()

    await phones.place_orders(["mqtt", "http"])
    lap("orders placed")
    await phones.over_mqtt()
    lap("through the whole stack, as they arrived")
    standing = phones.standing()
    over_mqtt = phones.fates()
    jumps = await phones.read_jumps()
    lap("read back")
    over_http = await phones.over_http()
    lap("over HTTP, without boot and seq")
    shuffled = await asyncio.to_thread(send_shuffled, phones, empty, folder, seed)
    lap("shuffled into an empty database")

    verdict = Verdict(
        days=len(days),
        fixes=sum(len(day.fixes) for day in phones.days),
        over_mqtt=dict(count_fates(over_mqtt)),
        over_http=dict(count_fates(over_http)),
        faults=table_of(days, over_mqtt, over_http),
        evidence=dict(Counter(row["state"] for row in standing["evidence"])),
        jumps_flagged=jumps,
        seconds=seconds,
    )
    verdict.failures += compare("shuffled", shuffled, standing)
    verdict.failures += compare_doors(phones, standing)
    verdict.failures += check_fates(days, over_mqtt)
    expected = sum(len(faults_of(day)["flagged_jump"]) for day in phones.days)
    if jumps != expected:
        verdict.failures.append(f"jumps flagged by GET /history: {jumps}, expected {expected}")
    return verdict


def compare_doors(phones: PhoneDays, standing: Standing) -> list[str]:
    """The same days over HTTP must prove the same, and hold each distinct fix once."""
    over_http = phones.standing("http")
    failures = []
    if proved(over_http) != proved(standing):
        failures.append(f"HTTP proves something else: {proved(over_http)} / {proved(standing)}")
    for day in phones.days:
        mqtt, http = (
            [row for row in found["history"] if row["driver_id"] == phones.driver_of(day, door)]
            for found, door in ((standing, "mqtt"), (over_http, "http"))
        )
        if sorted(map(content, http)) != sorted(set(map(content, mqtt))):
            failures.append(f"{day.name}: the history over HTTP is not the set of its fixes")
    return failures


def check_fates(days: dict[str, Trace], fates: dict[str, dict[int, str]]) -> list[str]:
    """Every fix must meet the fate it would have met had it arrived when its phone stored it."""
    return [
        f"{name} {seq}: {fates[name].get(seq, 'LOST')}, expected {fate_of(fix)}"
        for name, day in days.items()
        for seq, fix in enumerate(day.fixes, 1)
        if fates[name].get(seq) != fate_of(fix)
    ]


def lines_of(verdict: Verdict) -> list[str]:
    """The table and the verdict, for people."""
    lines = [
        f"{verdict.days} phone-days, {verdict.fixes:,} fixes",
        f"  over MQTT: {tally(verdict.over_mqtt)}",
        f"  over HTTP: {tally(verdict.over_http)}",
        f"  proved: {tally(verdict.evidence)}",
        f"  flagged as jumps when read: {verdict.jumps_flagged}",
        "",
        f"{'fixes':>6}  fault",
    ]
    for row in verdict.faults:
        lines.append(f"{row.fixes:>6,}  {row.what}")
        lines.append(f"{'':>8}MQTT: {tally(row.fates)}; HTTP: {tally(row.http)}")
    lines.append("")
    lines += [f"FAILED: {failure}" for failure in verdict.failures[:20]]
    if verdict.ok:
        lines.append("shuffled into an empty database: the same history, evidence and states")
    return lines


def tally(counts: dict[str, int]) -> str:
    """Counts in words, the most frequent first."""
    found = Counter(counts).most_common()
    return ", ".join(f"{count:,} {what}" for what, count in found) or "none"


def run(names: Sequence[str], say: Say) -> Verdict:
    """Start a stack and an empty database, and judge the days."""
    days = [day for day in phone_days() if not names or day.name.rpartition("/")[2] in names]
    paths = Path(tempfile.mkdtemp(prefix="doorstep-phones-"))
    paths.chmod(0o755)
    settings = StackSettings(doorstep_home=paths / "stack", **ANY_PORT)
    environment = os.environ | {"ACK_EVERY_S": str(ACK_EVERY_S)}
    stack = Stack(settings, environment=environment, say=say)
    try:
        say("starting a stack on free ports")
        stack.up(owner_pid=os.getpid())
        with running_cluster() as cluster:
            create_template(cluster)
            with cloned_database(cluster) as empty:
                phones = PhoneDays(stack, days, now_ms(), paths / "journals", ACK_EVERY_S, say=say)
                return asyncio.run(judge_days(phones, empty, paths / "driver_events"))
    finally:
        stack.down(erase=True)
        shutil.rmtree(paths, ignore_errors=True)


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.traces.phones",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--days", nargs="+", default=[], metavar="DAY", help="d01 to d14")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args()
    if not GPS.exists():
        print(f"the recorded traces are not here: {GPS}", file=sys.stderr)
        return 2
    known = {day.name.rpartition("/")[2] for day in phone_days()}
    if unknown := set(options.days) - known:
        parser.error(f"no such day: {', '.join(sorted(unknown))}; there are d01 to d14")
    verdict = run(options.days, lambda line: print(line, file=sys.stderr, flush=True))
    if options.json:
        print(json.dumps(verdict.as_json(), indent=2))
    else:
        print("\n".join(lines_of(verdict)))
    return 0 if verdict.ok else 1


if __name__ == "__main__":
    sys.exit(main())
