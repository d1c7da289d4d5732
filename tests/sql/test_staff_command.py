"""`./run staff`: the role restaurant needs a restaurant. A namespace replaces the stack."""

from __future__ import annotations

import argparse
from types import SimpleNamespace
from typing import Any, cast

import pytest

from doorstep.errors import UnknownRestaurant
from ops.commands.staff_command import add_arguments, staff
from ops.stack.stack import Stack
from tests.database import Database
from tests.sql.fleet import Fleet


def run(database: Database, *arguments: str) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    stack: Any = SimpleNamespace(database_admin_url=database.url())
    return staff(cast("Stack", stack), parser.parse_args(arguments))


@pytest.mark.parametrize(
    "arguments",
    [
        ("add", "mario", "--role", "restaurant"),
        ("add", "vera", "--role", "viewer", "--restaurant", "1"),
        ("rotate", "vera", "--role", "restaurant"),
    ],
)
def test_staff__role_and_restaurant_that_do_not_fit__is_a_usage_error(
    fleet: Fleet, arguments: tuple[str, ...]
) -> None:
    assert run(fleet.database, *arguments) == 2
    assert fleet.run("SELECT name FROM staff WHERE name IN ('mario', 'vera')") == []


def test_staff__restaurant__is_added_listed_and_refused_if_unknown(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(fleet.database, "add", "mario", "--role", "restaurant", "--restaurant", "1") == 0
    assert run(fleet.database, "list") == 0
    assert "mario restaurant 1 expires at" in capsys.readouterr().out
    with pytest.raises(UnknownRestaurant):
        run(fleet.database, "add", "nadia", "--role", "restaurant", "--restaurant", "99")
