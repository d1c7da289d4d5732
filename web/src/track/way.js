// The way ahead on the customer's map, along the streets. The way already ridden is a faint trail.
import { featureCollection } from "../map.js";

const MAX_OFF_M = 80; // farther from the way, the courier is on another one
const M_PER_DEG = 111_195;

export function routeLayers(theme) {
  const dark = theme === "dark";
  const layout = { "line-cap": "round", "line-join": "round" };
  const line = { type: "line", source: "route", layout };
  return [
    { ...line, id: "route-casing", paint: { "line-color": dark ? "#10151c" : "#fff", "line-width": 8 } },
    { ...line, id: "route", paint: { "line-color": dark ? "#6d9cff" : "#2f6fed", "line-width": 4.5 } },
  ];
}

/** The part of a route (GeoJSON, or null) that is ahead of a place, as features. */
export function wayFrom(route, place) {
  if (!route || !place) return featureCollection([]);
  const coordinates = ahead(route.coordinates, place);
  return featureCollection([{ type: "Feature", geometry: { type: "LineString", coordinates }, properties: {} }]);
}

function ahead(line, place) {
  const perLon = M_PER_DEG * Math.cos((place[1] * Math.PI) / 180);
  const metres = ([lon, lat]) => [(lon - place[0]) * perLon, (lat - place[1]) * M_PER_DEG];
  let best = { off: MAX_OFF_M, from: 0, point: null };
  for (let n = 0; n + 1 < line.length; n += 1) {
    const [[x1, y1], [x2, y2]] = [metres(line[n]), metres(line[n + 1])];
    const [dx, dy] = [x2 - x1, y2 - y1];
    const share = Math.min(1, Math.max(0, -(x1 * dx + y1 * dy) / (dx * dx + dy * dy || 1)));
    const off = Math.hypot(x1 + dx * share, y1 + dy * share);
    if (off >= best.off) continue;
    const [from, to] = [line[n], line[n + 1]];
    best = { off, from: n + 1, point: from.map((one, axis) => one + (to[axis] - one) * share) };
  }
  return best.point ? [best.point, ...line.slice(best.from)] : line;
}
