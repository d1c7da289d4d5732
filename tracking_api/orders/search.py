"""The query that lists orders, by state, by text, and by when they are due."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    DateTime,
    Integer,
    Select,
    Text,
    Uuid,
    and_,
    any_,
    bindparam,
    cast,
    func,
    literal_column,
    or_,
    select,
    tuple_,
    union_all,
)

from doorstep.store.compiled import compile_statement
from doorstep.store.tables import order_detail, order_with_details
from doorstep.store.tables import orders as all_orders

_ID_PREFIX = re.compile("[0-9a-f-]{4,36}")
_HEX_DIGITS = 32
LONGEST_ORDER = timedelta(days=2)  # from the first to the last time at which an order is due

OrderKey = tuple[datetime, UUID]
"""Where a page of orders ended: created_at, order_id."""


class DueRange(NamedTuple):
    """From when, inclusive, until when, exclusive, orders are due."""

    from_at: datetime
    to_at: datetime


def list_query(
    limit: int,
    *,
    states: Sequence[str] = (),
    after: OrderKey | None = None,
    text: str | None = None,
    due: DueRange | None = None,
) -> tuple[bytes, dict[str, object]]:
    """Return the statement for these filters, and its parameters."""
    parameters: dict[str, object] = {"limit": limit}
    if states:
        parameters["states"] = list(states)
    if after is not None:
        parameters |= {"created_at": after[0], "order_id": after[1]}
    if text is not None:
        parameters["words"] = _word_query(text)
    if due is not None:
        parameters |= {"due_from": due.from_at, "due_to": due.to_at}
        parameters["first_from"] = due.from_at - LONGEST_ORDER
    id_range = _order_id_range(text) if text else None
    if id_range is not None:
        parameters |= {"first_id": id_range[0], "last_id": id_range[1]}
    statement = _list_statement(
        by_state=bool(states),
        from_cursor=after is not None,
        by_text=text is not None,
        by_id=id_range is not None,
        by_due=due is not None,
    )
    return statement, parameters


def _word_query(text: str) -> str:
    """Return the argument of to_tsquery for words that begin with each word of a text."""
    quoted = (word.replace("\\", "\\\\").replace("'", "''") for word in text.split())
    return " & ".join(f"'{word}':*" for word in quoted)


def _order_id_range(text: str) -> tuple[UUID, UUID] | None:
    """Return the least and greatest id that begin with a text; None if it can begin none."""
    prefix = text.strip().lower()
    digits = prefix.replace("-", "")
    if not _ID_PREFIX.fullmatch(prefix) or not 0 < len(digits) <= _HEX_DIGITS:
        return None
    return UUID(digits.ljust(_HEX_DIGITS, "0")), UUID(digits.ljust(_HEX_DIGITS, "f"))


@cache
def _list_statement(
    *, by_state: bool, from_cursor: bool, by_text: bool, by_id: bool, by_due: bool
) -> bytes:
    """Compile the statement for these filters."""
    orders = order_with_details.c
    statement = select(
        orders.order_id,
        cast(orders.state, Text),
        orders.assignment_no,
        orders.driver_id,
        orders.order_seq,
        orders.restaurant_id,
        orders.lon_deg,
        orders.lat_deg,
        orders.customer_name,
        orders.policy_id,
        orders.created_at,
        orders.assigned_at,
        orders.ended_at,
        orders.details,
    )
    if by_state:
        # compared as text: a driver of the database sends no enum array
        wanted = bindparam("states", type_=ARRAY(Text))
        statement = statement.where(cast(orders.state, Text) == any_(wanted))
    if by_text:
        words = func.to_tsquery(literal_column("'simple'"), bindparam("words", type_=Text))
        found = select(order_detail.c.order_id).where(order_detail.c.search.op("@@")(words))
        if by_id:
            by_range = select(all_orders.c.order_id).where(
                all_orders.c.order_id.between(
                    bindparam("first_id", type_=Uuid()), bindparam("last_id", type_=Uuid())
                )
            )
            statement = statement.where(orders.order_id.in_(union_all(found, by_range)))
        else:
            statement = statement.where(orders.order_id.in_(found))
    if by_due:
        statement = statement.where(orders.order_id.in_(_due_orders()))
    if from_cursor:
        after = tuple_(
            bindparam("created_at", type_=DateTime(timezone=True)),
            bindparam("order_id", type_=Uuid()),
        )
        statement = statement.where(tuple_(orders.created_at, orders.order_id) < after)
    newest_first = statement.order_by(orders.created_at.desc(), orders.order_id.desc())
    return compile_statement(newest_first.limit(bindparam("limit", type_=Integer)))


def _due_orders() -> Select[tuple[UUID]]:
    """Return the ids of orders due in a range: by the index `order_detail_due`, then exactly."""
    times = order_detail.c
    columns = (times.ready_at, times.scheduled_for, times.promised_from, times.promised_to)
    instant = DateTime(timezone=True)
    first_from, due_from, due_to = (
        bindparam(name, type_=instant) for name in ("first_from", "due_from", "due_to")
    )
    first_at = func.least(*columns)
    found = select(times.order_id).where(
        func.coalesce(*columns).is_not(None),
        first_at >= first_from,
        first_at < due_to,
        or_(
            and_(times.ready_at >= due_from, times.ready_at < due_to),
            and_(times.scheduled_for >= due_from, times.scheduled_for < due_to),
            and_(
                func.coalesce(times.promised_to, times.promised_from) >= due_from,
                func.coalesce(times.promised_from, times.promised_to) < due_to,
            ),
        ),
    )
    return found.offset(literal_column("0"))  # or the planner walks all orders, the newest first
