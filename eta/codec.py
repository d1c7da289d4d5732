"""A model as JSON, as sql/schema/50_eta.sql takes and gives it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from eta.model import HOURS, STREET_CLASSES, Band, EtaModel, Phase, Ways

FOREVER_S = 1e9  # JSON has no infinity


def model_to_json(model: EtaModel, metres: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Write a model that was learned; `metres` are those ridden per class and hour."""
    if model.learned_at is None:
        raise ValueError("nothing was learned")
    return {
        "learned_at": model.learned_at.isoformat(),
        "rides": model.rides,
        "crossing_s": model.crossing_s,
        "arrival_s": model.arrival_s,
        "wait_s": list(model.wait_s),
        "route_choice": model.ways.value,
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
        "bands": [asdict(band) | {"up_to_s": min(band.up_to_s, FOREVER_S)} for band in model.bands],
    }


def model_from_json(found: Mapping[str, Any]) -> EtaModel:
    """Read a model. Raises KeyError if a speed is missing."""
    mps = {(row["street_class"], row["hour"]): row["mps"] for row in found["street_speeds"]}
    return EtaModel(
        street_mps=tuple(
            tuple(float(mps[name, hour]) for hour in range(HOURS)) for name in STREET_CLASSES
        ),
        crossing_s=float(found["crossing_s"]),
        arrival_s=float(found["arrival_s"]),
        wait_s=tuple(float(one) for one in found["wait_s"]),
        ways=Ways(found["route_choice"]),
        driver_pace={name: float(pace) for name, pace in found["driver_pace"].items()},
        bands=tuple(_band(row) for row in found["bands"]),
        model_id=int(found["model_id"]),
        learned_at=datetime.fromisoformat(found["learned_at"]),
        rides=int(found["rides"]),
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
