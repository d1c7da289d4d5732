"""Encode a model as the JSON that sql/schema/50_eta.sql stores, and decode it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from eta.model import HOURS, STREET_CLASSES, Band, EtaModel, Phase, RouteChoice

UNBOUNDED_S = 1e9  # JSON has no infinity


def model_to_json(model: EtaModel, metres: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Encode a learned model. `metres` are the metres ridden per class and hour.

    Raises ValueError for a model that was not learned.
    """
    if model.learned_at is None:
        raise ValueError("the model was not learned from deliveries")
    return {
        "learned_at": model.learned_at.isoformat(),
        "rides": model.rides,
        "crossing_s": model.crossing_s,
        "arrival_s": model.arrival_s,
        "wait_s": list(model.wait_s),
        "route_choice": model.route_choice.value,
        "street_speeds": [
            {
                "street_class": name,
                "hour": hour,
                "mps": model.street_mps[number][hour],
                "metres": metres[number][hour],
            }
            for number, name in enumerate(STREET_CLASSES)
            for hour in range(HOURS)
        ],
        "driver_pace": dict(model.driver_pace),
        "bands": [
            asdict(band) | {"up_to_s": min(band.up_to_s, UNBOUNDED_S)} for band in model.bands
        ],
    }


def model_from_json(encoded: Mapping[str, Any]) -> EtaModel:
    """Decode a model. Raises KeyError if a speed is missing."""
    mps = {(row["street_class"], row["hour"]): row["mps"] for row in encoded["street_speeds"]}
    return EtaModel(
        street_mps=tuple(
            tuple(float(mps[name, hour]) for hour in range(HOURS)) for name in STREET_CLASSES
        ),
        crossing_s=float(encoded["crossing_s"]),
        arrival_s=float(encoded["arrival_s"]),
        wait_s=tuple(float(quantile_s) for quantile_s in encoded["wait_s"]),
        route_choice=RouteChoice(encoded["route_choice"]),
        driver_pace={name: float(pace) for name, pace in encoded["driver_pace"].items()},
        bands=tuple(_band(row) for row in encoded["bands"]),
        model_id=int(encoded["model_id"]),
        learned_at=datetime.fromisoformat(encoded["learned_at"]),
        rides=int(encoded["rides"]),
    )


def _band(row: Mapping[str, Any]) -> Band:
    return Band(
        phase=Phase(row["phase"]),
        up_to_s=float(row["up_to_s"]),
        p10=float(row["p10"]),
        p50=float(row["p50"]),
        p90=float(row["p90"]),
        samples=int(row["samples"]),
    )
