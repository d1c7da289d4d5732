"""`python -m bench.load`: run it, write the report, and say whether the rate was held."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Sequence
from types import FrameType
from typing import Any

from bench.load.bare_chain import measure_bare
from bench.load.options import LoadOptions, parse
from bench.load.plot import draw
from bench.load.rate_search import find_limit
from bench.load.report import build_report, summarize
from bench.load.run import Measurement, load_run
from doorstep.errors import DoorstepError

NOT_HELD = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run; the answer is the exit status."""
    options = parse(list(argv) if argv is not None else None)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        report, measured = run_load(options)
    except DoorstepError as exc:
        say(f"load: {exc}" + (f" ({exc.__cause__})" if exc.__cause__ else ""))
        return 1
    except KeyboardInterrupt:
        return 130
    write_out(options, report, measured)
    return 0 if report["held"] else NOT_HELD


def run_load(options: LoadOptions) -> tuple[dict[str, Any], Measurement]:
    """Do what was asked for: the report, and the measurement that its picture shows."""
    with load_run(options, say) as run:
        limit: dict[str, Any] | None = None
        if options.find_limit:
            measured, limit = find_limit(run, say)
        else:
            measured = run.measure(options.interval_s, options.duration_s, options.warm_up_s)
        say("comparing every device's fixes with the database")
        report = build_report(run, measured, run.balance())
        if limit is not None:
            report["limit"] = limit
        if options.bare:
            report["bare"] = measure_bare(run, measured.interval_s, say)
            total = report["bare"]["cpu_us_per_fix"]["total"]
            report["bare"]["ratio"] = round(report["cpu_us_per_fix"]["total"] / total, 3)
    return report, measured


def write_out(options: LoadOptions, report: dict[str, Any], measured: Measurement) -> None:
    """Write the files, and print what was found."""
    text = json.dumps(report, indent=1, ensure_ascii=False)
    if options.report is not None:
        options.report.write_text(text + "\n", encoding="utf-8")
        picture = options.report.with_suffix(".svg")
        picture.write_text(draw(report, measured), encoding="utf-8")
        say(f"written: {options.report} and {picture}")
    if options.json:
        print(json.dumps(report, ensure_ascii=False))
    else:
        print("\n".join(summarize(report)))


def say(line: str) -> None:
    """Tell how far it is."""
    print(f"{time.strftime('%H:%M:%S')}  {line}", file=sys.stderr, flush=True)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    """Let a second Ctrl-C not break the cleaning up that the first one began."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    say("stopping")
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
