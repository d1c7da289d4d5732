"""Which tests of a full run share a worker, and which run first.

The tests of a module run in one worker. So do the modules of a folder that share its `stack`: the
pages, for example, because one Chromium that draws maps fills a core. Stacks with --ha run one
after the other: two of them are six nodes of Kafka, six of etcd and four databases, too much for
two cores.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

TESTS = Path(__file__).resolve().parent
STACK = "stack"  # the fixture of a folder's shared stack
REPLICAS = "stacks with replicas"
GROUP_OF_MODULE = {
    "tests/acceptance/test_replicas_restore.py": REPLICAS,
    "tests/faults/test_lost_machine.py": REPLICAS,
    "tests/faults/test_upgrade_options.py": REPLICAS,
}
# The groups that take longest, the longest first: the last ones are short, and workers end alike.
LONGEST_FIRST = (
    "tests/browser",
    REPLICAS,
    "tests/acceptance",
    "tests/integration",
    "tests/faults/test_quick_faults.py",
    "tests/faults/test_upgrade.py",
    "tests/faults/test_scaled_out.py",
    "tests/acceptance/test_demo.py",
    "tests/acceptance/test_restore_ledger.py",
    "tests/integration/test_monitoring.py",
    "tests/property/test_order_proof.py",
    "tests/property/test_mutations.py",
    "tests/traces/test_labels.py",
    "tests/browser/test_tls.py",
)
Function = ast.FunctionDef | ast.AsyncFunctionDef


def group_of(nodeid: str) -> str:
    """Return a test's group: its folder if it uses that folder's stack, else its module."""
    module = nodeid.split("::", 1)[0]
    if module in GROUP_OF_MODULE:
        return GROUP_OF_MODULE[module]
    return module.rpartition("/")[0] if shares_stack(TESTS.parent / module) else module


@cache
def shares_stack(module: Path) -> bool:
    """Say whether a module uses `stack` of its folder's conftest.py, directly or not."""
    conftest = module.with_name("conftest.py")
    shared = fixtures_on_stack(conftest) if conftest.exists() else frozenset[str]()
    functions = list(_functions(module))
    own = {one.name for one in functions if _is_fixture(one)}
    used = {
        name
        for one in functions
        if _is_fixture(one) or one.name.startswith("test_")
        for name in _arguments(one)
    }
    return STACK not in own and not used.isdisjoint(shared)


@cache
def fixtures_on_stack(conftest: Path) -> frozenset[str]:
    """Return `stack`, if a conftest.py has it, and its fixtures that need it."""
    needs = {one.name: _arguments(one) for one in _functions(conftest) if _is_fixture(one)}
    found = needs.keys() & {STACK}
    while more := {name for name, used in needs.items() if used & found} - found:
        found |= more
    return frozenset(found)


def _functions(file: Path) -> Iterator[Function]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return (one for one in tree.body if isinstance(one, Function))


def _is_fixture(function: Function) -> bool:
    return any("fixture" in ast.unparse(one) for one in function.decorator_list)


def _arguments(function: Function) -> set[str]:
    """Return the names of a function's arguments, and the texts of its decorators."""
    used = {one.arg for one in (*function.args.args, *function.args.kwonlyargs)}
    constants = (
        node.value
        for decorator in function.decorator_list
        for node in ast.walk(decorator)
        if isinstance(node, ast.Constant)
    )
    return used | {str(one) for one in constants}


def sort_for_workers(items: list[pytest.Item]) -> None:
    """Put the tests of a group next to each other, and the longest groups first."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    groups = [group_of(one.nodeid) for one in items]
    ranks = {name: rank for rank, name in enumerate(dict.fromkeys((*LONGEST_FIRST, *groups)))}
    items.sort(key=lambda one: ranks[group_of(one.nodeid)])


class GroupScheduling(LoadScopeScheduling):
    """Keep the tests of one group together, in the order of the collection.

    xdist's own `loadgroup` writes the group into each test's id, which pytest 9.2 does not allow.
    """

    def _split_scope(self, nodeid: str) -> str:
        """Return a test's group."""
        return group_of(nodeid)
