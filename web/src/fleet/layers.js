// The layers of the fleet's map: a driver's track, restaurants, and clusters from vector tiles.
import { DRIVER_STATES, RESTAURANT_COLOUR, RETURNING, UNKNOWN_SYMBOL } from "../labels.js";

export function tileSource(query) {
  const address = `${location.origin}/fleet/tiles/{z}/{x}/{y}.mvt`;
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
      "line-width": 2.5,
      "line-opacity": 0.55,
    },
  };
}

export const restaurantLayer = {
  id: "restaurants",
  type: "circle",
  source: "restaurants",
  minzoom: 12,
  paint: {
    "circle-radius": ["interpolate", ["linear"], ["zoom"], 12, 1.5, 16, 4],
    "circle-color": RESTAURANT_COLOUR,
    "circle-opacity": 0.6,
  },
};

function byState(property, otherwise) {
  const cases = Object.entries(DRIVER_STATES).flatMap(([state, one]) => [state, one[property]]);
  const shown = ["match", ["coalesce", ["get", "state"], ""], ...cases, otherwise];
  return ["case", ["has", "is_returning"], RETURNING[property], shown];
}

export function clusterLayers(theme, visible) {
  const visibility = visible ? "visible" : "none";
  const isCluster = [">", ["get", "count"], 1];
  return [
    {
      id: "clusters",
      type: "circle",
      source: "fleet",
      "source-layer": "drivers",
      layout: { visibility },
      paint: {
        "circle-radius": ["interpolate", ["linear"], ["log10", ["get", "count"]], 0, 7, 1, 10, 4, 28],
        "circle-color": ["case", isCluster, "#3d5a80", byState("colour", UNKNOWN_SYMBOL.colour)],
        "circle-opacity": ["match", ["get", "presence"], ["silent", "lost"], 0.4, 0.85],
        "circle-stroke-color": "#fff",
        "circle-stroke-width": 1.5,
      },
    },
    {
      id: "cluster-labels",
      type: "symbol",
      source: "fleet",
      "source-layer": "drivers",
      layout: {
        visibility,
        "text-field": ["case", isCluster, ["to-string", ["get", "count"]], byState("letter", "")],
        "text-font": ["NotoSans-Bold"],
        "text-size": ["case", isCluster, 12, 9],
        "text-allow-overlap": true,
      },
      paint: { "text-color": "#fff", "text-halo-color": "#16202c", "text-halo-width": 1 },
    },
  ];
}
