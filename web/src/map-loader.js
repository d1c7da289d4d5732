// Loads the map's code and the first view's tiles: files at once that name each other, the tiles last.
import maplibre from "address:maplibre.js";
import shared from "address:maplibre-shared.js";
import worker from "address:maplibre-worker.js";
import { el } from "./elements.js";
import { loadMapStyle } from "./map-style.js";
import { placesInView, VIEW } from "./order-view.js";

/** Resolves to the module of the order's map. Throws where a file cannot be loaded. */
export async function loadMapCode(container, track) {
  const codeArrived = import(shared); // nearly at once with the rest
  codeArrived.catch(() => {}); // reported by the import below
  prefetchTiles(container, track, codeArrived).catch(() => {}); // the map fetches them itself
  fetch(worker).catch(() => {}); // into the browser's cache
  document.head.append(el("link", { rel: "modulepreload", href: maplibre }));
  const [code] = await Promise.all([import("./order-map.js"), loadMapStyle()]);
  return code;
}

/** Fetch the first view's tiles after the code, while the processor is busy with it. */
async function prefetchTiles(container, track, codeArrived) {
  const { streetTilesOf } = await import("./street-tiles.js");
  const streetTiles = streetTilesOf(track.city);
  await streetTiles.getHeader();
  await codeArrived;
  await streetTiles.prefetch(placesInView(track), container, VIEW);
}
