// Outlines of France and its neighbours, shown where the street map ends.
export const OUTLINE_BOUNDS = [-11, 40, 17, 56];

const MAX_ZOOM = 10; // the streets are shown from here on

export function outlineLayers(theme) {
  const dark = theme === "dark";
  return [
    {
      id: "outline-land",
      type: "fill",
      source: "outline",
      maxzoom: MAX_ZOOM,
      paint: {
        "fill-color": dark ? "#26303c" : "#ffffff",
        "fill-opacity": ["case", ["==", ["get", "name"], "France"], 0.9, 0.45],
      },
    },
    {
      id: "outline-border",
      type: "line",
      source: "outline",
      maxzoom: MAX_ZOOM,
      paint: {
        "line-color": dark ? "#5a6a7d" : "#9aa8b5",
        "line-width": ["case", ["==", ["get", "name"], "France"], 1.6, 0.8],
      },
    },
  ];
}

/** Fetch the outlines when the map is first zoomed out that far. */
export function loadOutline(baseMap) {
  let isRequested = false;
  const loadIfVisible = async () => {
    if (isRequested || baseMap.map.getZoom() >= MAX_ZOOM) return;
    isRequested = true;
    try {
      baseMap.show("outline", await (await fetch("/tiles/outline.geojson")).json());
    } catch {
      isRequested = false; // retried on the next move
    }
  };
  baseMap.map.on("moveend", loadIfVisible);
  loadIfVisible();
}
