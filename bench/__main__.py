"""`./run bench [NAME...] [--quick] [--json]`: run the benchmarks."""

from __future__ import annotations

import argparse
import importlib.util
import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from bench.measure import stop
from bench.registry import BENCHMARKS, Benchmark
from ops.stack.settings import PROJECT

EXAMPLES = """\
examples:
  ./run bench                       list them, and run the quick set
  ./run bench bridge ingest         these two, at their full length
  ./run bench decode --quick        a short run of one
  ./run bench decode --json         one line of JSON per benchmark
  python -m bench.ingest --help     a benchmark's own options

Figures depend on the machine: compare the ratios. {known}
`./run load` is the load test of the whole stack.
"""


class BenchFailed(Exception):
    """A benchmark ended without a result."""


def main(argv: Sequence[str] | None = None) -> int:
    """List or run benchmarks. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="./run bench",
        description="Benchmarks: ours and the alternatives, in one run.",
        epilog=EXAMPLES.format(known="Available: " + ", ".join(BENCHMARKS) + "."),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="benchmarks to run")
    parser.add_argument("--quick", action="store_true", help="short runs")
    parser.add_argument("--json", action="store_true", help="one line of JSON each")
    options = parser.parse_args(argv)
    unknown = [name for name in options.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no such benchmark: {', '.join(unknown)}; available: {', '.join(BENCHMARKS)}")
    chosen = [BENCHMARKS[name] for name in options.names]
    if not chosen:
        print(listing(), file=sys.stderr)
        chosen = [one for one in BENCHMARKS.values() if one.is_quick]
    signal.signal(signal.SIGTERM, stop)
    failed = False
    for one in chosen:
        try:
            result = run(one, quick=options.quick or not options.names)
        except BenchFailed as exc:
            print(f"bench: {exc}", file=sys.stderr)
            failed = True
            continue
        text = json.dumps(result, ensure_ascii=False) if options.json else format_result(result)
        print(text, flush=True)
    return 1 if failed else 0


def listing() -> str:
    """List each benchmark with its purpose; `*` marks the quick set."""
    return "\n".join(
        f"{'*' if one.is_quick else ' '} {one.name:14} {one.purpose}" for one in BENCHMARKS.values()
    )


def run(one: Benchmark, *, quick: bool) -> dict[str, Any]:
    """Run one as a process, and convert its last line. Raises BenchFailed."""
    if importlib.util.find_spec(one.module) is None:
        raise BenchFailed(f"{one.name}: {one.module} does not exist")
    argv = [sys.executable, "-m", one.module, *(one.quick if quick else ())]
    process = subprocess.Popen(argv, cwd=PROJECT, stdout=subprocess.PIPE, text=True)
    try:
        output, _ = process.communicate()
    except BaseException:
        process.terminate()  # it stops its servers and erases its folders
        process.wait()
        raise
    if process.returncode != 0:
        raise BenchFailed(f"{one.name}: exited with {process.returncode}")
    try:
        result = json.loads(output.strip().splitlines()[-1])
    except (IndexError, ValueError):
        try:
            result = json.loads(output)
        except ValueError as exc:
            raise BenchFailed(f"{one.name}: no JSON in the output") from exc
    shaped = one.shape(result)
    return {"name": one.name, **shaped}


def format_result(result: dict[str, Any]) -> str:
    """Format a result as lines: median, range and ratio to ours of each variant."""
    lines = [f"{result['name']}: {result.get('unit', '')}"]
    parts = result.get("parts") or {"": result}
    if any(part.get("ours") is None for part in parts.values()):
        return "\n".join([*lines, json.dumps(result, indent=2, ensure_ascii=False)])
    for name, part in parts.items():
        lines += [f" {name}"] if name else []
        for variant, one in {"ours": part["ours"], **part.get("others", {})}.items():
            ratio = f"  {one['ratio']:g} x" if one.get("ratio") is not None else ""
            spread = f"{one['median']:>10g}  ({one['min']:g} to {one['max']:g})"
            lines.append(f"  {variant:42} {spread}{ratio}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
