"""From deliveries of the past to a model: speeds, drivers' paces, waits, and honest bands.

Time = pace of the driver × (Σ metres of class c at hour h × slowness(c, h) + crossings + steps).
Slowness is a prior's, times 1 + a(c) + b(h) + e(c, h). All of these are drawn to 0 as strongly as
their expected spread says, so that where there is little data the prior stands, and a class's hour
is its class's and its hour's. Pieces that don't fit count less (Huber), drivers' paces are drawn
to 1, and both are fitted in turn.

The bands come from estimates of deliveries that the speeds were not fitted to: five folds, in
blocks of time, so that a day's weather is nothing a fold could know.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from eta.estimate import Estimator
from eta.features import City
from eta.model import (
    HOURS,
    PRIOR_BANDS,
    PRIOR_MPS,
    QUANTILES,
    STREET_CLASSES,
    Band,
    EtaModel,
    Phase,
    Ways,
)
from eta.rides import Delivery, Pieces, cut
from eta.travel_time_cache import TravelTimeCache

CLASSES = len(STREET_CLASSES)
# How far things are expected to lie from the prior: shares of slowness, then seconds.
CLASS_SPREAD, HOUR_SPREAD, CLASS_HOUR_SPREAD = 0.5, 0.25, 0.08
CROSSING_SPREAD_S, ARRIVAL_SPREAD_S = 3.0, 20.0
PIECE_SHARE, PIECE_S = 0.2, 25.0  # a piece is off by so much of its time, and by a red light
HUBER = 1.5
ROUNDS = 6
DRIVER_PRIOR_S = 900.0  # of riding weigh as much as knowing nothing of a driver
LEAST_MPS, MOST_MPS = 0.8, 20.0
WAIT_PRIOR = 20  # waits weigh as much as the prior
FOLDS = 5
BAND_EDGES_S = (90.0, 180.0, 300.0, 480.0, 780.0, float("inf"))
LEAST_IN_BAND = 40
MOST_CALIBRATED = 3_000  # deliveries: 20 s of a processor


@dataclass(frozen=True, slots=True)
class _Fit:
    street_mps: tuple[tuple[float, ...], ...]
    crossing_s: float
    arrival_s: float
    driver_pace: dict[str, float]
    off: float  # the share of the time that is not explained


def learn(city: City, deliveries: Sequence[Delivery], learned_at: datetime) -> EtaModel:
    """Learn a model. With no deliveries it is the prior, and says so."""
    if not deliveries:
        return EtaModel()
    deliveries = sorted(deliveries, key=lambda one: one.at_customer_at)
    ways, pieces = _ways(city, deliveries)
    waits = _waits(deliveries)
    folds = np.arange(len(deliveries)) * FOLDS // len(deliveries)
    off: defaultdict[Phase, list[tuple[float, float]]] = defaultdict(list)
    step = max(1, len(deliveries) // MOST_CALIBRATED)
    for fold in range(FOLDS):
        model = _model(_fit(pieces, folds[pieces.delivery] != fold), waits, ways)
        estimator = Estimator(TravelTimeCache(city, model, most_made_per_s=math.inf))
        for number in np.flatnonzero(folds == fold)[::step]:
            _judge(estimator, deliveries[number], off)
    return replace(
        _model(_fit(pieces), waits, ways),
        bands=tuple(band for phase in Phase for band in _bands(phase, off[phase])),
        learned_at=learned_at,
        rides=len(deliveries),
    )


def _ways(city: City, deliveries: Sequence[Delivery]) -> tuple[Ways, Pieces]:
    """Which ways couriers take, and their rides along them: what explains the times better."""
    found = {ways: cut(city, deliveries, EtaModel(ways=ways)) for ways in Ways}
    unexplained = {ways: _fit(pieces).off for ways, pieces in found.items()}
    best = min(Ways, key=lambda ways: unexplained[ways])
    return best, found[best]


def metres_ridden(
    city: City, deliveries: Sequence[Delivery], model: EtaModel
) -> NDArray[np.float64]:
    """Metres ridden per class of street and hour: how well each speed is known."""
    pieces = cut(city, deliveries, EtaModel(ways=model.ways))
    metres = np.zeros((CLASSES, HOURS))
    for amounts, hour in zip(pieces.amounts, pieces.hour, strict=True):
        metres[:, hour] += amounts[:-1]
    return metres


def _model(fit: _Fit, waits: tuple[float, ...], ways: Ways) -> EtaModel:
    return EtaModel(
        ways=ways,
        street_mps=fit.street_mps,
        crossing_s=fit.crossing_s,
        arrival_s=fit.arrival_s,
        wait_s=waits,
        driver_pace=fit.driver_pace,
    )


def _fit(pieces: Pieces, chosen: NDArray[np.bool_] | None = None) -> _Fit:
    if chosen is None:
        chosen = np.ones(len(pieces.took_s), dtype=bool)
    prior_s = pieces.amounts[chosen, :-1] / np.array(PRIOR_MPS)  # per class
    rows = _design(prior_s, pieces.hour[chosen])
    rows = np.hstack([rows, pieces.amounts[chosen, -1:], pieces.ends[chosen, None]])
    base_s = prior_s.sum(1)
    driver, took_s = pieces.driver[chosen], pieces.took_s[chosen]
    spread = np.concatenate([
        np.full(CLASSES, CLASS_SPREAD), np.full(HOURS, HOUR_SPREAD),
        np.full(CLASSES * HOURS, CLASS_HOUR_SPREAD), [CROSSING_SPREAD_S, ARRIVAL_SPREAD_S],
    ])  # fmt: skip
    prior = EtaModel()
    start = np.zeros(len(spread))
    start[-2:] = prior.crossing_s, prior.arrival_s
    found, log_pace = start.copy(), np.zeros(len(pieces.driver_ids))
    seen = np.flatnonzero(rows.any(0))  # the rest stays as it is
    rows, start, spread = rows[:, seen], start[seen], spread[seen]
    for _ in range(ROUNDS if len(took_s) else 0):
        usual_s = took_s / np.exp(log_pace[driver])
        expected_s = np.maximum(base_s + rows @ found[seen], 1.0)
        sigma = np.hypot(PIECE_SHARE * expected_s, PIECE_S)
        off = np.abs(usual_s - expected_s) / sigma
        weight = np.minimum(1.0, HUBER / np.maximum(off, 1e-9)) / sigma**2
        normal = (rows * weight[:, None]).T @ rows + np.diag(1 / spread**2)
        right = (rows * weight[:, None]).T @ (usual_s - base_s) + start / spread**2
        found[seen] = np.linalg.solve(normal, right)
        found[-2:] = np.maximum(found[-2:], 0.0)
        expected_s = np.maximum(base_s + rows @ found[seen], 1.0)
        ratio = np.clip(np.log(took_s / expected_s), -0.7, 0.7)
        seen_s = np.bincount(driver, expected_s, len(log_pace))
        log_pace = np.bincount(driver, expected_s * ratio, len(log_pace)) / (
            seen_s + DRIVER_PRIOR_S
        )
    expected_s = np.maximum(base_s + rows @ found[seen], 1.0) * np.exp(log_pace[driver])
    off_s = float(np.abs(took_s - expected_s).sum())
    of_class, of_hour = found[:CLASSES], found[CLASSES : CLASSES + HOURS]
    of_both = found[CLASSES + HOURS : -2].reshape(CLASSES, HOURS)
    slower = np.maximum(1 + of_class[:, None] + of_hour + of_both, 0.1)
    mps = np.clip(np.array(PRIOR_MPS)[:, None] / slower, LEAST_MPS, MOST_MPS)
    paces = zip(pieces.driver_ids, np.exp(log_pace).tolist(), strict=True)
    return _Fit(
        tuple(tuple(row) for row in mps.tolist()),
        float(found[-2]),
        float(found[-1]),
        {driver_id: pace for driver_id, pace in paces if pace != 1.0},
        off_s / max(float(took_s.sum()), 1.0),
    )


def _design(prior_s: NDArray[np.float64], hour: NDArray[np.int64]) -> NDArray[np.float64]:
    """One column per class, per hour, and per both, in seconds of the prior."""
    count = len(prior_s)
    of_hour = np.zeros((count, HOURS))
    of_hour[np.arange(count), hour] = prior_s.sum(1)
    of_both = np.zeros((count, CLASSES, HOURS))
    of_both[np.arange(count), :, hour] = prior_s
    return np.hstack([prior_s, of_hour, of_both.reshape(count, CLASSES * HOURS)])


def _waits(deliveries: Sequence[Delivery]) -> tuple[float, ...]:
    """The wait's quantiles, drawn to the prior's where few were seen."""
    prior = np.array(EtaModel().wait_s)
    seen = [
        (one.picked_up_at - one.at_restaurant_at).total_seconds() * one.pace
        for one in deliveries
        if one.at_restaurant_at is not None and one.picked_up_at >= one.at_restaurant_at
    ]
    if not seen:
        return tuple(prior.tolist())
    share = len(seen) / (len(seen) + WAIT_PRIOR)
    return tuple((share * np.quantile(seen, QUANTILES) + (1 - share) * prior).tolist())


def _judge(
    estimator: Estimator,
    delivery: Delivery,
    off: defaultdict[Phase, list[tuple[float, float]]],
) -> None:
    """Note each estimate of a delivery, and the true time over it, in the city's own time."""
    for task, left_s in delivery.tasks():
        estimate = estimator.estimate(task)
        if estimate is not None:
            estimated_s = estimate.seconds * delivery.pace
            off[task.phase].append((estimated_s, left_s * delivery.pace / estimated_s))


def _bands(phase: Phase, off: Sequence[tuple[float, float]]) -> list[Band]:
    """Quantiles of true over estimated time, for estimates of like length."""
    bands: list[Band] = []
    waiting: list[float] = []
    low_s = 0.0
    for up_to_s in BAND_EDGES_S:
        waiting += [ratio for estimated_s, ratio in off if low_s < estimated_s <= up_to_s]
        low_s = up_to_s
        if len(waiting) >= LEAST_IN_BAND:
            p10, p50, p90 = (float(one) for one in np.quantile(waiting, (0.1, 0.5, 0.9)))
            bands.append(Band(phase, up_to_s, p10, p50, p90, len(waiting)))
            waiting = []
    if not bands:
        return [band for band in PRIOR_BANDS if band.phase is phase]
    return [*bands[:-1], replace(bands[-1], up_to_s=float("inf"))]
