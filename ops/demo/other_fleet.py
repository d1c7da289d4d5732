"""Refuses a demo on a stack with drivers or open orders that are not a demo's."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from ops.demo.open_orders import SIMULATED_ID, is_simulated, open_orders
from ops.stack.errors import StackError
from ops.stack.stack import Stack

MAX_NAMED = 3


def refuse_beside_other_fleet(stack: Stack) -> None:
    """Raise StackError if the stack has drivers or open orders which are not a demo's."""
    drivers = [
        one.device_id
        for one in stack.devices("driver")
        if one.state == "active" and not SIMULATED_ID.fullmatch(one.device_id)
    ]
    if drivers:
        raise StackError(_refusal(stack.paths.root, "drivers", drivers))
    try:
        found = open_orders(stack.addresses.tracking_api_url, stack.paths.staff_token())
        orders = [str(one["order_id"]) for one in found if not is_simulated(one)]
    except (OSError, ValueError) as exc:
        raise StackError(f"cannot read the open orders: {exc}") from exc
    if orders:
        raise StackError(_refusal(stack.paths.root, "open orders", orders))


def _refusal(home: Path, what: str, names: Sequence[str]) -> str:
    more = len(names) - MAX_NAMED
    named = ", ".join(names[:MAX_NAMED]) + (f" and {more:,} more" if more > 0 else "")
    demo_home = shlex.quote(str(home.absolute().with_name(f"{home.name}-demo")))
    return (
        f"this stack has {what} that are not the demo's ({named}), and the demo would interfere; "
        f"to run it on a stack of its own: DOORSTEP_HOME={demo_home} ./run demo"
    )
