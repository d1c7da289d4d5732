"""`./run compact`: packs sealed days of the history, and deletes expired ones."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict

from doorstep.provision import owner_connection
from doorstep.store.compaction import Compacted, Compactor, Plan, oldest_unread_at
from ops.commands.runner import run_command
from ops.commands.settings import OperatorSettings
from ops.console import Echo, print_line

EXAMPLES = """examples:
  ./run compact --dry-run               what would be packed, and what limits it
  ./run compact                         pack; driver_events does the same every hour
  ./run compact --retention-days 30     also keep 30 days of fixes from now on

A day is sealed when no fix of it can arrive any more: after the lateness window (24 h) and Kafka's
retention (48 h), and not while an order of that time is open, a fix of it is parked, or
driver_events has not read all records of that time. Packed fixes are read as before, without
altitude_m and recorded_at, which are not kept. The command may be stopped at any time and repeated.
The exit status is 0, or 1 on an error."""
PROGRESS_EVERY_S = 2.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the return value is the exit status."""
    options = _parser().parse_args(argv)
    return run_command("compact", lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    settings = OperatorSettings.load()
    with owner_connection(settings.database_admin_url.get_secret_value()) as conn:
        compactor = Compactor(conn)
        unread = oldest_unread_at(conn, settings.kafka, settings.kafka_topic)
        plan = compactor.plan(unread)
        days = options.retention_days or plan.history_days
        if options.dry_run:
            _print_plan(compactor, plan, days, options.json)
            return 0
        if options.retention_days:
            compactor.set_retention(days)
        done = compactor.run(plan, _throttled(lambda line: print_line(f"compact: {line}")))
        fixes, chunks, size = compactor.size()
    if options.json:
        at_rest = {"fixes": fixes, "chunks": chunks, "bytes": size}
        print(json.dumps(_plan_json(plan) | asdict(done) | {"at_rest": at_rest}))
    else:
        print(summary(plan, done, days))
        if fixes:
            print(f"at rest: {fixes:,} fixes in {chunks:,} chunks, {size / fixes:.1f} bytes a fix")
    return 0


def summary(plan: Plan, done: Compacted, history_days: int) -> str:
    """Describe the result in a few lines."""
    lines = [
        f"packed {done.days:,} days: {done.fixes:,} fixes in {done.chunks:,} chunks"
        if done.days
        else "nothing to pack",
        _limit(plan),
    ]
    if done.still_there:
        lines.append(
            f"{done.still_there} packed days still have their unpacked partition, because it is in "
            "use; the next run drops it (each fix is read once)"
        )
    if done.expired:
        lines.append(f"deleted {done.expired:,} fixes older than {history_days} days")
    return "\n".join(lines)


def _print_plan(compactor: Compactor, plan: Plan, days: int, as_json: bool) -> None:
    counts = {str(day): compactor.count(day) for day in plan.days}
    expired = compactor.count_expired(days)
    if as_json:
        print(json.dumps(_plan_json(plan) | {"would_pack": counts, "would_delete": expired}))
        return
    for day, count in counts.items():
        print(f"would pack {day}: {count:,} fixes")
    if not counts:
        print("nothing to pack")
    print(_limit(plan))
    if expired:
        print(f"would delete {expired:,} fixes older than {days} days")


def _limit(plan: Plan) -> str:
    """Describe where packing stops, and the reason."""
    reasons = {
        "age": "their fixes may still arrive",
        "unread": "driver_events has not read all records since then: see ./run status",
        "parked": "a fix of that time is parked: see ./run logs driver_events",
    }
    reason = reasons.get(plan.held_by, f"{plan.held_by} has been open since then, or ended lately")
    return f"days from {plan.before:%Y-%m-%d} on are not packed: {reason}"


def _plan_json(plan: Plan) -> dict[str, object]:
    return {"sealed_before": plan.before.isoformat(), "held_by": plan.held_by}


def _throttled(echo: Echo) -> Echo:
    """Pass on one line per PROGRESS_EVERY_S."""
    next_at = time.monotonic() + PROGRESS_EVERY_S

    def throttled(line: str) -> None:
        nonlocal next_at
        if time.monotonic() >= next_at:
            next_at = time.monotonic() + PROGRESS_EVERY_S
            echo(line)

    return throttled


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./run compact",
        description="Pack sealed days of the history, and delete expired ones.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="change nothing; print what would be done"
    )
    parser.add_argument(
        "--retention-days",
        type=_days,
        metavar="N",
        help="keep fixes for N days from now on, 7 or more (initially 90)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _days(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not 7 <= int(text[:9]) <= 36_500:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days from 7 to 36,500")
    return int(text)


if __name__ == "__main__":
    raise SystemExit(main())
