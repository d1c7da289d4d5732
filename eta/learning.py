"""Fit a model to past deliveries: speeds, drivers' paces, waits and error bands.

    duration = driver's pace × (Σ metres of class c × slowness(c, h) + crossings + last steps)

Slowness is the prior's, times 1 + a(c) + b(h) + e(c, h). A ridge penalty draws every effect to 0
as strongly as its expected spread says, so that the prior holds where there is little data. Ride
segments with large residuals count less (Huber), drivers' paces are drawn to 1, and the two are
fitted alternately.

The bands come from estimates of deliveries that the speeds were not fitted to: five folds, each a
block of time, so that the conditions of a day do not leak between them.
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
from eta.model import (
    HOURS,
    PRIOR_BANDS,
    PRIOR_MPS,
    QUANTILES,
    STREET_CLASSES,
    Band,
    EtaModel,
    Phase,
    RouteChoice,
)
from eta.rides import Cities, Delivery, RideSegments, split_rides
from eta.travel_time_cache import TravelTimeCache

CLASSES = len(STREET_CLASSES)
# Expected deviations from the prior: shares of slowness, then seconds.
CLASS_SPREAD, HOUR_SPREAD, CLASS_HOUR_SPREAD = 0.5, 0.25, 0.08
CROSSING_SPREAD_S, ARRIVAL_SPREAD_S = 3.0, 20.0
SEGMENT_SHARE, SEGMENT_S = 0.2, 25.0  # a segment's error: a share of its duration, and a red light
HUBER = 1.5
ROUNDS = 6
DRIVER_PRIOR_S = 900.0  # seconds of riding that weigh as much as the prior pace of 1
MIN_MPS, MAX_MPS = 0.8, 20.0
WAIT_PRIOR = 20  # waits that weigh as much as the prior
FOLDS = 5
BAND_EDGES_S = (90.0, 180.0, 300.0, 480.0, 780.0, float("inf"))
MIN_IN_BAND = 40
MAX_CALIBRATED = 3_000  # deliveries: 20 s of a processor

# Per phase: (estimated seconds, true over estimated time), in model time.
_Errors = defaultdict[Phase, list[tuple[float, float]]]


@dataclass(frozen=True, slots=True)
class _Fit:
    street_mps: tuple[tuple[float, ...], ...]
    crossing_s: float
    arrival_s: float
    driver_pace: dict[str, float]
    unexplained: float  # absolute residuals over the total duration


def learn(cities: Cities, deliveries: Sequence[Delivery], learned_at: datetime) -> EtaModel:
    """Fit a model. Without deliveries it is the prior, with `learned_at` None."""
    if not deliveries:
        return EtaModel()
    deliveries = sorted(deliveries, key=lambda one: one.at_customer_at)
    choice, segments = _route_choice(cities, deliveries)
    wait_s = _wait_quantiles(deliveries)
    folds = np.arange(len(deliveries)) * FOLDS // len(deliveries)
    errors: _Errors = defaultdict(list)
    step = max(1, len(deliveries) // MAX_CALIBRATED)
    for fold in range(FOLDS):
        model = _model(_fit(segments, folds[segments.delivery] != fold), wait_s, choice)
        estimators = {
            name: Estimator(TravelTimeCache(city, model, max_runs_per_s=math.inf))
            for name, city in cities.items()
        }
        for number in np.flatnonzero(folds == fold)[::step]:
            delivery = deliveries[number]
            _record_errors(estimators[delivery.city], delivery, errors)
    return replace(
        _model(_fit(segments), wait_s, choice),
        bands=tuple(band for phase in Phase for band in _bands(phase, errors[phase])),
        learned_at=learned_at,
        rides=len(deliveries),
    )


def _route_choice(
    cities: Cities, deliveries: Sequence[Delivery]
) -> tuple[RouteChoice, RideSegments]:
    """The route choice that explains the durations better, and the ride segments along it."""
    segments = {
        choice: split_rides(cities, deliveries, EtaModel(route_choice=choice))
        for choice in RouteChoice
    }
    unexplained = {choice: _fit(of_choice).unexplained for choice, of_choice in segments.items()}
    best = min(RouteChoice, key=lambda choice: unexplained[choice])
    return best, segments[best]


def metres_ridden(
    cities: Cities, deliveries: Sequence[Delivery], model: EtaModel
) -> NDArray[np.float64]:
    """Metres ridden per street class and hour: the evidence behind each speed."""
    segments = split_rides(cities, deliveries, EtaModel(route_choice=model.route_choice))
    metres = np.zeros((CLASSES, HOURS))
    for features, hour in zip(segments.features, segments.hour, strict=True):
        metres[:, hour] += features[:-1]
    return metres


def _model(fit: _Fit, wait_s: tuple[float, ...], choice: RouteChoice) -> EtaModel:
    return EtaModel(
        route_choice=choice,
        street_mps=fit.street_mps,
        crossing_s=fit.crossing_s,
        arrival_s=fit.arrival_s,
        wait_s=wait_s,
        driver_pace=fit.driver_pace,
    )


def _fit(segments: RideSegments, selected: NDArray[np.bool_] | None = None) -> _Fit:
    if selected is None:
        selected = np.ones(len(segments.duration_s), dtype=bool)
    prior_s = segments.features[selected, :-1] / np.array(PRIOR_MPS)  # per class
    design = _design(prior_s, segments.hour[selected])
    design = np.hstack([design, segments.features[selected, -1:], segments.is_last[selected, None]])
    base_s = prior_s.sum(1)
    driver, duration_s = segments.driver[selected], segments.duration_s[selected]
    spread = np.concatenate([
        np.full(CLASSES, CLASS_SPREAD), np.full(HOURS, HOUR_SPREAD),
        np.full(CLASSES * HOURS, CLASS_HOUR_SPREAD), [CROSSING_SPREAD_S, ARRIVAL_SPREAD_S],
    ])  # fmt: skip
    prior = EtaModel()
    start = np.zeros(len(spread))
    start[-2:] = prior.crossing_s, prior.arrival_s
    effects, log_pace = start.copy(), np.zeros(len(segments.driver_ids))
    observed = np.flatnonzero(design.any(0))  # the other effects keep the prior
    design, start, spread = design[:, observed], start[observed], spread[observed]
    for _ in range(ROUNDS if len(duration_s) else 0):
        usual_s = duration_s / np.exp(log_pace[driver])
        expected_s = np.maximum(base_s + design @ effects[observed], 1.0)
        sigma = np.hypot(SEGMENT_SHARE * expected_s, SEGMENT_S)
        residual = np.abs(usual_s - expected_s) / sigma
        weight = np.minimum(1.0, HUBER / np.maximum(residual, 1e-9)) / sigma**2
        normal = (design * weight[:, None]).T @ design + np.diag(1 / spread**2)
        right = (design * weight[:, None]).T @ (usual_s - base_s) + start / spread**2
        effects[observed] = np.linalg.solve(normal, right)
        effects[-2:] = np.maximum(effects[-2:], 0.0)
        expected_s = np.maximum(base_s + design @ effects[observed], 1.0)
        ratio = np.clip(np.log(duration_s / expected_s), -0.7, 0.7)
        driver_s = np.bincount(driver, expected_s, len(log_pace))
        log_pace = np.bincount(driver, expected_s * ratio, len(log_pace)) / (
            driver_s + DRIVER_PRIOR_S
        )
    expected_s = np.maximum(base_s + design @ effects[observed], 1.0) * np.exp(log_pace[driver])
    residual_s = float(np.abs(duration_s - expected_s).sum())
    of_class, of_hour = effects[:CLASSES], effects[CLASSES : CLASSES + HOURS]
    of_both = effects[CLASSES + HOURS : -2].reshape(CLASSES, HOURS)
    slowness = np.maximum(1 + of_class[:, None] + of_hour + of_both, 0.1)
    mps = np.clip(np.array(PRIOR_MPS)[:, None] / slowness, MIN_MPS, MAX_MPS)
    paces = zip(segments.driver_ids, np.exp(log_pace).tolist(), strict=True)
    return _Fit(
        tuple(tuple(row) for row in mps.tolist()),
        float(effects[-2]),
        float(effects[-1]),
        {driver_id: pace for driver_id, pace in paces if pace != 1.0},
        residual_s / max(float(duration_s.sum()), 1.0),
    )


def _design(prior_s: NDArray[np.float64], hour: NDArray[np.int64]) -> NDArray[np.float64]:
    """One column per class, per hour, and per both, in seconds at the prior's speed."""
    count = len(prior_s)
    of_hour = np.zeros((count, HOURS))
    of_hour[np.arange(count), hour] = prior_s.sum(1)
    of_both = np.zeros((count, CLASSES, HOURS))
    of_both[np.arange(count), :, hour] = prior_s
    return np.hstack([prior_s, of_hour, of_both.reshape(count, CLASSES * HOURS)])


def _wait_quantiles(deliveries: Sequence[Delivery]) -> tuple[float, ...]:
    """Quantiles of the observed waits, drawn to the prior's where there are few."""
    prior = np.array(EtaModel().wait_s)
    waits_s = [
        (one.picked_up_at - one.at_restaurant_at).total_seconds() * one.pace
        for one in deliveries
        if one.at_restaurant_at is not None and one.picked_up_at >= one.at_restaurant_at
    ]
    if not waits_s:
        return tuple(prior.tolist())
    share = len(waits_s) / (len(waits_s) + WAIT_PRIOR)
    return tuple((share * np.quantile(waits_s, QUANTILES) + (1 - share) * prior).tolist())


def _record_errors(estimator: Estimator, delivery: Delivery, errors: _Errors) -> None:
    """Record the error of each estimate that a delivery allows."""
    for task, remaining_s in delivery.tasks():
        estimate = estimator.estimate(task)
        if estimate is not None:
            estimated_s = estimate.seconds * delivery.pace
            errors[task.phase].append((estimated_s, remaining_s * delivery.pace / estimated_s))


def _bands(phase: Phase, errors: Sequence[tuple[float, float]]) -> list[Band]:
    """Error quantiles of a phase, for estimates of similar length."""
    bands: list[Band] = []
    pending: list[float] = []  # too few for a band of their own: joined to the next
    low_s = 0.0
    for up_to_s in BAND_EDGES_S:
        pending += [ratio for estimated_s, ratio in errors if low_s < estimated_s <= up_to_s]
        low_s = up_to_s
        if len(pending) >= MIN_IN_BAND:
            p10, p50, p90 = (float(one) for one in np.quantile(pending, (0.1, 0.5, 0.9)))
            bands.append(Band(phase, up_to_s, p10, p50, p90, len(pending)))
            pending = []
    if not bands:
        return [band for band in PRIOR_BANDS if band.phase is phase]
    return [*bands[:-1], replace(bands[-1], up_to_s=float("inf"))]
