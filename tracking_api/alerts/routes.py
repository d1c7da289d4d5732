"""Reading and acknowledging alerts."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from doorstep.http.openapi import problems
from tracking_api.alerts.schemas import AlertAnswer, Alerts
from tracking_api.context import Context, Dispatcher, Staff

router = APIRouter(prefix="/alerts", tags=["alerts"])

RowId = Annotated[int, Path(ge=1, le=2**53)]


@router.get("", summary="Alerts, the newest first", responses=problems(401, 403))
async def list_alerts(
    _: Staff,
    context: Context,
    open: Annotated[bool, Query(description="Only those whose cause has not ended.")] = False,
    limit: Annotated[int, Query(ge=1, le=1_000)] = 200,
    before: Annotated[int | None, Query(ge=1, le=2**53)] = None,
) -> Alerts:
    """A job decides them every 5 s."""
    found = await context.stores.alerts.read_alerts(open_only=open, limit=limit, before=before)
    return Alerts(alerts=[AlertAnswer.of(one) for one in found])


@router.post(
    "/{alert_id}/acknowledge", summary="Acknowledge an alert", responses=problems(401, 403, 404)
)
async def acknowledge_alert(alert_id: RowId, staff: Dispatcher, context: Context) -> AlertAnswer:
    """Says that someone deals with it. A repeat keeps the first name."""
    return AlertAnswer.of(await context.stores.alerts.acknowledge_alert(alert_id, staff.actor_id))
