"""A city's street graph: the nearest street, and fastest routes.

graph.py  streets, points on them, and the nearest one
load.py   the graph from the bundled CSV files
roads.py  the fastest routes from everywhere to one point
"""

from eta.streets.graph import Point, Street, StreetPoint, Streets
from eta.streets.load import load_firenze, read_streets
from eta.streets.roads import EdgeSegment, RoadGraph, ShortestPathTree

__all__ = [
    "EdgeSegment",
    "Point",
    "RoadGraph",
    "ShortestPathTree",
    "Street",
    "StreetPoint",
    "Streets",
    "load_firenze",
    "read_streets",
]
