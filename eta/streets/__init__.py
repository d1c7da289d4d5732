"""A city's street graph: the nearest street, and fastest routes.

graph.py       streets, points on them, and the nearest one
load.py        the graph from the CSV files of a city's folder
components.py  its largest strongly connected part
roads.py       the fastest routes from everywhere to one point
door_routes.py what is kept of those to a door
"""

from eta.streets.components import largest_component
from eta.streets.door_routes import DoorRoutes
from eta.streets.graph import BannedTurn, Point, Street, StreetPoint, Streets
from eta.streets.load import load_streets, read_streets
from eta.streets.roads import EdgeCosts, EdgeSegment, RoadGraph, ShortestPathTree

__all__ = [
    "BannedTurn",
    "DoorRoutes",
    "EdgeCosts",
    "EdgeSegment",
    "Point",
    "RoadGraph",
    "ShortestPathTree",
    "Street",
    "StreetPoint",
    "Streets",
    "largest_component",
    "load_streets",
    "read_streets",
]
