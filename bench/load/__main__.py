"""`python -m bench.load`: run the load test and write the report."""

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
from bench.load.report import build_report, summary_lines
from bench.load.run import Measurement, load_run
from doorstep.errors import DoorstepError

NOT_SUSTAINED = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run the test. Returns the exit status: 3 if the rate was not sustained."""
    options = parse(list(argv) if argv is not None else None)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        report, measured = run_load(options)
    except DoorstepError as exc:
        progress(f"load: {exc}" + (f" ({exc.__cause__})" if exc.__cause__ else ""))
        return 1
    except KeyboardInterrupt:
        return 130
    write_out(options, report, measured)
    return 0 if report["sustained"] else NOT_SUSTAINED


def run_load(options: LoadOptions) -> tuple[dict[str, Any], Measurement]:
    """Run the measurements: the report, and the measurement that its plot shows."""
    with load_run(options, progress) as run:
        max_rate: dict[str, Any] | None = None
        if options.find_limit:
            measured, max_rate = find_limit(run, progress)
        else:
            measured = run.measure(options.interval_s, options.duration_s, options.warm_up_s)
        progress("reconciling every device's fixes with the database")
        report = build_report(run, measured, run.reconcile())
        if max_rate is not None:
            report["max_rate"] = max_rate
        if options.bare:
            report["bare"] = measure_bare(run, measured.interval_s, progress)
            total = report["bare"]["cpu_us_per_fix"]["total"]
            report["bare"]["ratio"] = round(report["cpu_us_per_fix"]["total"] / total, 3)
    return report, measured


def write_out(options: LoadOptions, report: dict[str, Any], measured: Measurement) -> None:
    """Write the report and its plot, and print a summary."""
    text = json.dumps(report, indent=1, ensure_ascii=False)
    if options.report is not None:
        options.report.write_text(text + "\n", encoding="utf-8")
        plot_file = options.report.with_suffix(".svg")
        plot_file.write_text(draw(report, measured), encoding="utf-8")
        progress(f"written: {options.report} and {plot_file}")
    if options.json:
        print(json.dumps(report, ensure_ascii=False))
    else:
        print("\n".join(summary_lines(report)))


def progress(line: str) -> None:
    """Print a progress line to stderr."""
    print(f"{time.strftime('%H:%M:%S')}  {line}", file=sys.stderr, flush=True)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    """Ignore further signals, so that a second Ctrl-C does not interrupt the clean-up."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    progress("stopping")
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
