"""Which server of a stack with --ha is restored while no primary answers.

The seam: a stack whose addresses are saved, and that does not run.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.backup.servers import restored_server
from ops.stack.addresses import choose_addresses
from ops.stack.errors import StackError
from ops.stack.settings import FREE_PORTS, StackSettings
from ops.stack.stack import Stack

PRIMARY, STANDBY, EMPTY = ("PG_VERSION",), ("PG_VERSION", "standby.signal"), ()


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    settings = StackSettings(doorstep_home=tmp_path / "stack", doorstep_ha=True, **FREE_PORTS)
    stack = Stack(settings, echo=pytest.fail)
    stack.paths.prepare()
    choose_addresses(settings, pytest.fail).save(stack.paths.addresses_file)
    return stack


def fill(stack: Stack, *servers: tuple[str, ...]) -> None:
    for number, names in enumerate(servers, start=1):
        folder = stack.paths.postgres_node(number) / "data"
        folder.mkdir(parents=True)
        for name in names:
            (folder / name).touch()


@pytest.mark.parametrize(
    ("servers", "expected"),
    [
        pytest.param((PRIMARY, STANDBY), 1, id="the former primary"),
        pytest.param((STANDBY, PRIMARY), 2, id="the former primary is the second"),
        pytest.param((EMPTY, PRIMARY), 2, id="the other one has no data"),
        pytest.param((EMPTY, EMPTY), 1, id="none has data"),
    ],
)
def test_restored_server__no_primary_answers__is_the_one_with_the_newest_state(
    stack: Stack, servers: tuple[tuple[str, ...], ...], expected: int
) -> None:
    fill(stack, *servers)

    found = restored_server(stack, pytest.fail, is_up=True)

    assert found.repository.server == expected
    assert found.cluster.data_dir == stack.paths.postgres_node(expected) / "data"
    assert found.settings["synchronous_standby_names"] == ""


@pytest.mark.parametrize("servers", [(PRIMARY, PRIMARY), (STANDBY, STANDBY), (EMPTY, STANDBY)])
def test_restored_server__newest_state_unknown__is_refused(
    stack: Stack, servers: tuple[tuple[str, ...], ...]
) -> None:
    fill(stack, *servers)

    with pytest.raises(StackError, match=r"\./run status"):
        restored_server(stack, pytest.fail, is_up=True)
