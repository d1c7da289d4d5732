"""Which tests of a full run share a worker."""

from __future__ import annotations

import pytest

from tests.worker_groups import GROUP_OF_MODULE, LONGEST_FIRST, REPLICAS, TESTS, group_of


@pytest.mark.parametrize(
    ("test", "group"),
    [
        ("tests/integration/test_stack.py::test_a", "tests/integration"),
        ("tests/browser/test_admin.py::test_b", "tests/browser"),  # by `city`, which needs it
        ("tests/browser/test_drive.py::test_c", "tests/browser"),
        ("tests/faults/test_lost_machine.py::test_h", REPLICAS),
        ("tests/browser/test_tls.py::test_d", "tests/browser/test_tls.py"),  # has its own
        ("tests/acceptance/test_restore.py::test_e", "tests/acceptance"),
        ("tests/integration/test_bridge.py::test_f", "tests/integration/test_bridge.py"),
        ("tests/unit/ops/test_cli.py::test_g[[::1]:8001]", "tests/unit/ops/test_cli.py"),
    ],
)
def test_group__module_that_shares_its_folders_stack__is_the_folder(test: str, group: str) -> None:
    assert group_of(test) == group


def test_longest_first__each_name__is_a_group() -> None:
    modules = [one.relative_to(TESTS.parent).as_posix() for one in TESTS.rglob("test_*.py")]
    assert set(LONGEST_FIRST) <= {group_of(one) for one in modules}
    assert set(GROUP_OF_MODULE) <= set(modules)
