"""A day's report as one CSV table: a row for the city, each restaurant, reason and driver. Pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping

from doorstep.administration.csv_table import text_cell
from tracking_api.reports.queries import Day, DriverFigures, Reason, RestaurantFigures
from tracking_api.reports.schemas import Stage

COUNTS = ("orders", "open", "delivered", "cancelled", "failed", "given_up")
PROMISE = ("promised", "early", "in_window", "late", "late_p50_s", "late_max_s", "open_late")
COLUMNS = (
    *("kind", "city", "date", "id", "name", "by", "reason"),
    *COUNTS,
    *PROMISE,
    *(f"{stage}_{name}" for stage in Stage for name in ("p50_s", "p90_s")),
    "distance_km",
)


class ReportTable:
    """Writes the rows of one report. Every row names the city and the date."""

    def __init__(self, city: str, date: str) -> None:
        self._city, self._date = city, date

    def head(self, _: Day) -> str:
        """Write the names of the columns."""
        return _lines([COLUMNS])

    def restaurants(self, found: Iterable[RestaurantFigures]) -> str:
        """Write the city's row, and one for each restaurant."""
        return self._rows(self._figures(one) for one in found)

    def reasons(self, found: Iterable[Reason]) -> str:
        """Write a row for each reason of a restaurant."""
        return self._rows(
            {
                "kind": one.state,
                "id": one.restaurant_id,
                "by": one.by,
                "reason": one.reason,
                "orders": one.orders,
            }
            for one in found
        )

    def drivers(self, found: Iterable[tuple[DriverFigures, float]]) -> str:
        """Write a row for each driver, with the kilometres."""
        return self._rows(
            {
                "kind": "driver",
                "id": one.driver_id,
                "name": one.name,
                "orders": one.assignments,
                **{name: getattr(one, name) for name in COUNTS if hasattr(one, name)},
                "distance_km": km,
            }
            for one, km in found
        )

    def foot(self, *, more_drivers: bool) -> str:
        """Write what ends the table: a row if drivers are left out."""
        return self._rows([{"kind": "more_drivers"}] if more_drivers else [])

    def _figures(self, one: RestaurantFigures) -> dict[str, object]:
        values: dict[str, object] = {
            "kind": "city" if one.restaurant_id is None else "restaurant",
            "id": self._city if one.restaurant_id is None else one.restaurant_id,
            "name": self._city if one.restaurant_id is None else one.name,
        }
        values |= {name: getattr(one, name) for name in COUNTS if hasattr(one, name)}
        values |= {name: getattr(one, name) for name in PROMISE}
        for stage, p50_s, p90_s in zip(Stage, one.stage_p50_s, one.stage_p90_s, strict=True):
            values |= {f"{stage}_p50_s": p50_s, f"{stage}_p90_s": p90_s}
        return values

    def _rows(self, rows: Iterable[Mapping[str, object]]) -> str:
        same = {"city": self._city, "date": self._date}
        return _lines([[{**same, **row}.get(name) for name in COLUMNS] for row in rows])


def _lines(rows: Iterable[Iterable[object]]) -> str:
    target = io.StringIO(newline="")
    writer = csv.writer(target, lineterminator="\r\n")  # RFC 4180
    writer.writerows([_cell(value) for value in row] for row in rows)
    return target.getvalue()


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    return text_cell(value) if isinstance(value, str) else "" if value is None else str(value)
