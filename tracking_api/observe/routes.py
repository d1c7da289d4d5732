"""The dashboards' data and a view of Kafka, for admins. Everything is read only."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request

from doorstep.errors import KafkaUnavailable
from doorstep.http.openapi import problems
from tracking_api.context import Admin, AppContext, Context
from tracking_api.observe.dashboards import DASHBOARDS
from tracking_api.observe.kafka_view import MAX_MESSAGES, KafkaView
from tracking_api.observe.prometheus import PrometheusUnavailable
from tracking_api.observe.schemas import (
    DashboardAnswer,
    KafkaAnswer,
    KafkaMessages,
    Overview,
    PanelAnswer,
    PanelData,
)

router = APIRouter(prefix="/observe", tags=["observe"])

Minutes = Literal["5", "15", "60", "360", "1440"]
PanelId = Annotated[str, Path(pattern=r"^[a-z-]{1,40}$")]
TopicName = Annotated[str, Path(pattern=r"^[A-Za-z0-9._-]{1,249}$")]


@router.get("/overview", summary="The dashboards and the alerts", responses=problems(401, 403))
async def get_overview(_: Admin, context: Context) -> Overview:
    """Panels by dashboard, and the alerts that are pending or firing."""
    prometheus = context.prometheus
    if not prometheus.is_configured:
        return Overview(prometheus="absent", dashboards=[], alerts=[])
    try:
        alerts = await prometheus.read_alerts()
    except PrometheusUnavailable:
        return Overview(prometheus="down", dashboards=[], alerts=[])
    dashboards = [
        DashboardAnswer(
            id=one.dashboard_id,
            title=one.title,
            panels=[
                PanelAnswer(id=panel.panel_id, title=panel.title, unit=panel.unit, note=panel.note)
                for panel in one.panels
            ],
        )
        for one in DASHBOARDS
    ]
    return Overview(prometheus="up", dashboards=dashboards, alerts=alerts)


@router.get(
    "/panels/{panel_id}",
    summary="A panel's last minutes",
    responses=problems(401, 403, 404, 422, 503),
)
async def get_panel(
    panel_id: PanelId,
    _: Admin,
    context: Context,
    minutes: Annotated[Minutes, Query()] = "15",
) -> PanelData:
    """Runs the panel's own queries. No other query reaches Prometheus."""
    return await context.prometheus.read_panel(panel_id, int(minutes))


@router.get(
    "/kafka",
    summary="Topics, partitions, consumer groups and lag",
    responses=problems(401, 403, 503),
)
async def get_kafka(_: Admin, context: Context) -> KafkaAnswer:
    """Offsets are at most 4 s old; after 7 s without an answer of Kafka: 503."""
    return await _kafka_view(context).describe()


@router.get(
    "/kafka/topics/{topic}/messages",
    summary="The newest records of a partition",
    responses=problems(401, 403, 404, 422, 429, 503),
)
async def get_messages(
    request: Request,
    topic: TopicName,
    admin: Admin,
    context: Context,
    partition: Annotated[int, Query(ge=0, le=9999)] = 0,
    count: Annotated[int, Query(ge=1, le=MAX_MESSAGES)] = 20,
) -> KafkaMessages:
    """Of topics without positions only. The audit records who read them."""
    context.note_read(request, admin)
    return await _kafka_view(context).read_messages(topic, partition, count)


def _kafka_view(context: AppContext) -> KafkaView:
    if context.kafka_view is None:
        raise KafkaUnavailable
    return context.kafka_view
