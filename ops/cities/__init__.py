"""Makes a city's folder from an OpenStreetMap extract, for `./run city`.

extract.py       reads the extract: streets, restrictions, places, and what the map shows
street_graph.py  the graph of streets that couriers may use
turns.py         turn restrictions
coastline.py     the sea, from the coastline
tags.py          what tags mean: access, one-ways, speeds
map_layers.py    the layers of the map, in the schema of the bundled one
tiles.py         the map's archive, by tippecanoe
places.py        restaurants, and points in buildings
build.py         the steps in order
"""
