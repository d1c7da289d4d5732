"""`./run test`: linters, types and layers, then pytest, whose summary is the last line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ops.stack.settings import PROJECT

TEST_USAGE = """usage: ./run test [PYTEST...]

Runs ruff check, ruff format --check, mypy and lint-imports on the whole project, whatever fails,
then pytest. Arguments go to pytest:

  ./run test                      everything
  ./run test tests/unit -k fix    some tests only
  ./run test -x --lf              what failed last, until the first failure"""

TOOLS = Path(sys.executable).parent

CHECKS: tuple[tuple[str, ...], ...] = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("mypy",),
    ("lint-imports", "--no-logo"),
)

# Most of a run waits for servers to start and to come back, so two of them fit beside each other.
EVERYTHING = ("-n", "2", "--dist", "loadscope")


def run_checks(pytest_arguments: Sequence[str]) -> int:
    """Run all of it, whatever fails; the exit status says whether anything did."""
    failed = [check for check in CHECKS if not _run(check)]
    passed = _run(("pytest", *(pytest_arguments or EVERYTHING)), last=True, failed=failed)
    return 0 if passed and not failed else 1


def _run(
    argv: tuple[str, ...], *, last: bool = False, failed: Sequence[tuple[str, ...]] = ()
) -> bool:
    if last and failed:
        print("failed: " + ", ".join(" ".join(check) for check in failed), flush=True)
    print(f"== {' '.join(argv)}", flush=True)
    done = subprocess.run([str(TOOLS / argv[0]), *argv[1:]], check=False, cwd=PROJECT)
    return done.returncode == 0


def main(arguments: Sequence[str]) -> int:
    """Run `./run test ARGUMENTS`; the answer is the exit status."""
    if {"-h", "--help"} & set(arguments):
        print(TEST_USAGE)
        return 0
    return run_checks(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
