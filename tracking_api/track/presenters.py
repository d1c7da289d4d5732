"""From what the database knows to what is answered. Pure."""

from __future__ import annotations

from datetime import datetime

from tracking_api.schemas import (
    Coordinates,
    EtaAnswer,
    EventAnswer,
    OrderState,
    PointGeometry,
    PositionFeature,
    PositionProperties,
    Restaurant,
    TrackAnswer,
)
from tracking_api.track.road_eta import EstimateArrival
from tracking_api.track.straight_eta import estimate_arrival
from tracking_api.track.visibility import Position, TrackedOrder, age_s, freshness_of


def position_feature_of(spot: Position, now: datetime) -> PositionFeature:
    """A spot as a GeoJSON feature, with its age."""
    age = age_s(spot.fix_at, now)
    return PositionFeature(
        geometry=PointGeometry(coordinates=spot.lon_lat),
        properties=PositionProperties(
            fix_at=spot.fix_at,
            received_at=spot.received_at,
            accuracy_m=spot.accuracy_m,
            speed_mps=spot.speed_mps,
            heading_deg=spot.heading_deg,
            age_s=age,
            freshness=freshness_of(age),
        ),
    )


def eta_of(order: TrackedOrder, estimate: EstimateArrival = estimate_arrival) -> EtaAnswer | None:
    """When the order should arrive, if that can be said."""
    eta = estimate(order)
    if eta is None:
        return None
    return EtaAnswer(
        arrives_at=eta.arrives_at,
        p10_at=eta.p10_at,
        p90_at=eta.p90_at,
        as_of=eta.as_of,
        seconds=eta.seconds,
        distance_m=eta.distance_m,
        speed_mps=eta.speed_mps,
        route=eta.route,
        speeds=eta.speeds,
        basis=eta.basis,
    )


def track_answer(order: TrackedOrder, estimate: EstimateArrival = estimate_arrival) -> TrackAnswer:
    """Answer "where is my order?", showing only what its window allows."""
    spot = order.visible
    lon_deg, lat_deg = order.destination
    return TrackAnswer(
        order_id=order.order_id,
        state=OrderState(order.state),
        assignment_no=order.assignment_no,
        order_seq=order.order_seq,
        position=position_feature_of(spot, order.now) if spot else None,
        eta=eta_of(order, estimate),
        restaurant=Restaurant(
            name=order.restaurant_name,
            lon_deg=order.restaurant[0],
            lat_deg=order.restaurant[1],
        ),
        destination=Coordinates(lon_deg=lon_deg, lat_deg=lat_deg),
        events=[
            EventAnswer(
                order_seq=event.order_seq,
                state=OrderState(event.state),
                source=event.source,
                occurred_at=event.occurred_at,
            )
            for event in order.events
        ],
    )
