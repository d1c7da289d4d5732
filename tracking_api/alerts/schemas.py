"""Alerts as the API returns them."""

from __future__ import annotations

from typing import Literal, Self
from uuid import UUID

from pydantic import BaseModel

from doorstep.http.instants import Instant
from tracking_api.alerts.queries import Alert

AlertKind = Literal["late", "lost", "unassigned", "over_quota", "webhook_off"]


class AlertAnswer(BaseModel):
    """Something that needs a person. It is resolved by itself when its cause ends.

    `late`: an open order. `lost`: the driver of an open order is silent for 5 minutes.
    `unassigned`: an order is confirmed for 5 minutes without a driver. `over_quota`: a driver's
    device sends more than its quota. `webhook_off`: a webhook that kept failing was switched off.
    """

    alert_id: int
    kind: AlertKind
    order_id: UUID | None
    driver_id: str | None
    webhook_id: UUID | None
    raised_at: Instant
    resolved_at: Instant | None
    acknowledged_at: Instant | None
    acknowledged_by: str | None

    @classmethod
    def of(cls, alert: Alert) -> Self:
        """Return an alert as the API does."""
        return cls(**alert._asdict())


class Alerts(BaseModel):
    """A page of alerts, the newest first. `before=` the last `alert_id` leads to the next."""

    alerts: list[AlertAnswer]
