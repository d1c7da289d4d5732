// France and its neighbours in outline, for whoever zooms out to the vans between the cities.
export const OUTLINE_BOUNDS = [-11, 40, 17, 56];

const GONE_AT_ZOOM = 10; // streets take over

export function outlineLayers(theme) {
  const dark = theme === "dark";
  return [
    {
      id: "outline-land",
      type: "fill",
      source: "outline",
      maxzoom: GONE_AT_ZOOM,
      paint: {
        "fill-color": dark ? "#26303c" : "#ffffff",
        "fill-opacity": ["case", ["==", ["get", "name"], "France"], 0.9, 0.45],
      },
    },
    {
      id: "outline-border",
      type: "line",
      source: "outline",
      maxzoom: GONE_AT_ZOOM,
      paint: {
        "line-color": dark ? "#5a6a7d" : "#9aa8b5",
        "line-width": ["case", ["==", ["get", "name"], "France"], 1.6, 0.8],
      },
    },
  ];
}

/** Fetch the outlines when somebody first zooms out that far. */
export function loadOutline(ours) {
  let asked = false;
  const look = async () => {
    if (asked || ours.map.getZoom() >= GONE_AT_ZOOM) return;
    asked = true;
    try {
      ours.show("outline", await (await fetch("/tiles/outline.geojson")).json());
    } catch {
      asked = false; // the next move asks again
    }
  };
  ours.map.on("moveend", look);
  look();
}
