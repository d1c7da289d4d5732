"""Rules for every test: it asserts something, and it sets no upper bound on time."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
FILES = sorted(TESTS.rglob("test_*.py"))
CLOCKS = {"monotonic", "perf_counter", "process_time", "time"}
# These raise when a condition does not hold.
CHECKS = {"assert", "raises", "warns", "fail", "wait_until", "wait_until_async"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions_in(tree: ast.AST) -> Iterator[Function]:
    for node in ast.walk(tree):
        if isinstance(node, Function):
            yield node


def called_name(call: ast.Call) -> str:
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""


def checks_in(function: Function) -> set[str]:
    """Return the names that a function calls, and `assert` if it has such a statement."""
    nodes = list(ast.walk(function))
    called = {called_name(node) for node in nodes if isinstance(node, ast.Call)}
    return called | ({"assert"} if any(isinstance(node, ast.Assert) for node in nodes) else set())


@cache
def checking_functions(path: Path) -> frozenset[str]:
    """Return the names in a module of functions that assert: its own, and imported ones."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = set(CHECKS)
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tests."):
            source = TESTS.parent / f"{(node.module or '').replace('.', '/')}.py"
            if source.exists():
                imported = checking_functions(source)
                names |= {one.asname or one.name for one in node.names if one.name in imported}
    checks = [(one.name, checks_in(one)) for one in functions_in(tree)]
    while found := {name for name, called in checks if called & names} - names:
        names |= found
    return frozenset(names)


def reads_duration(node: ast.AST, durations: set[str]) -> bool:
    """Say whether an expression holds a measured duration: a clock minus something, or a name."""
    for part in ast.walk(node):
        if isinstance(part, ast.Attribute) and part.attr == "elapsed":
            return True
        if isinstance(part, ast.Name) and part.id in durations:
            return True
        if (
            isinstance(part, ast.BinOp)
            and isinstance(part.op, ast.Sub)
            and isinstance(part.left, ast.Call)
            and called_name(part.left) in CLOCKS
        ):
            return True
    return False


def measured_names(function: Function) -> set[str]:
    """Return the names that hold a duration: assigned, or lists to which one is appended."""
    names: set[str] = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and reads_duration(node.value, names):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "append"
            and isinstance(node.func.value, ast.Name)
            and any(reads_duration(one, names) for one in node.args)
        ):
            names.add(node.func.value.id)
    return names


def time_bounds(function: Function) -> Iterator[int]:
    """Yield the line of each assertion that a measured duration is less than something."""
    durations = measured_names(function)
    for node in ast.walk(function):
        if not isinstance(node, ast.Assert):
            continue
        for compare in ast.walk(node.test):
            if not isinstance(compare, ast.Compare):
                continue
            sides = [compare.left, *compare.comparators]
            for left, operator, right in zip(sides, compare.ops, sides[1:], strict=False):
                lesser = left if isinstance(operator, ast.Lt | ast.LtE) else right
                if isinstance(operator, ast.Lt | ast.LtE | ast.Gt | ast.GtE) and reads_duration(
                    lesser, durations
                ):
                    yield compare.lineno


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(TESTS)))
def test_every_test__asserts_something_and_bounds_no_duration(path: Path) -> None:
    functions = list(functions_in(ast.parse(path.read_text(encoding="utf-8"))))
    tests = {one.name for one in functions if one.name.startswith("test_")}
    assert sorted(tests - checking_functions(path)) == []
    assert [line for one in functions for line in time_bounds(one)] == []


@pytest.mark.parametrize(
    ("body", "lines"),
    [
        ("assert answer.elapsed.total_seconds() < 5", [2]),
        ("took_s = time.monotonic() - began_s\n    assert 1 < took_s < 5", [3]),
        ("took_s.append(answer.elapsed)\n    assert max(took_s) < 6", [3]),
        ("assert 5 >= loop.time() - began_s", [2]),
        ("assert time.monotonic() - began_s >= 0.1", []),
        ("assert time.monotonic() < deadline_s, 'not in time'", []),
    ],
)
def test_time_bounds__upper_bound_of_a_duration__is_found(body: str, lines: list[int]) -> None:
    [function] = functions_in(ast.parse(f"def test_it():\n    {body}\n"))
    assert list(time_bounds(function)) == lines


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("assert works()", True),
        ("with pytest.raises(ValueError): works()", True),
        ("wait_until(works)", True),
        ("works()", False),
    ],
)
def test_checks_in__body_that_asserts__has_a_check(body: str, expected: bool) -> None:
    [function] = functions_in(ast.parse(f"def test_it():\n    {body}\n"))
    assert bool(checks_in(function) & CHECKS) is expected
