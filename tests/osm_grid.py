"""A small hand-written OpenStreetMap extract, for tests of the importer of cities."""

from __future__ import annotations

from pathlib import Path

STEP_DEG = 0.001
# A grid of 3 x 3 junctions, n1 in the south-west and n9 in the north-east.
ROWS = {"w1": (1, 2, 3), "w2": (4, 5, 6), "w3": (7, 8, 9)}
COLUMNS = {"w4": (1, 4, 7), "w5": (2, 5, 8), "w6": (3, 6, 9)}
_RESTAURANT = (
    '<tag k="amenity" v="restaurant"/><tag k="name" v="Kappeli"/>'
    '<tag k="addr:street" v="Esplanadi"/><tag k="addr:housenumber" v="1;3 a"/>'
)
COAST = (20, 21)  # along the south, eastwards: land is north of it


def write_osm(
    path: Path, *, west: float = 10.0, tags: dict[str, dict[str, str]] | None = None,
    restriction: tuple[str, int, int, int] | None = None,
) -> Path:  # fmt: skip
    """Write the grid. `tags` adds to ways, `restriction` is (kind, from way, via, to way)."""
    places = {
        n: (west + (n - 1) % 3 * STEP_DEG, 50 + (n - 1) // 3 * STEP_DEG) for n in range(1, 10)
    }
    places |= {20: (west - STEP_DEG, 49.9995), 21: (west + 3 * STEP_DEG, 49.9995)}
    lines = ['<?xml version="1.0"?><osm version="0.6">']
    for number, (lon, lat) in places.items():
        lon -= 360 if lon > 180 else 0
        extra = _RESTAURANT * (number == 5)
        lines.append(f'<node id="{number}" version="1" lon="{lon:.7f}" lat="{lat}">{extra}</node>')
    ways = {**ROWS, **COLUMNS, "w9": COAST}
    for name, nodes in ways.items():
        all_tags = {"natural": "coastline"} if name == "w9" else {"highway": "residential"}
        all_tags |= (tags or {}).get(name, {})
        refs = "".join(f'<nd ref="{node}"/>' for node in nodes)
        of_way = "".join(f'<tag k="{key}" v="{value}"/>' for key, value in all_tags.items())
        lines.append(f'<way id="{name[1:]}" version="1">{refs}{of_way}</way>')
    if restriction:
        kind, start, via, end = restriction
        lines += [
            f'<relation id="1" version="1"><member type="way" ref="{start}" role="from"/>',
            f'<member type="node" ref="{via}" role="via"/>',
            f'<member type="way" ref="{end}" role="to"/>',
            f'<tag k="type" v="restriction"/><tag k="restriction" v="{kind}"/></relation>',
        ]
    path.write_text("\n".join([*lines, "</osm>"]))
    return path
