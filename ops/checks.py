"""`./run test`: linters, type checker and import contracts, then pytest."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ops.stack.settings import PROJECT

USAGE = """usage: ./run test [PYTEST...]

Run ruff check, ruff format --check, mypy and lint-imports on the whole project, then pytest. A
failure does not stop the rest. The arguments are pytest's.

examples:
  ./run test                      all tests, in two processes
  ./run test tests/unit -k fix    some tests only
  ./run test -x --lf              the tests that failed last, until the first failure"""

TOOLS = Path(sys.executable).parent

CHECKS: tuple[tuple[str, ...], ...] = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("mypy",),
    ("lint-imports", "--no-logo"),
)

# Of two cores. With three processes eight tabs with a map miss their updates for 30 s.
ALL_TESTS = ("-n", "2", "--dist", "loadscope", "--durations", "30")


def run_checks(pytest_arguments: Sequence[str]) -> int:
    """Run all checks and pytest. The return value is the exit status: 1 if any of them failed."""
    failed = [" ".join(check) for check in CHECKS if not _run(check)]
    if failed:
        print(f"failed: {', '.join(failed)}", flush=True)  # again: pytest's output is long
    passed = _run(("pytest", *(pytest_arguments or ALL_TESTS)))
    return 0 if passed and not failed else 1


def _run(argv: tuple[str, ...]) -> bool:
    print(f"== {' '.join(argv)}", flush=True)
    done = subprocess.run([str(TOOLS / argv[0]), *argv[1:]], check=False, cwd=PROJECT)
    return done.returncode == 0


def main(arguments: Sequence[str]) -> int:
    """Run `./run test ARGUMENTS`; the return value is the exit status."""
    if {"-h", "--help"} & set(arguments):
        print(USAGE)
        return 0
    return run_checks(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
