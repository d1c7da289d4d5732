// The map's layers that only the fleet's page has: a driver's track, and crowds from vector tiles.
import { DRIVER_STATES } from "../words.js";

export const FLEET_TILES = "/fleet/tiles/";

export function tileSource(query) {
  const address = `${location.origin}${FLEET_TILES}{z}/{x}/{y}.mvt`;
  return { type: "vector", tiles: [query ? `${address}?${query}` : address], maxzoom: 16 };
}

export function trackLayer(theme) {
  return {
    id: "track",
    type: "line",
    source: "track",
    layout: { "line-cap": "round", "line-join": "round" },
    paint: {
      "line-color": theme === "dark" ? "#ff7eb0" : "#c2185b",
      "line-width": 3,
      "line-opacity": 0.7,
    },
  };
}

const colours = ["match", ["coalesce", ["get", "state"], ""]];
for (const [state, [, colour]] of Object.entries(DRIVER_STATES)) colours.push(state, colour);
colours.push("#2f6fed");

export function crowdLayers(theme, visible) {
  const visibility = visible ? "visible" : "none";
  return [
    {
      id: "crowd",
      type: "circle",
      source: "fleet",
      "source-layer": "drivers",
      layout: { visibility },
      paint: {
        "circle-radius": ["interpolate", ["linear"], ["log10", ["get", "count"]], 0, 5, 1, 10, 4, 28],
        "circle-color": colours,
        "circle-opacity": ["match", ["get", "presence"], ["silent", "lost"], 0.4, 0.85],
        "circle-stroke-color": "#fff",
        "circle-stroke-width": 1.5,
      },
    },
    {
      id: "crowd-counts",
      type: "symbol",
      source: "fleet",
      "source-layer": "drivers",
      filter: [">", ["get", "count"], 1],
      layout: {
        visibility,
        "text-field": ["to-string", ["get", "count"]],
        "text-font": ["NotoSans-Bold"],
        "text-size": 12,
        "text-allow-overlap": true,
      },
      paint: { "text-color": "#fff" },
    },
  ];
}
