// Boxes of degrees: west, south, east, north. On the map longitudes go on across ±180°.

export const wrap = (lon) => ((((lon + 180) % 360) + 360) % 360) - 180;

/** A box as requests name it: west is above east across ±180°. */
export function requestBox([west, south, east, north]) {
  const box = east - west >= 360 ? [-180, south, 180, north] : [wrap(west), south, wrap(east), north];
  return box.map((degrees) => Number(degrees.toFixed(6))).join(",");
}

/** A city's bounds with an east that goes on across ±180°. */
export function unwrapped([west, south, east, north]) {
  return [west, south, east < west ? east + 360 : east, north];
}
