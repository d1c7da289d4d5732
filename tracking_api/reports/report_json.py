"""A day's report as JSON, in parts, as schemas.py describes it. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from doorstep.http.instants import format_instant
from tracking_api.reports.queries import Day, DriverFigures, Reason, RestaurantFigures
from tracking_api.reports.schemas import Figures, RestaurantReport
from tracking_api.track.presenters import encode_json


class ReportDocument:
    """Writes the parts of one report."""

    def __init__(self, city: str, date: str) -> None:
        self._city, self._date = city, date
        self._has_driver = False

    def head(self, day: Day) -> str:
        """Write the day."""
        members = {
            "city": self._city,
            "date": self._date,
            "time_zone": day.time_zone,
            "from_at": format_instant(day.from_at),
            "to_at": format_instant(day.to_at),
            "read_at": format_instant(day.read_at),
        }
        return _json(members)[:-1]

    def restaurants(self, found: Iterable[RestaurantFigures]) -> str:
        """Write the city's figures, which come first, and those of each restaurant."""
        city, *others = found
        total = Figures.of(city).model_dump(mode="json")
        rows = [
            RestaurantReport.of(one, restaurant_id=one.restaurant_id, name=one.name)
            for one in others
        ]
        shown = [one.model_dump(mode="json") for one in rows]
        return f',"total":{_json(total)},"restaurants":{_json(shown)}'

    def reasons(self, found: Iterable[Reason]) -> str:
        """Write why orders failed or were cancelled, and begin the drivers."""
        return f',"reasons":{_json([one._asdict() for one in found])},"drivers":['

    def drivers(self, found: Iterable[tuple[DriverFigures, float]]) -> str:
        """Write some drivers, with their kilometres."""
        texts = [_json({**one._asdict(), "distance_km": km}) for one, km in found]
        comma = "," if self._has_driver and texts else ""
        self._has_driver = self._has_driver or bool(texts)
        return comma + ",".join(texts)

    def foot(self, *, more_drivers: bool) -> str:
        """End the document."""
        return f'],"more_drivers":{_json(more_drivers)}}}'


def _json(value: object) -> str:
    return encode_json(value).decode()
