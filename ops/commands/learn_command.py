"""`./run learn`: learns travel and waiting times from past deliveries, for the ETA."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from data.cities import list_cities
from doorstep.errors import DoorstepError
from doorstep.provision import owner_connection
from doorstep.store.error_mapping import translated
from eta.codec import model_to_json
from eta.estimate import Observation
from eta.features import City
from eta.learning import learn, metres_ridden
from eta.model import STREET_CLASSES, EtaModel, Phase
from eta.rides import Delivery
from eta.streets import load_streets
from ops.commands.runner import run_command
from ops.commands.settings import OperatorSettings
from ops.console import print_line
from sql import query

EXAMPLES = """examples:
  ./run learn                 from the last 28 days, at most 5,000 deliveries
  ./run learn --days 7        from the last 7 days
  ./run learn --dry-run       print what would be learned, and change nothing

tracking_api loads the model within a minute. Each run adds a version; the newest is used, the ten
newest are kept. Run it every night. The exit status is 1 if there are too few deliveries."""
OBSERVE_EVERY_S = 20.0  # one fix in so many seconds is read
WORST_ACCURACY_M = 50.0
MIN_DELIVERIES = 30


class TooFewDeliveries(DoorstepError):
    """There are too few deliveries to learn from."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the return value is the exit status."""
    options = _parser().parse_args(argv)
    return run_command("learn", lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    settings = OperatorSettings.load()
    url = settings.database_admin_url.get_secret_value()
    folders = {one.name: one for one in list_cities(settings.cities_dir)}
    now = datetime.now(UTC)
    with owner_connection(url) as conn:
        deliveries = read_deliveries(
            conn, now - timedelta(days=options.days), options.at_most, list(folders)
        )
    if len(deliveries) < MIN_DELIVERIES:
        raise TooFewDeliveries(
            f"{len(deliveries)} deliveries in {options.days:g} days with a pick-up and an arrival "
            f"proved by GPS; at least {MIN_DELIVERIES} are needed"
        )
    print_line(f"learn: learning from {len(deliveries):,} deliveries")
    names = sorted({one.city for one in deliveries})
    cities = {name: City(load_streets(folders[name])) for name in names}
    model = learn(cities, deliveries, now)
    if not options.dry_run:
        model_json = model_to_json(model, metres_ridden(cities, deliveries, model).tolist())
        with owner_connection(url) as conn:  # a new one: the first would exceed its idle timeout
            store_model(conn, model_json)
            conn.commit()
    print(json.dumps(_summary(model)) if options.json else "\n".join(_lines(model)))
    return 0


def read_deliveries(
    conn: psycopg.Connection[Any], since: datetime, at_most: int, cities: Sequence[str]
) -> list[Delivery]:
    """Read the newest deliveries with a pick-up and an arrival, and a sample of their fixes."""
    parameters = {
        "since": since,
        "at_most": at_most,
        "cities": list(cities),
        "every_s": OBSERVE_EVERY_S,
        "worst_accuracy_m": WORST_ACCURACY_M,
    }
    with translated():
        rows = conn.execute(query("deliveries", "eta_learning.sql"), parameters).fetchall()
    return [_delivery(row) for row in rows]


def store_model(conn: psycopg.Connection[Any], model: dict[str, Any]) -> int:
    """Add a version and return its number. The caller commits."""
    with translated():
        row = conn.execute(
            query("add_eta_model", "eta_learning.sql"), {"model": Jsonb(model)}
        ).fetchone()
    if row is None:
        raise LookupError("eta_model__add_v1 returned no row")
    return int(row[0])


def _delivery(row: Sequence[Any]) -> Delivery:
    trail = zip(row[10], row[11], row[12], strict=True)
    return Delivery(
        driver_id=row[0],
        restaurant=(row[1], row[2]),
        door=(row[3], row[4]),
        assigned_at=row[5],
        at_restaurant_at=row[6],
        picked_up_at=row[7],
        at_customer_at=row[8],
        trail=[Observation(at, (lon_deg, lat_deg)) for at, lon_deg, lat_deg in trail],
        pace=row[9],
        city=row[13],
    )


def _summary(model: EtaModel) -> dict[str, Any]:
    return {
        "deliveries": model.rides,
        "mean_mps": {
            name: round(sum(by_hour) / len(by_hour), 2)
            for name, by_hour in zip(STREET_CLASSES, model.street_mps, strict=True)
        },
        "crossing_s": round(model.crossing_s, 1),
        "arrival_s": round(model.arrival_s, 1),
        "wait_median_s": round(model.wait_s[len(model.wait_s) // 2]),
        "drivers": len(model.driver_pace),
        "bands": len([band for band in model.bands if band.samples]),
    }


def _lines(model: EtaModel) -> list[str]:
    summary = _summary(model)
    speeds = ", ".join(f"{name} {mps * 3.6:.0f}" for name, mps in summary["mean_mps"].items())
    band = model.band(Phase.TO_CUSTOMER, 600.0)
    return [
        f"learned from {model.rides:,} deliveries of {summary['drivers']:,} drivers",
        f"speeds   {speeds} km/h, a day's mean",
        f"delays   {summary['crossing_s']} s a crossing, {summary['arrival_s']} s at the door, "
        f"{summary['wait_median_s']} s at the restaurant",
        f"band     {band.p10:.0%} to {band.p90:.0%} of ten minutes estimated to the customer",
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./run learn",
        description="Learn travel and waiting times from past deliveries, for the ETA.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--days", type=float, default=28.0, help="of the history to read (28)")
    parser.add_argument("--at-most", type=int, default=5_000, metavar="N", help="deliveries (5000)")
    parser.add_argument("--dry-run", action="store_true", help="change nothing")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
