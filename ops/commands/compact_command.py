"""`./run compact`: packs the history's sealed days, and deletes what is past its time."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict

from doorstep.provision import owner_connection
from doorstep.store.compaction import Compacted, Compactor, Plan, oldest_unread
from ops.commands.runner import run_command, say
from ops.commands.settings import OperatorSettings

EXAMPLES = """examples:
  ./run compact --dry-run               what would be packed, and why no more
  ./run compact                         do it; driver_events does the same by itself, hourly
  ./run compact --retention-days 30     and keep 30 days from now on

A day is sealed once none of its fixes can come any more: after the lateness window (24 h) and
Kafka's retention (48 h), and never while an order of that time is open, a fix of it is parked, or
driver_events has not read what arrived then. Packed fixes are read as before, but for altitude_m
and recorded_at, which are not kept. It may be stopped at any time and run again.
The exit status is 0, or 1 if something is in the way."""
SAY_EVERY_S = 2.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the answer is the exit status."""
    options = _parser().parse_args(argv)
    return run_command("compact", lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    settings = OperatorSettings.load()
    with owner_connection(settings.database_admin_url.get_secret_value()) as conn:
        compactor = Compactor(conn)
        unread = oldest_unread(conn, settings.kafka_bootstrap_servers, settings.kafka_topic)
        plan = compactor.plan(unread)
        days = options.retention_days or plan.history_days
        if options.dry_run:
            _tell_plan(compactor, plan, days, options.json)
            return 0
        if options.retention_days:
            compactor.keep_days(days)
        done = compactor.run(plan, _seldom(lambda line: say("compact", line)))
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
    """Say how it went."""
    lines = [
        f"packed {done.days:,} days: {done.fixes:,} fixes in {done.chunks:,} chunks"
        if done.days
        else "nothing to pack",
        _why(plan),
    ]
    if done.still_there:
        lines.append(
            f"{done.still_there} packed days are still there twice, as somebody is reading or "
            "writing; the next run drops them (each is read once)"
        )
    if done.expired:
        lines.append(f"deleted {done.expired:,} fixes that were older than {history_days} days")
    return "\n".join(lines)


def _tell_plan(compactor: Compactor, plan: Plan, days: int, as_json: bool) -> None:
    counts = {str(day): compactor.count(day) for day in plan.days}
    past = compactor.count_past(days)
    if as_json:
        print(json.dumps(_plan_json(plan) | {"would_pack": counts, "would_delete": past}))
        return
    for day, count in counts.items():
        print(f"would pack {day}: {count:,} fixes")
    if not counts:
        print("nothing to pack")
    print(_why(plan))
    if past:
        print(f"would delete {past:,} fixes that are older than {days} days")


def _why(plan: Plan) -> str:
    """Say how far the history is sealed, or may be, and why no further."""
    reasons = {
        "age": "fixes of those may still come",
        "unread": "driver_events has not read all that arrived since then: ./run status",
        "parked": "a fix of then is parked: ./run logs driver_events",
    }
    reason = reasons.get(plan.held_by, f"{plan.held_by} is open since then, or ended lately")
    return f"days from {plan.before:%Y-%m-%d} on stay as they are: {reason}"


def _plan_json(plan: Plan) -> dict[str, object]:
    return {"sealed_before": plan.before.isoformat(), "held_by": plan.held_by}


def _seldom(say_it: Callable[[str], None]) -> Callable[[str], None]:
    """Say a line every two seconds at most."""
    next_at = time.monotonic() + SAY_EVERY_S

    def tell(line: str) -> None:
        nonlocal next_at
        if time.monotonic() >= next_at:
            next_at = time.monotonic() + SAY_EVERY_S
            say_it(line)

    return tell


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./run compact",
        description="Packs the history's sealed days, and deletes what is past its time.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be done")
    parser.add_argument(
        "--retention-days",
        type=_days,
        metavar="N",
        help="keep fixes for N days, from now on (90 at first, 7 at least)",
    )
    parser.add_argument("--json", action="store_true", help="the answer for programs")
    return parser


def _days(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not 7 <= int(text[:9]) <= 36_500:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of days from 7 to 36,500")
    return int(text)


if __name__ == "__main__":
    raise SystemExit(main())
