"""A demo on a stack with a fleet of its own: lists replace the database and the API."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ops.demo import demo, open_orders, other_fleet
from ops.demo.options import DemoOptions
from ops.demo.other_fleet import refuse_beside_other_fleet
from ops.stack.errors import StackError
from ops.stack.stack import Stack
from simulators.couriers import CUSTOMER_NAME

HOME = Path("/srv/doorstep/stack")
BESIDE = "DOORSTEP_HOME=/srv/doorstep/stack-demo ./run demo"


def stack_with(*driver_ids: str, removed: tuple[str, ...] = ()) -> Stack:
    """A stack without any other method: a change of it raises AttributeError."""
    devices = [SimpleNamespace(device_id=one, state="active") for one in driver_ids]
    devices += [SimpleNamespace(device_id=one, state="removed") for one in removed]
    return cast(
        "Stack",
        SimpleNamespace(
            devices=lambda _kind: devices,
            addresses=SimpleNamespace(tracking_api_url="http://tracking"),
            paths=SimpleNamespace(root=HOME, staff_token=lambda: "stf"),
        ),
    )


def serve(patch: pytest.MonkeyPatch, *orders: tuple[str, str | None, str | None]) -> None:
    keys = ("order_id", "driver_id", "customer_name")
    rows = [dict(zip(keys, one, strict=True)) for one in orders]
    patch.setattr(other_fleet, "open_orders", lambda _url, _token: iter(rows))


def test_refuse_beside_other_fleet__only_a_demo_s_drivers_and_orders__passes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    serve(monkeypatch, ("o1", None, CUSTOMER_NAME), ("o2", "courier-07", None))
    refuse_beside_other_fleet(stack_with())
    refuse_beside_other_fleet(stack_with("courier-07", "city-003", removed=("anna",)))
    assert open_orders.SIMULATED_ID.fullmatch("courier-07")


def test_refuse_beside_other_fleet__drivers_of_others__names_three_and_the_way_beside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    serve(monkeypatch)
    with pytest.raises(StackError) as refused:
        refuse_beside_other_fleet(stack_with("courier-1", "anna", "bob", "courier-zoe", "dan"))
    assert "drivers that are not the demo's (anna, bob, courier-zoe and 1 more)" in str(refused)
    assert BESIDE in str(refused)


def test_refuse_beside_other_fleet__an_order_of_a_real_customer__is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    serve(monkeypatch, ("o1", None, CUSTOMER_NAME), ("o2", None, None))
    with pytest.raises(StackError, match=r"open orders that are not the demo's \(o2\)"):
        refuse_beside_other_fleet(stack_with("courier-1"))


def test_refuse_beside_other_fleet__no_answer__is_a_refusal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_url: str, _token: str) -> Any:
        raise OSError("timed out")

    monkeypatch.setattr(other_fleet, "open_orders", fail)
    with pytest.raises(StackError, match="cannot read the open orders: timed out"):
        refuse_beside_other_fleet(stack_with())


def test_demo__beside_other_drivers__changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch)
    with pytest.raises(StackError, match="anna"):
        demo._run(stack_with("anna"), cast("DemoOptions", SimpleNamespace(couriers=5)))
