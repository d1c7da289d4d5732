"""The AsyncAPI document's streams are those of the code."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from pydantic import BaseModel

from doorstep.fix.strict import PLACE_REASONS
from tests.unit.deployment.asyncapi_document import (
    DOCUMENT,
    MESSAGES,
    ROOT,
    SCHEMAS,
    KafkaMessage,
    assert_valid,
    channels_of,
    fields_of,
    payloads_of,
    titles_of,
)
from tests.unit.tracking_api.live_world import PUBLIC_URL, World, ms_of
from tracking_api.app import build_app
from tracking_api.fleet.queries import POSITION_COLUMNS
from tracking_api.fleet.viewports import Box
from tracking_api.live.fleet_channel import CLUSTER_COLUMNS, LIMITS, FleetChannel
from tracking_api.live.frames import (
    Frame,
    end_frame,
    notice_frame,
    order_frame,
    position_frame,
    resync_frame,
    snapshot_frame,
    turn_frame,
)
from tracking_api.orders.schemas import Coordinates, OrderState
from tracking_api.series.streams import points_frame
from tracking_api.stores import Stores
from tracking_api.track.schemas import (
    EtaAnswer,
    EventAnswer,
    PositionFeature,
    PositionProperties,
    Restaurant,
    TrackAnswer,
)
from tracking_api.track.visibility import Notice, TrackLink

# ---- SSE and WebSocket -------------------------------------------------------------------------


def test_streams__addresses__are_tracking_api_s() -> None:
    paths = build_app(Stores.backed_by(World()), PUBLIC_URL).openapi()["paths"]
    streams = {
        path
        for path, operations in paths.items()
        for answers in [operations.get("get", {}).get("responses", {})]
        if "101" in answers or "text/event-stream" in answers.get("200", {}).get("content", {})
    }
    assert set(channels_of("tracking_api")) == streams


@pytest.mark.parametrize(
    ("schema", "model"),
    [
        ("Track", TrackAnswer),
        ("TrackEvent", EventAnswer),
        ("Coordinates", Coordinates),
        ("Restaurant", Restaurant),
        ("Position", PositionFeature),
        ("PositionProperties", PositionProperties),
        ("Eta", EtaAnswer),
    ],
)
def test_track__fields__are_the_answer_s(schema: str, model: type[BaseModel]) -> None:
    assert fields_of(schema) == set(model.model_fields)
    assert set(SCHEMAS[schema]["required"]) == fields_of(schema)


def test_order_states__are_the_code_s() -> None:
    assert SCHEMAS["OrderState"]["enum"] == [str(state) for state in OrderState]


async def test_order_frames__written__have_exactly_the_schema_s_fields() -> None:
    world = World()
    order_id = world.create("picked_up", driver_id="anna")
    world.fix("anna")
    [order] = (await world.read_tracks([TrackLink(order_id)])).values()
    position = order.position
    assert position is not None
    notice = Notice(5, "nearby", order.now)
    frames = [
        snapshot_frame(order, with_id=True),
        notice_frame(order, notice),
        order_frame(order, order.events[-1]),
        turn_frame(order),
        resync_frame(4),
        end_frame("delivered"),
    ]
    schemas = {"snapshot": "Track", "order": "OrderEvent", "position": "OrderPosition",
               "notice": "OrderNotice", "resync": "OrderResync", "end": "OrderEnd"}  # fmt: skip
    channel = DOCUMENT["channels"]["orderStream"]["messages"]
    for frame in frames:
        kind, data = told_by(frame)
        assert set(data) == fields_of(schemas.pop(kind))
        message = MESSAGES[channel[kind]["$ref"].rpartition("/")[2]]
        assert message["name"] == kind
        assert_valid(message["payload"]["$ref"].rpartition("/")[2], data)
    assert schemas == {}
    _, usual = told_by(position_frame(position, order.now, None, None))
    assert_valid("OrderPosition", usual)  # without what has not changed
    assert set(usual) == fields_of("OrderPosition") - {"other_delivery_first"}


class FleetViewer:
    """Keeps the frames that it is sent."""

    paused = False

    def __init__(self) -> None:
        self.frames: list[tuple[str, dict[str, Any]]] = []

    def send_latest(self, frame: Frame) -> None:
        self.frames.append(told_by(frame))


async def test_fleet_frames__written__have_exactly_the_schema_s_fields() -> None:
    world = World()
    for driver_id in ("anna", "ben"):
        world.fix(driver_id)
    fleet = FleetChannel(world)
    one_by_one, clustered = FleetViewer(), FleetViewer()
    everywhere = Box(-180, -90, 180, 90)
    async with fleet.opened():
        fleet.subscribe(one_by_one, everywhere)  # type: ignore[arg-type]
        fleet.subscribe(clustered, everywhere, 1)  # type: ignore[arg-type]
    world.tick(1)
    at_ms = ms_of(world.fix("anna").fix_at)
    fleet.positions_changed([["anna", at_ms, at_ms, 11.0, 43.0, None, None, None]])
    fleet.push()
    schemas = {"snapshot": "FleetSnapshot", "drivers": "FleetDrivers"}
    seen: dict[str, set[str]] = {kind: set() for kind in schemas}
    for kind, data in one_by_one.frames + clustered.frames:
        assert_valid(schemas[kind], data)
        seen[kind] |= set(data)
    assert seen["snapshot"] == fields_of("FleetSnapshot")
    assert seen["drivers"] | {"counts"} == fields_of("FleetDrivers")


def test_fleet_columns__are_the_code_s() -> None:
    assert titles_of("FleetRow") == POSITION_COLUMNS
    assert titles_of("FleetCluster") == CLUSTER_COLUMNS
    presence = SCHEMAS["FleetSnapshot"]["properties"]["presence"]
    assert set(presence["properties"]) == set(LIMITS)


def test_series_points__written__are_valid() -> None:
    message = KafkaMessage("series", payloads_of("points")[0], b"truck-7/box_c")
    frame = points_frame(message, "0:1")  # type: ignore[arg-type]
    assert frame is not None
    kind, data = told_by(frame)
    assert kind == "points"
    assert set(data) == fields_of("SeriesPoints")
    assert_valid("SeriesPoints", data)


# ---- reasons -----------------------------------------------------------------------------------


def test_reasons__used_in_the_code__are_all_described() -> None:
    source = "\n".join(
        path.read_text(encoding="utf-8")
        for folder in ("doorstep", "driver_events", "bridge")
        for path in (ROOT / folder).rglob("*.py")
    )
    used = set(re.findall(r'MalformedFix\(\s*"(\w+)"', source))
    used |= set(PLACE_REASONS.values())
    assert used
    assert used <= set(SCHEMAS["Reason"]["enum"])


def told_by(frame: Frame) -> tuple[str, dict[str, Any]]:
    """A frame's kind and data, as a WebSocket has them."""
    told = json.loads(frame.ws[frame.ws.index(b"{") :])
    return told["type"], told["data"]
