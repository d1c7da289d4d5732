"""A city's street graph: where the nearest street is, and how far it is along the streets.

graph.py  streets, places on them, and the nearest one
load.py   the graph from the bundled CSV files
roads.py  the fastest ways from everywhere to one place, in one go
"""

from eta.streets.graph import Place, Point, Street, Streets
from eta.streets.load import load_firenze, read_streets
from eta.streets.roads import EdgeSegment, Roads, ShortestPathTree

__all__ = [
    "EdgeSegment",
    "Place",
    "Point",
    "Roads",
    "ShortestPathTree",
    "Street",
    "Streets",
    "load_firenze",
    "read_streets",
]
