"""Orders from a CSV: the columns, and creating the rows' orders in one transaction.

An order is identified by its external_id, among those of one member of staff. A row whose order
exists with the same values changes nothing, so a file can be sent again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, StringConstraints, TypeAdapter, ValidationError

from doorstep.administration.csv_table import MAX_ERRORS, CsvKind, complaint, read_csv
from doorstep.credentials import new_customer_token, token_sha256
from doorstep.errors import DoorstepError, MalformedCsv, Unavailable
from doorstep.store.records import Order
from tracking_api.orders.detail_schemas import NewOrder

KEY_PREFIX = "import:"  # of the Idempotency-Key that a row's order has

CreateOrder = Callable[..., Awaitable[Order]]


class OrderRow(BaseModel):
    """The columns but external_id, as text; NewOrder validates them."""

    model_config = ConfigDict(extra="forbid")

    restaurant_id: str | None = None
    lon_deg: str | None = None
    lat_deg: str | None = None
    pickup_name: str | None = None
    pickup_lon_deg: str | None = None
    pickup_lat_deg: str | None = None
    pickup_address: str | None = None
    pickup_phone: str | None = None
    policy_id: str | None = None
    customer_name: str | None = None
    customer_phone: str | None = None
    customer_language: str | None = None
    contact_rule: str | None = None
    address: str | None = None
    door_note: str | None = None
    items: str | None = None
    ready_at: str | None = None
    scheduled_for: str | None = None
    promised_from: str | None = None
    promised_to: str | None = None
    pin: str | None = None

    def given(self) -> dict[str, Any]:
        """Return the cells that are not empty."""
        return self.model_dump(exclude_none=True)


ORDERS = CsvKind(
    "orders",
    "external_id",
    # as an Idempotency-Key, with the prefix
    TypeAdapter(Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,120}$")]),
    OrderRow,
    OrderRow,
)
IMPORT_PATH = f"/{ORDERS.name}/import"


class NumberedOrder(NamedTuple):
    """An order to be created, and the line that describes it."""

    line: int
    external_id: str
    new: NewOrder


class ImportedOrder(NamedTuple):
    """A row's order; the token only if this import has created it."""

    line: int
    external_id: str
    order: Order
    token: str | None


def read_orders(content: bytes) -> list[NumberedOrder]:
    """Read a file as `read_csv` does. Raises MalformedCsv with each bad line and field."""
    found: list[NumberedOrder] = []
    errors: list[dict[str, object]] = []
    for row in read_csv(ORDERS, content):
        try:
            new = NewOrder.model_validate(_members(row.key, row.values))
        except ValidationError as exc:
            for one in exc.errors(include_url=False, include_input=False):
                reason = "missing_field" if one["type"] == "missing" else "invalid_value"
                field = _column_of(one["loc"])
                errors.append(complaint(row.line, field, str(one["msg"]), reason))
        else:
            found.append(NumberedOrder(row.line, row.key, new))
    if errors:
        raise MalformedCsv(errors[:MAX_ERRORS])
    return found


async def apply_orders(
    create: CreateOrder, orders: Sequence[NumberedOrder], who: str
) -> list[ImportedOrder]:
    """Create the rows' orders. The caller rolls back if a line is refused: MalformedCsv."""
    done: list[ImportedOrder] = []
    for line, external_id, new in orders:
        token = new_customer_token()
        try:
            order = await create(
                restaurant_id=new.restaurant_id,
                lon_deg=new.destination.lon_deg,
                lat_deg=new.destination.lat_deg,
                token_sha256=token_sha256(token),
                policy_id=new.policy_id,
                idempotency_key=KEY_PREFIX + external_id,
                customer_name=new.customer_name,
                who=who,
                pickup=new.pickup.model_dump(exclude_none=True) if new.pickup else None,
                details=new.details(),
            )
        except Unavailable:
            raise
        except DoorstepError as exc:
            raise MalformedCsv([complaint(line, None, str(exc), exc.problem)]) from exc
        done.append(ImportedOrder(line, external_id, order, token if order.created else None))
    return done


def _members(external_id: str, values: dict[str, Any]) -> dict[str, Any]:
    """Return the members of a NewOrder."""
    members: dict[str, Any] = {"external_id": external_id, "destination": {}}
    for column, value in values.items():
        if column in ("lon_deg", "lat_deg"):
            members["destination"][column] = value
        elif column.startswith("pickup_"):
            members.setdefault("pickup", {})[column.removeprefix("pickup_")] = value
        else:
            members[column] = value
    return members


def _column_of(loc: tuple[int | str, ...]) -> str | None:
    """Return the column of a NewOrder's member."""
    names = [str(one) for one in loc]
    if names[:1] == ["pickup"]:
        return "_".join(names) if len(names) > 1 else None
    return names[-1] if names else None
