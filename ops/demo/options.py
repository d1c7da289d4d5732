"""What `./run demo` may be asked for."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from data.cities import CITY_FILE, CityFolder, UnknownCity, find_city
from doorstep.provision import CITIES
from ops.stack.errors import StackError

MAX_COURIERS = 5_000
MAX_CITIES = CITIES[1]
MAX_TICKERS = 1_000
MAX_SPEEDUP = 20


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """The options of one demo, in their ranges."""

    couriers: int
    city: CityFolder
    speedup: float = 1.0
    reporting: str | None = None  # None: as the server commands
    cities: int = 0
    tickers: int = 0
    exit_after_s: float | None = None
    as_json: bool = False

    @classmethod
    def of(cls, arguments: argparse.Namespace, cities_dir: Path) -> DemoOptions:
        """Read the command line. Raises StackError for a value out of range."""
        try:
            city = find_city(arguments.city, cities_dir)
        except UnknownCity as exc:
            if (cities_dir / arguments.city / CITY_FILE).exists():
                raise StackError(f"{exc}: ./run city list") from exc
            raise StackError(
                f"no city {arguments.city}: ./run city list shows them; "
                f"./run city add {arguments.city} --osm FILE.osm.pbf adds one"
            ) from exc
        for name, value, lowest, highest in (
            ("couriers", arguments.couriers, 1, MAX_COURIERS),
            ("speedup", arguments.speedup, 1, MAX_SPEEDUP),
            ("cities", arguments.cities, 0, MAX_CITIES),
            ("tickers", arguments.tickers, 0, MAX_TICKERS),
        ):
            if not lowest <= value <= highest:
                raise StackError(f"--{name} must be from {lowest} to {highest:,}")
        return cls(
            couriers=arguments.couriers,
            city=city,
            speedup=arguments.speedup,
            reporting=arguments.reporting,
            cities=arguments.cities,
            tickers=arguments.tickers,
            exit_after_s=arguments.exit_after,
            as_json=arguments.json,
        )

    @property
    def targets(self) -> dict[str, int]:
        """The target count of each kind of simulation."""
        return {"couriers": self.couriers, "cities": self.cities, "tickers": self.tickers}
