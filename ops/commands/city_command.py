"""`./run city`: adds, lists, updates and removes the cities that are served."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from data import BUNDLED_CITY
from data.cities import Bounds, CityFolder, UnknownCity, find_city, list_cities
from doorstep.provision import owner_connection, provision_city
from doorstep.store.admin import remove_city
from ops.cities.errors import CityError
from ops.console import print_line
from ops.stack.stack import Stack

DESCRIPTION = """A city is a street graph, a map, a service area and a first list of restaurants,
made from an OpenStreetMap extract (.osm.pbf). download.geofabrik.de and extract.bbbike.org have
extracts; `osmium extract` cuts a city from a larger one."""
EXAMPLES = """examples:
  ./run city add helsinki --osm helsinki.osm.pbf
  ./run city add suva --osm fiji.osm.pbf --bounds 178.38,-18.19,178.50,-18.07
  ./run city list
  ./run city update helsinki --osm newer.osm.pbf    restaurants keep their ids
  ./run city remove helsinki
  ./run demo --city helsinki

--bounds is W,S,E,N in degrees; west may be above east, across ±180°. A running stack serves a new
city within a minute; else the next start registers it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the actions."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for action, purpose in (("add", "add a city"), ("update", "make a city's files again")):
        one = actions.add_parser(action, help=purpose)
        one.add_argument("name", metavar="NAME", help="like helsinki or new-york")
        one.add_argument("--osm", type=Path, required=True, metavar="FILE", help="an .osm.pbf")
        one.add_argument("--bounds", type=parse_bounds, metavar="W,S,E,N", help="(the extract's)")
    actions.add_parser("list", help="list the cities")
    actions.add_parser("remove", help="remove a city").add_argument("name", metavar="NAME")


def parse_bounds(text: str) -> Bounds:
    """Parse W,S,E,N. Raises ArgumentTypeError."""
    try:
        west, south, east, north = (float(part) for part in text.split(","))
    except ValueError:
        west = south = east = north = float("nan")
    in_range = -180 <= west <= 180 and -180 <= east <= 180 and west != east
    if in_range and -90 <= south < north <= 90:
        return Bounds(west, south, east, north)
    raise argparse.ArgumentTypeError("give W,S,E,N in degrees, like 24.93,60.16,24.96,60.18")


def city(stack: Stack, options: argparse.Namespace) -> int:
    """Run an action."""
    cities_dir = stack.settings.cities_root
    match options.action:
        case "add" | "update":
            return _make(stack, options, cities_dir)
        case "remove":
            return _remove(stack, options.name, cities_dir)
    for one in list_cities(cities_dir):
        bounds = one.bounds
        box = f"{bounds.west:.4f},{bounds.south:.4f},{bounds.east:.4f},{bounds.north:.4f}"
        origin = "bundled" if one.name == BUNDLED_CITY else f"of {one.made_at:%Y-%m-%d}"
        print(f"{one.name:<20} {box:<38} {one.time_zone:<20} {origin}")
    return 0


def _make(stack: Stack, options: argparse.Namespace, cities_dir: Path) -> int:
    name: str = options.name
    is_present = (cities_dir / name).exists()
    if options.action == "add" and is_present:
        raise CityError(f"there is a city {name} already: ./run city update {name} --osm FILE")
    if options.action == "update" and not is_present:
        raise CityError(f"there is no city {name}: ./run city list, or ./run city add {name}")
    try:
        from ops.cities.build import build_city
    except ImportError as exc:
        raise CityError(f"{exc.name} is missing: pip install 'doorstep[cities]'") from exc
    bounds = options.bounds
    if bounds is None and options.action == "update":
        bounds = _present_bounds(name, cities_dir)
    made = build_city(name, options.osm.absolute(), bounds, cities_dir, print_line)
    _register(stack, made)
    return 0


def _present_bounds(name: str, cities_dir: Path) -> Bounds | None:
    try:
        return find_city(name, cities_dir).bounds
    except UnknownCity:
        return None


def _register(stack: Stack, made: CityFolder) -> None:
    if not stack.is_up():
        print_line(f"{made.name} is ready: ./run up or ./run demo --city {made.name}")
        return
    with owner_connection(stack.database_admin_url) as conn:
        count = provision_city(conn, made)
    print_line(f"{made.name} is served, with {count or 0:,} restaurants: {stack.public_url}/fleet")


def _remove(stack: Stack, name: str, cities_dir: Path) -> int:
    if name == BUNDLED_CITY:
        raise CityError(f"{name} is the bundled example and stays")
    try:
        present = find_city(name, cities_dir)
    except UnknownCity as exc:
        raise CityError(f"{exc}: ./run city list") from exc
    if not stack.is_up():
        raise CityError(f"{name} is in the database, too: ./run up, then repeat the command")
    with owner_connection(stack.database_admin_url) as conn:
        open_orders = remove_city(conn, name)
        conn.commit()
    if open_orders:
        raise CityError(f"{open_orders} orders in {name} are open: end them, then repeat")
    shutil.rmtree(present.path)
    print_line(f"{name} is removed; restaurants with orders stay, outside every city")
    return 0
